"""A root → how each of its stacks is, in one word, and what is wrong. Writes nothing."""

import time
from collections import defaultdict
from typing import Any

import msgspec
from msgspec import Struct

from reconciler.model.errors import NotFound
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Status, Stray
from reconciler.model.record import SOURCE, Record, StackRecord
from reconciler.plan.condition import Condition, Revised, Served, judge_stack
from reconciler.plan.make import make_drift_plan
from reconciler.verbs.look import Look, look
from reconciler.verbs.observe import status_of
from reconciler.verbs.root import Root
from reconciler.verbs.serving import Serving, StackState, read_last_serving, read_serving


class Report(Struct, frozen=True, kw_only=True):
    """How a root is."""

    stacks: tuple[Condition, ...]
    strays: tuple[Stray, ...] = ()
    """What bears the root's id and belongs to nobody; only where all stacks were asked for."""
    serving: Serving | None = None
    """What the controller says, where one lives: of the stack that was asked for, or of all."""
    last: Serving | None = None
    """What the last one said, where none lives."""


def status(root: Root, stack: str = "") -> Report:
    """How one stack is, or all of them are, by name. Raises NotFound for a stack that is not on record."""
    looked, serving = look(root), read_serving(root.path)
    known = {**{split_key(key).stack: StackRecord(name=split_key(key).stack, origin="") for key in looked.records}}
    known |= looked.stacks
    # What a source wants and was never applied is no less wrong for that.
    for one in () if serving is None else serving.stacks:
        if not one.gone:
            known.setdefault(one.stack, StackRecord(name=one.stack, origin=f"{SOURCE}{one.source}", source=one.file))
    if stack and stack not in known:
        raise NotFound("stack", stack, known)
    now = time.time()
    plan = make_drift_plan(stacks=looked.stacks, records=looked.records, observation=looked.observation, now=now)
    records, statuses = _by_stack(looked)
    served = {} if serving is None else {one.stack: _served(one) for one in serving.stacks}
    conditions = tuple(
        judge_stack(
            known[name],
            records=records[name],
            statuses=statuses[name],
            drift=plan,
            revision=_last_revision(root, known[name]),
            at_work=root.read_holder(name),
            now=now,
            served=served.get(name),
        )
        for name in ([stack] if stack else sorted(known))
    )
    if serving is not None and stack:
        serving = serving.only(stack, known[stack].origin.removeprefix(SOURCE))
    return Report(
        stacks=conditions,
        strays=() if stack else looked.observation.strays,
        serving=serving,
        last=read_last_serving(root.path),
    )


def _served(state: StackState) -> Served:
    invalid = f"{state.invalid} is invalid by now, its last version stays" if state.invalid else ""
    problem = state.problem or invalid
    return Served(since=state.since, synced=state.synced, problem=problem, waits=state.waits, gone=state.gone)


def _by_stack(looked: Look) -> tuple[dict[str, dict[Key, Record]], dict[str, dict[Key, Status]]]:
    records: dict[str, dict[Key, Record]] = defaultdict(dict)
    statuses: dict[str, dict[Key, Status]] = defaultdict(dict)
    for key, record in looked.records.items():
        name = split_key(key).stack
        records[name][key] = record
        statuses[name][key] = status_of(looked, record)
    return records, statuses


def _last_revision(root: Root, stack: StackRecord) -> Revised | None:
    """The last one; none of a stack that was deleted but for its volumes is in force."""
    if not stack.revision:
        return None
    with root.store.read() as tx:
        last = next(reversed(tx.revisions(stack.name)), None)
    return None if last is None else Revised(number=last.number, at=last.at, who=last.who, result=last.result)


def report_json(report: Report) -> dict[str, Any]:
    """What `status -o json` prints, as the contract in `schemas/status.schema.json` says."""
    return {
        "stacks": [_condition_json(condition) for condition in report.stacks],
        "strays": [f"{stray.kind} {stray.name}" for stray in report.strays],
        "controller": None if report.serving is None else _serving_json(report.serving),
        "last_controller": None
        if report.last is None
        else {"pid": report.last.process.pid, "at": report.last.at, "ended": report.last.ended},
    }


def _serving_json(serving: Serving) -> dict[str, Any]:
    return {
        "pid": serving.process.pid,
        **{k: v for k, v in msgspec.to_builtins(serving).items() if k not in ("process", "ended")},
    }


def _condition_json(condition: Condition) -> dict[str, Any]:
    stack, revision = condition.stack, condition.revision
    return {
        "stack": stack.name,
        "state": condition.state.value,
        "since": condition.since,
        "origin": stack.origin,
        "source": stack.source,
        "revision": None
        if revision is None
        else {"number": revision.number, "at": revision.at, "who": revision.who, "result": revision.result},
        "containers": condition.containers,
        "running": condition.running,
        "at_work": condition.at_work,
        "findings": [
            {"what": finding.what.value, "key": finding.key, "text": finding.text} for finding in condition.findings
        ],
    }
