"""Turns a stack's records, what was seen of them, its drift plan and its last revision into one word and what is wrong.

For `status`. It computes nothing that the planner does not: what should be done is the drift plan's, how a container stands
is `exits.py`'s. Never reads a clock, a file or an engine.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum

from msgspec import Struct

from reconciler.model.key import Key, Kind, kind_of, sort_key, split_key, stack_of
from reconciler.model.observation import MISSING, Health, Phase, Status
from reconciler.model.plan import Action, Plan, Reason
from reconciler.model.record import Record, StackRecord
from reconciler.model.spec import ContainerSpec
from reconciler.model.units import render_age
from reconciler.plan.decide import render_gave_up
from reconciler.plan.diff import pointer_names
from reconciler.plan.drift import is_part
from reconciler.plan.exits import Standing, choose_standing, ends_again_and_again, recent_ends, render_end, render_last_end
from reconciler.plan.holds import render_hold, render_stack_hold

PROCESS = "process"


class State(StrEnum):
    """How a stack is, in one word: the first of these that holds."""

    PROGRESSING = "progressing"
    """Somebody is at work on it now."""
    FAILED = "failed"
    """Its last revision did not get there."""
    DEGRADED = "degraded"
    """A container that should run does not, or is not well."""
    DRIFTED = "drifted"
    """Something of it was removed or altered though no manifest changed."""
    HELD = "held"
    """Somebody holds it, or one of its containers; or somebody must say what is to become of it."""
    SYNCED = "synced"
    """As it was last applied."""


class What(StrEnum):
    """What is wrong."""

    FAILED = "failed"
    """The last revision failed, or its apply ended half-way."""
    GAVE_UP = "gave-up"
    """`on-failure:N` is used up."""
    JOB_FAILED = "job-failed"
    """A job that has not succeeded, and does not run."""
    DOWN = "down"
    """It does not run and should."""
    RESTARTING = "restarting"
    """It ended, and its exit command waits to start it again; or it runs, and has ended again and again."""
    UNHEALTHY = "unhealthy"
    """Its health check fails."""
    GONE = "gone"
    """On record, and nothing of it is on the machine."""
    DRIFT = "drift"
    """A part of it was removed or altered by others."""
    UNFINISHED = "unfinished"
    """An apply ended while it was at work on it."""
    HELD = "held"
    """A stop, a pause, or a rollback of the whole stack."""
    SOURCE = "source"
    """It is not as its source wants it, and the controller says why."""
    WAITS = "waits"
    """What its source wants waits for approval."""
    LEFT = "left"
    """Its source has it no more."""


_STATE_OF = {
    What.FAILED: State.FAILED,
    What.GAVE_UP: State.DEGRADED,
    What.JOB_FAILED: State.DEGRADED,
    What.DOWN: State.DEGRADED,
    What.RESTARTING: State.DEGRADED,
    What.UNHEALTHY: State.DEGRADED,
    What.GONE: State.DRIFTED,
    What.DRIFT: State.DRIFTED,
    What.UNFINISHED: State.DRIFTED,
    What.HELD: State.HELD,
    What.SOURCE: State.FAILED,
    What.WAITS: State.HELD,
    What.LEFT: State.HELD,
}
_IN_MOTION = frozenset({What.FAILED, What.DOWN, What.GONE, What.DRIFT, What.UNFINISHED})
"""What an apply that is at work may be about to change: said when it is done."""


class Revised(Struct, frozen=True, kw_only=True):
    """The last revision of a stack."""

    number: int
    at: float
    who: str
    result: str
    """done, failed, …; empty while its apply is at work, or where that ended half-way."""


class Served(Struct, frozen=True, kw_only=True):
    """What the controller says of a stack that is of a source."""

    since: float
    """Since when the source wants what it wants."""
    synced: bool
    problem: str = ""
    waits: str = ""
    gone: bool = False
    """Its source has it no more."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that is wrong, in one line."""

    what: What
    text: str
    key: Key | None = None
    """None for the stack as a whole."""


