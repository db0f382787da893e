"""Turns what is refused into the error that names all of it and the ways out. Called by `make.py`."""

from collections.abc import Iterator, Sequence

from reconciler.model.errors import Refused
from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.plan.decide import RefusedChange
from reconciler.plan.losses import Loss
from reconciler.plan.words import render_change


def refusal_error(changes: Sequence[RefusedChange], *, losses: Sequence[Loss] = (), lost: Sequence[Key] = ()) -> Refused:
    """One error for all of them: changes that need a new one, data out of sight, volumes whose folder is gone."""
    names = [each.key for each in changes] + [each.key for each in losses] + list(lost)
    why = _brief(changes, losses, lost)
    lines = [f"{each.key}: {render_change(change)}" for each in changes for change in each.changes]
    lines += [f"{each.key}: {line}" for each in losses for line in each.text.split("\n")]
    lines += [f"{key}: its folder is gone; an empty one would take its place" for key in lost]
    return Refused(
        f"{', '.join(dict.fromkeys(names))}: {why}", detail="\n".join(lines), hint="\n".join(_hints(changes, losses, lost))
    )


def _brief(changes: Sequence[RefusedChange], losses: Sequence[Loss], lost: Sequence[Key]) -> str:
    if not losses and not lost:
        return "this change would need a new one, and what is in the old one would be lost"
    if not changes and not lost:
        return "data that are there now would be out of sight; nothing was changed"
    if not changes and not losses:
        return "what is on record is not on the machine; nothing was changed"
    return "data would be lost or out of sight; nothing was changed"


def _hints(changes: Sequence[RefusedChange], losses: Sequence[Loss], lost: Sequence[Key]) -> Iterator[str]:
    yield from (_steps(each.key) for each in changes)
    ways: dict[Key, list[str]] = {}
    for loss in losses:
        ways.setdefault(loss.key, []).extend(way for way in loss.ways if way not in ways.get(loss.key, ()))
    alike: dict[tuple[str, ...], list[Key]] = {}
    for key, found in ways.items():
        alike.setdefault(tuple(found), []).append(key)
    for way, keys in alike.items():
        yield f"to keep the data: {'; '.join(way)}"
        if containers := [key for key in keys if kind_of(key) is Kind.CONTAINER]:
            yield f"to go on without them: {' '.join(f'--accept-data-loss {key}' for key in containers)}"
    for key in lost:
        yield "mount the disk that holds it, and apply again"
        yield f"to have it made anew and empty: --accept-data-loss {key}"


def _steps(key: Key) -> str:
    parts = split_key(key)
    if kind_of(key) is not Kind.VOLUME:
        return f"delete {key} (`reconcile delete {key}`), then apply again"
    return "\n".join(
        (
            f"to keep the data of {parts.name}:",
            "1. declare a volume under a new name",
            "2. `reconcile stop` who writes, and copy the data over",
            "3. let the mounts name the new one, and apply",
            f"4. `reconcile delete {key}`",
            "to lose it: step 4, then apply",
        )
    )
