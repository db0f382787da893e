"""Turns changes that are refused into the error that names them all and the steps to take. Called by `make.py`."""

from collections.abc import Sequence

from reconciler.model.errors import Refused
from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.plan.decide import RefusedChange
from reconciler.plan.words import render_change


def refusal_error(refused: Sequence[RefusedChange]) -> Refused:
    """One error for all of them."""
    names = ", ".join(each.key for each in refused)
    lines = [f"{each.key}: {render_change(change)}" for each in refused for change in each.changes]
    return Refused(
        f"{names}: this change would need a new one, and what is in the old one would be lost",
        detail="\n".join(lines),
        hint="\n".join(_steps(each.key) for each in refused),
    )


def _steps(key: Key) -> str:
    parts = split_key(key)
    if kind_of(key) is not Kind.VOLUME:
        return f"delete {key} (`reconcile delete {key}`), then apply again"
    return (
        f"to keep the data of {parts.name}: 1. declare a volume under a new name; 2. `reconcile stop` who writes, and copy"
        f" the data over; 3. let the mounts name the new one, and apply; 4. `reconcile delete {key} --volume {parts.name}`."
        f" To lose it: step 4, then apply"
    )