class Condition(Struct, frozen=True, kw_only=True):
    """How one stack is."""

    stack: StackRecord
    state: State
    since: float = 0.0
    """Since when it is so, in seconds since the epoch; 0 where nobody knows."""
    revision: Revised | None = None
    containers: int = 0
    running: int = 0
    findings: tuple[Finding, ...] = ()
    at_work: str = ""
    """Who is at work on it: `pid 4121 since 14:03:22 (apply)`."""


def judge_stack(
    stack: StackRecord,
    *,
    records: Mapping[Key, Record],
    statuses: Mapping[Key, Status],
    drift: Plan,
    revision: Revised | None,
    at_work: str,
    now: float,
    served: Served | None = None,
) -> Condition:
    """How a stack is. `records` are its own, `drift` the plan that mends it; `now` in seconds since the epoch."""
    keys = sorted(records, key=sort_key)
    found = [*_of_stack(stack, revision, now=now), *_of_source(stack, served)]
    for key in keys:
        found += _of_record(records[key], statuses.get(key, MISSING), now=now)
    found += [finding for action in drift.actions if stack_of(action.key) == stack.name for finding in _of_action(action)]
    lost = [key for key in drift.lost if stack_of(key) == stack.name]
    found += [Finding(what=What.GONE, key=key, text="its folder is gone: mount the disk that holds it") for key in lost]
    if at_work:
        found = [finding for finding in found if finding.what not in _IN_MOTION]
    states = {_state_of(finding) for finding in found}
    containers = [key for key in keys if _is_to_run(records[key], statuses.get(key, MISSING))]
    state = State.PROGRESSING if at_work else next((state for state in State if state in states), State.SYNCED)
    if state is State.SYNCED and served is not None and not served.synced:
        state = State.PROGRESSING  # Its turn comes.
    return Condition(
        stack=stack,
        state=state,
        since=_find_since(state, stack, records, statuses, revision, served, now),
        revision=revision,
        containers=len(containers),
        running=sum(statuses.get(key, MISSING).phase is Phase.RUNNING for key in containers),
        findings=tuple(found),
        at_work=at_work,
    )


def _is_to_run(record: Record, status: Status) -> bool:
    """Whether it counts among the containers of its stack: a job that has completed does not."""
    spec = record.spec
    done = isinstance(spec, ContainerSpec) and spec.job and choose_standing(spec, status) is Standing.COMPLETED
    return isinstance(spec, ContainerSpec) and not done


def _state_of(finding: Finding) -> State:
    """What one finding alone makes of its stack: a container that is gone does not run."""
    if finding.what is What.GONE and finding.key is not None and kind_of(finding.key) is Kind.CONTAINER:
        return State.DEGRADED
    return _STATE_OF[finding.what]


def _find_since(
    state: State,
    stack: StackRecord,
    records: Mapping[Key, Record],
    statuses: Mapping[Key, Status],
    revision: Revised | None,
    served: Served | None,
    now: float,
) -> float:
    """Since when a stack is as it is, by what is on record; 0 where that does not say."""
    applied = revision.at if revision is not None else 0.0
    if state is State.SYNCED:
        return applied
    if state is State.HELD:
        holds = [stack.hold, *(record.hold for record in records.values())]
        return max([hold.when for hold in holds if hold is not None], default=served.since if served is not None else 0.0)
    if state is State.DEGRADED:
        return max([_degraded_since(status, now) for status in statuses.values()], default=0.0)
    wanted = served.since if served is not None and not served.synced else 0.0
    return max(applied, wanted) if state is State.FAILED else wanted


def _degraded_since(status: Status, now: float) -> float:
    """Since when one container does not run, or not for long; 0 of one that does."""
    if ends_again_and_again(status, now=now):
        return recent_ends(status, now=now)[0].at
    return 0.0 if status.phase is Phase.RUNNING else status.finished_at


