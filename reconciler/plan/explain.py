"""Turns a plan into text: the whole of it, or why one resource is in it, or why it is not.

Plain and deterministic: the golden texts of the tests are this. The CLI colours it. Never computes: what it says stands
in the plan, the record or the status.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import MISSING, Observation, Phase, Status
from reconciler.model.plan import Action, Effect, Plan, Reason, Verb
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec, Spec
from reconciler.plan.diff import EffectOf, diff_specs, pointer_names
from reconciler.plan.drift import is_part
from reconciler.plan.exits import Standing, choose_standing, render_end
from reconciler.plan.words import render_because, render_change, render_value
from reconciler.schema.load import change_effect

INDENT = "      "


def render_plan(plan: Plan) -> list[str]:
    """The plan line by line: each action with its reason, beneath it its changes and notes; then what people must know."""
    lines = [line for action, head in zip(plan.actions, _heads(plan), strict=True) for line in (head, *_below(action))]
    lines += [f"  {line.key}  {line.text}" for line in plan.lines]
    lines += [f"  {remark}" for remark in plan.remarks]
    return [*lines, render_summary(plan)]


def render_summary(plan: Plan) -> str:
    """How much there is to do: `3 actions: 2 create, 1 replace`, or `nothing to do`."""
    if not plan.actions:
        return "nothing to do"
    counts = ", ".join(f"{count} {verb}" for verb, count in plan.summary.items() if count)
    return f"{len(plan.actions)} action{'s' if len(plan.actions) > 1 else ''}: {counts}"


def render_drift(plan: Plan) -> list[str]:
    """What others did to the machine, from what we made to what is there: a line for each part of each resource.

    The plan is `make_drift_plan`'s.
    """
    lines = [f"{key}  gone  (apply: refused without --accept-data-loss {key})" for key in plan.lost]
    for action in plan.actions:
        if action.reason is Reason.GONE:
            lines.append(f"{action.key}  gone  (apply: create)")
        if action.reason is Reason.UNFINISHED:
            lines.append(f"{action.key}  half done by an earlier apply  (apply: {action.verb.value})")
        for change in action.changes:
            if is_part(change):
                name = pointer_names(change.path)[1]
                lines.append(f"{action.key}  {name}: {change.new} → {change.old}  (apply: {_mending(change.effect)})")
    return lines


def explain_key(
    plan: Plan,
    key: Key,
    *,
    records: Mapping[Key, Record],
    observation: Observation,
    effect_of: EffectOf = change_effect,
) -> list[str]:
    """Why a resource is in the plan, with every change; or why it is not, with what was compared."""
    chosen = [(action, head) for action, head in zip(plan.actions, _heads(plan), strict=True) if action.key == key]
    lines = [line for action, head in chosen for line in (head, *_below(action), *_neighbours(action, plan))]
    told = [INDENT + line.text for line in plan.lines if line.key == key]
    if lines:
        return lines + told
    record, spec = records.get(key), plan.specs.get(key)
    if record is None:
        return [f"{key}  is neither in the manifest nor on record"]
    status = observation.statuses.get(key, MISSING)
    return [f"{key}  nothing to do", *told, *(INDENT + line for line in _why_not(record, spec, status, effect_of))]


def _heads(plan: Plan) -> list[str]:
    width = len(str(len(plan.actions)))
    after = [f"after {render_ids(action.after)}" if action.after else "" for action in plan.actions]
    keys = max((len(action.key) for action in plan.actions), default=0)
    waits = max(map(len, after), default=0)
    return [
        f"{action.id:>{width + 2}} {action.verb.value:<7}  {action.key:<{keys}}  "
        + (f"{wait:<{waits}}  " if waits else "")
        + f"because {render_because(action, plan)}"
        for action, wait in zip(plan.actions, after, strict=True)
    ]


def render_ids(ids: Sequence[int]) -> str:
    """Sorted ids, three or more in a row as a range: `1,2,5-9`."""
    runs = [[number for _, number in run] for _, run in groupby(enumerate(ids), lambda pair: pair[1] - pair[0])]
    pieces = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return ",".join(pieces)


def _below(action: Action) -> list[str]:
    # One that is deleted to be made again shows what changed where it is made.
    changes = action.changes if action.verb is not Verb.DELETE else ()
    return [INDENT + render_change(change) for change in changes] + [INDENT + note for note in action.notes]


def _neighbours(action: Action, plan: Plan) -> list[str]:
    by_id = {other.id: other for other in plan.actions}
    lines = [f"{INDENT}waits for {by_id[each].verb.value} of {by_id[each].key}" for each in action.after]
    waiting = [other for other in plan.actions if action.id in other.after]
    return lines + [f"{INDENT}before {other.verb.value} of {other.key}" for other in waiting]


def _mending(effect: Effect) -> str:
    return {Effect.IN_PLACE: Verb.UPDATE, Effect.RESTART: Verb.RESTART}.get(effect, Verb.REPLACE).value


def _why_not(record: Record, spec: Spec | None, status: Status, effect_of: EffectOf) -> list[str]:
    lines = []
    if spec is not None:
        # What is left of the differences here means nothing for what runs.
        ignored = diff_specs(kind_of(record.key), record.spec, spec, effect_of=effect_of)
        lines += [render_change(change) for change in ignored] or ["spec: as recorded"]
    if record.image:
        lines.append(f"image: {render_value(record.image)}, as recorded")
    lines.append(f"seen: {_seen(record, status)}")
    parts = sorted(name for name, part in status.parts.items() if part.state == "present")
    if parts:
        lines.append(f"parts present: {', '.join(parts)}")
    return lines


def _seen(record: Record, status: Status) -> str:
    if kind_of(record.key) is not Kind.CONTAINER or not isinstance(record.spec, ContainerSpec):
        return status.phase.value
    if status.phase is Phase.MISSING and record.hold is None:
        return f"gone, but it had ended before, and restart: {record.spec.restart} does not run it again"
    standing = choose_standing(record.spec, status)
    if standing is Standing.COMPLETED:
        return f"{render_end(status)}: the job has completed"
    if standing is Standing.FAILED:
        return f"{render_end(status)}: the job has failed; the next apply runs it again"
    if standing is Standing.ENDED:
        return f"{render_end(status)}, and restart: {record.spec.restart} lets it rest"
    if standing is Standing.RESTARTING:
        return f"{render_end(status)}, and about to be started again by its exit command"
    return status.phase.value
