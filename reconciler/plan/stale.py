"""Turns what a plan was made from into the question whether it still holds: serials, origins, phases, parts.

`make.py` writes it down, `check_fresh` asks before a saved plan runs. Pids, times and health never make a plan stale.
"""

from collections.abc import Iterable, Mapping

from reconciler.model.errors import StalePlan
from reconciler.model.key import Key
from reconciler.model.observation import MISSING, Observation, Status
from reconciler.model.plan import Plan
from reconciler.model.record import Record, StackRecord
from reconciler.plan.graph import Step
from reconciler.plan.scene import Scene, needed_keys


def collect_phases(steps: Iterable[Step], scene: Scene) -> dict[Key, str]:
    """Phase and damaged parts of each resource that a step names or depends on, where it is recorded."""
    concerned: set[Key] = set()
    for step in steps:
        key = step.decision.key
        concerned.add(key)
        for spec in (scene.wanted(key), scene.recorded(key)):
            if spec is not None:
                concerned.update(needed_keys(key, spec))
                stack = key.split("/", 2)[1]
                concerned.update(other for name in spec.depends_on for other in scene.named(stack, name))
        concerned.update(scene.sitting_on(key))
    return {key: describe_state(scene.status(key)) for key in sorted(concerned) if key in scene.records}


def describe_state(status: Status) -> str:
    """Phase and damaged parts as one line: `running`, `present; bridge missing; mtu 1500 → 9000`."""
    damaged = (
        f"{name} missing" if part.state == "missing" else f"{name} {part.field} {part.old} → {part.new}".replace("  ", " ")
        for name, part in sorted(status.parts.items())
        if part.state != "present"
    )
    return "; ".join([status.phase.value, *damaged])


def check_fresh(
    plan: Plan,
    *,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
    path: str,
) -> None:
    """Raise StalePlan when what the plan in `path` was made from is not so any more."""
    for base in plan.bases:
        now = stacks.get(base.stack, StackRecord(name=base.stack, origin=""))
        if now.origin != base.origin:
            raise StalePlan(
                path, f"stack {base.stack} belonged to {base.origin or 'nobody'}, now to {now.origin or 'nobody'}"
            )
        if now.serial != base.serial:
            raise StalePlan(path, f"stack {base.stack} was changed since (serial {base.serial}, now {now.serial})")
    for key, before in plan.phases.items():
        if key not in records:
            raise StalePlan(path, f"{key} is not on record any more")
        found = describe_state(observation.statuses.get(key, MISSING))
        if found != before:
            raise StalePlan(path, f"{key} was {before}, is {found}")