def _of_source(stack: StackRecord, served: Served | None) -> Iterator[Finding]:
    if served is not None and served.problem and stack.hold is None:  # A hold says why itself.
        yield Finding(what=What.SOURCE, text=served.problem.partition("\n")[0])
    if served is not None and served.waits:
        yield Finding(what=What.WAITS, text=served.waits)
    if served is not None and served.gone:
        text = f"its source has it no more; it stays until `reconcile delete {stack.name} --take-over`"
        yield Finding(what=What.LEFT, text=text)


def _of_stack(stack: StackRecord, revision: Revised | None, *, now: float) -> Iterator[Finding]:
    if revision is not None and revision.result != "done":
        how = f"{revision.result}" if revision.result else "was not finished"
        ago = render_age(now - revision.at)
        text = f"revision {revision.number} by {revision.who} {ago} ago {how}; `reconcile events` tells why"
        yield Finding(what=What.FAILED, text=text)
    if stack.hold is not None:
        yield Finding(what=What.HELD, text=render_stack_hold(stack.hold, now=now))


def _of_record(record: Record, status: Status, *, now: float) -> Iterator[Finding]:
    """What a container says of itself."""
    key, spec = record.key, record.spec
    if not isinstance(spec, ContainerSpec):
        return
    if record.hold is not None:
        yield Finding(what=What.HELD, key=key, text=render_hold(record.hold, status, now=now))
        return
    standing = choose_standing(spec, status) if status.phase is not Phase.MISSING else None
    if standing is Standing.GAVE_UP:
        yield Finding(what=What.GAVE_UP, key=key, text=render_gave_up(spec, status))
    if standing is Standing.FAILED:
        text = f"the job has not succeeded: {render_end(status)}; the next apply runs it again"
        yield Finding(what=What.JOB_FAILED, key=key, text=text)
    if standing is Standing.RESTARTING or (standing is not None and ends_again_and_again(status, now=now)):
        yield Finding(what=What.RESTARTING, key=key, text=_render_restarting(key, status, now=now))
    if standing is Standing.RUNS and status.health is Health.UNHEALTHY:
        yield Finding(what=What.UNHEALTHY, key=key, text="unhealthy: its health check fails")


def _render_restarting(key: Key, status: Status, *, now: float) -> str:
    """How it ended, how often, and what comes next."""
    often = f"{status.restarts} restarts so far"
    if status.phase is Phase.RUNNING:
        then = f"runs again for {render_age(now - status.started_at)}"
    else:
        left = status.restart_at - now
        then = f"is started again in {int(left) + 1}s" if left > 0 else "waits to be started again"
    if not ends_again_and_again(status, now=now):
        return f"{render_last_end(status)}, and {then} ({often})"
    ends = recent_ends(status, now=now)
    often += f", the last {len(ends)} ends within {render_age(now - ends[0].at)}"
    parts = split_key(key)
    logs = f"`reconcile logs {parts.stack}/{parts.name}/{parts.index}` may say why"
    return f"ends again and again: {render_last_end(status)}, {then} ({often}); {logs}"


def _of_action(action: Action) -> Iterator[Finding]:
    """What the drift plan would mend."""
    key, verb = action.key, action.verb.value
    if action.reason is Reason.GONE:
        yield Finding(what=What.GONE, key=key, text=f"gone from the machine (apply: {verb})")
    if action.reason is Reason.UNFINISHED:
        yield Finding(what=What.UNFINISHED, key=key, text=f"half done by an earlier apply (apply: {verb})")
    for change in action.changes:
        name = pointer_names(change.path)[1] if is_part(change) else ""
        if name == PROCESS:
            yield Finding(what=What.DOWN, key=key, text=f"{change.old}, and should run (apply: {verb})")
        elif name:
            yield Finding(what=What.DRIFT, key=key, text=f"{name}: {change.new} → {change.old} (apply: {verb})")
