"""Containers in the order of their `depends_on`: tiers, of which each needs only those before it. Pure."""

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from reconciler.model.key import split_key
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec


def sort_tiers(found: Sequence[Record], *, last_first: bool = False) -> list[list[Record]]:
    """What is needed before who needs it, or `last_first`; needs that are not in `found` do not count."""
    if len(found) == 1:
        return [list(found)]
    by_name: dict[tuple[str, str], list[int]] = {}
    for number, record in enumerate(found):
        parts = split_key(record.key)
        by_name.setdefault((parts.stack, parts.name), []).append(number)
    needs: dict[int, list[int]] = {}
    for number, record in enumerate(found):
        spec, stack = record.spec, split_key(record.key).stack
        names = spec.depends_on if isinstance(spec, ContainerSpec) else ()
        needs[number] = [other for name in names for other in by_name.get((stack, name), ()) if other != number]
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError:  # Race: an apply is half-way from one order to the other, and records are of both.
        return [list(found)]
    tiers = []
    while ready := sorter.get_ready():
        tiers.append([found[number] for number in sorted(ready)])
        sorter.done(*ready)
    return tiers[::-1] if last_first else tiers
