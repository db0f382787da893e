"""After a reboot: everything as recorded, in the order of what depends on what. No manifest is read, no registry asked.

What is recorded is the wish; converge runs its plan as any other. Nothing from before the reboot is believed but records,
volumes, writable layers and the ends that are kept under the root.
"""

import time
from collections.abc import Collection

from msgspec import Struct, structs

from reconciler.converge.run import converge
from reconciler.converge.sweep import sweep
from reconciler.converge.terms import Options
from reconciler.model.errors import ConvergeFailed
from reconciler.model.events import Note, PlanMade
from reconciler.model.key import stack_of
from reconciler.model.plan import Plan
from reconciler.plan.boot import find_lost_data, make_boot_plan
from reconciler.plan.forms import plan_json
from reconciler.plan.make import recorded_desired
from reconciler.verbs.apply import Applied, raise_for, recovered, warn
from reconciler.verbs.clashes import wanted_ports
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root


class BootOptions(Struct, frozen=True, kw_only=True):
    """How to boot."""

    wait: bool = True
    timeout: float = 300.0
    accepted: Collection[str] = ()
    """Volumes that may be made anew, empty, though they had data."""


def boot(root: Root, options: BootOptions, *, face: Face) -> Applied:
    """Make the machine as recorded; what runs is left alone. Raises ConvergeFailed where something did not start: the rest
    did."""
    names = _recorded_stacks(root)
    if not names:
        nothing = Plan(stacks=(), actions=())
        face.emit(PlanMade(plan=plan_json(nothing)))
        face.show(nothing)
        return Applied(plan=nothing, result=None)
    with root.lock_stacks(names, "boot"), Recorder(root, face.emit, names, "boot") as told:
        wanted = _ports(root)
        looked = recovered(root, names, ports=wanted, emit=told)
        plan = make_boot_plan(
            stacks=looked.stacks,
            records=looked.records,
            observation=looked.observation,
            now=time.time(),
            accepted=options.accepted,
        )
        return _carry_out(root, plan, looked, options, face=structs.replace(face, emit=told))


def _recorded_stacks(root: Root) -> list[str]:
    with root.store.read() as tx:
        return sorted({stack_of(key) for key in tx.records()} | {intent.stack for intent in tx.intents()})


def _ports(root: Root) -> list[str]:
    with root.store.read() as tx:
        return wanted_ports(recorded_desired(tx.records(), tx.stacks()).stacks)


def _carry_out(root: Root, plan: Plan, looked: Look, options: BootOptions, *, face: Face) -> Applied:
    face.emit(PlanMade(plan=plan_json(plan)))
    face.show(plan)
    if not plan.actions:
        return Applied(plan=plan, result=None)
    for port, holder in sorted(looked.observation.port_holders.items()):
        face.emit(Note(text=f"{port} is held by {holder}: its packets go to the container", level="warning"))
    warn(root, plan, face)
    refused = find_lost_data(plan, looked.records, accepted=options.accepted)
    ground = root.ground()
    result = converge(plan, ground, Options(wait=options.wait, timeout=options.timeout, refused=refused), face.emit)
    if result.failed:
        sweep(ground, face.emit)
    try:
        raise_for(result)
    except ConvergeFailed as error:
        error.hint = "mend the cause, then `reconcile boot` again: what is done stays done"
        raise
    return Applied(plan=plan, result=result)
