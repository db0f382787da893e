"""Writes events, and forgets old ones: a bounded history of what people were told."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from reconciler.model.events import AnyEvent
from reconciler.model.key import Key, stack_of
from reconciler.store import tables
from reconciler.store.sealed import Sealer, sealed_json

KEPT = 10_000
"""How many events a root keeps."""

_table = tables.events
_INSERT = insert(_table)
_TRIM = delete(_table).where(_table.c.id <= select(func.max(_table.c.id)).scalar_subquery() - KEPT)


def add_events(connection: Connection, events: Sequence[AnyEvent], *, at: float, stack: str, sealer: Sealer) -> None:
    """Write events in their order. `at` is for those without a time of their own, `stack` for those of no resource."""
    rows = []
    for event in events:
        timed = event if event.at else msgspec.structs.replace(event, at=at)
        key = Key(getattr(event, "key", None) or "")
        rows.append(
            {
                "at": timed.at,
                "stack": stack_of(key) if key else stack,
                "key": key,
                "data": sealed_json(timed, sealer),
            }
        )
    if rows:
        connection.execute(_INSERT, rows)
        connection.execute(_TRIM)
