"""Stacks as their manifests want them → as a rollback holds them, where one does and nothing has changed since.

A step of `plan.py` between resolve and plan. A rollback by hand holds its stack until what is applied differs from what was
applied last, or until somebody says `--resume`.
"""

from msgspec import Struct, structs

from reconciler.model.key import stack_of
from reconciler.model.record import Desired, Hold, Stack
from reconciler.plan.holds import render_held_back, render_released
from reconciler.plan.past import Past, find_applied
from reconciler.verbs.look import Look
from reconciler.verbs.pasts import desire_past, read_pasts
from reconciler.verbs.root import Root


class Obeyed(Struct, frozen=True, kw_only=True):
    """What is to be planned, and what to say of it."""

    desired: Desired
    remarks: tuple[str, ...] = ()
    released: tuple[str, ...] = ()
    """Stacks whose hold ends with this plan."""


def obey_rollbacks(root: Root, desired: Desired, looked: Look, *, resume: bool, offline: bool, now: float) -> Obeyed:
    """Put what a rollback went back to in the place of what it went back from."""
    obeyed = Obeyed(desired=desired)
    for stack in desired.stacks:
        record = looked.stacks.get(stack.name)
        if record is None or record.hold is None:
            continue
        held_at = None if resume else _held_at(read_pasts(root, stack.name), stack, record.revision)
        if held_at is None:
            obeyed = _release(obeyed, stack, record.hold, resumed=resume)
            continue
        number = int(held_at.stack.source.rpartition(" ")[2])
        past = structs.replace(held_at, number=number)
        remark = render_held_back(stack.name, record.hold, number, now=now)
        held = desire_past(root, past, looked, offline=offline)
        obeyed = structs.replace(obeyed, desired=_put(obeyed.desired, stack, held), remarks=(*obeyed.remarks, remark))
    return obeyed


def _held_at(pasts: list[Past], stack: Stack, current: int) -> Past | None:
    """The revision that a rollback made, where the manifest says still what it went back from; else None."""
    applied = find_applied(pasts)
    last = next((past for past in pasts if past.number == current), None)
    if last is None or not last.went_back or applied is None or applied.stack.specs != stack.specs:
        return None
    return last


def _release(obeyed: Obeyed, stack: Stack, hold: Hold, *, resumed: bool) -> Obeyed:
    return structs.replace(
        obeyed,
        remarks=(*obeyed.remarks, render_released(stack.name, hold, resumed=resumed)),
        released=(*obeyed.released, stack.name),
    )


def _put(desired: Desired, stack: Stack, held: Desired) -> Desired:
    """The wish with one stack of it as it is held."""
    put = structs.replace(held.stacks[0], origin=stack.origin)
    images = {key: fact for key, fact in desired.images.items() if stack_of(key) != stack.name}
    return structs.replace(
        desired,
        stacks=tuple(put if one is stack else one for one in desired.stacks),
        images={**images, **held.images},
        live={key: lines for key, lines in desired.live.items() if stack_of(key) != stack.name},
    )
