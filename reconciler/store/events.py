"""Writes events, and forgets old ones: a bounded history of what people were told."""

import sqlite3
from collections.abc import Sequence

import msgspec

from reconciler.model.events import AnyEvent
from reconciler.model.key import Key, stack_of
from reconciler.store import statements
from reconciler.store.sealed import Sealer, sealed_json

KEPT = 10_000
"""How many events a root keeps."""


def add_events(sql: sqlite3.Connection, events: Sequence[AnyEvent], *, at: float, stack: str, sealer: Sealer) -> None:
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
        sql.executemany(statements.PUT_EVENT, rows)
        sql.execute(statements.TRIM_EVENTS, {"kept": KEPT})
