"""Writes events, and forgets old ones: a bounded history of what people were told.

How much is kept stands in a file of the root, so that every command that writes events keeps as much.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from reconciler.linux import files
from reconciler.model.events import AnyEvent
from reconciler.model.key import Key, stack_of
from reconciler.store import statements
from reconciler.store.sealed import Sealer, sealed_json

NAME = "events.json"
AGED_AT_ONCE = 500
"""Events that may go for their age, or their size, with one write: no write waits for a long history."""
SIZED_EACH = 64
"""Sizes are added up with each so many events: that reads all of them."""
_LARGE = 65_536
"""Bytes: after such an event they are added up too."""


class Retention(Struct, frozen=True, kw_only=True):
    """Which events a root keeps."""

    keep: int = 10_000
    """How many at most."""
    age: float = 0.0
    """For how many seconds; 0: as long as there is room."""
    size: int = 64 * 1024**2
    """How many bytes they have together at most, give or take what SIZED_EACH come to; the newest one stays whatever its
    size is."""


def read_retention(root: Path) -> Retention:
    """What was set, or the default."""
    with suppress(OSError, msgspec.MsgspecError):
        found: Retention = msgspec.json.decode((root / NAME).read_bytes(), type=Retention)
        return found
    return Retention()


def write_retention(root: Path, retention: Retention) -> None:
    """Set it, for whoever writes from now on. Raises OSError."""
    if read_retention(root) != retention:
        files.write_atomic(root / NAME, msgspec.json.encode(retention))


def add_events(
    sql: sqlite3.Connection, events: Sequence[AnyEvent], *, at: float, stack: str, sealer: Sealer, retention: Retention
) -> None:
    """Write events in their order, and forget the oldest. `at` is now, for those without a time of their own; `stack` is
    for those of no resource."""
    rows: list[dict[str, object]] = []
    large = False
    for event in events:
        timed = event if event.at else msgspec.structs.replace(event, at=at)
        key = Key(getattr(event, "key", None) or "")
        data = sealed_json(timed, sealer)
        large = large or len(data) > _LARGE
        named = stack_of(key) if key else getattr(event, "stack", stack)
        rows.append({"at": timed.at, "stack": named, "key": key, "data": data})
    if rows:
        sql.executemany(statements.PUT_EVENT, rows)
        sql.execute(statements.TRIM_EVENTS, {"kept": retention.keep})
        if retention.age:
            sql.execute(statements.AGE_EVENTS, {"oldest": at - retention.age, "most": AGED_AT_ONCE})
        last = sql.execute("SELECT max(id) FROM events").fetchone()[0]
        if large or last % SIZED_EACH < len(rows):
            shrink_events(sql, retention)


def shrink_events(sql: sqlite3.Connection, retention: Retention) -> bool:
    """Forget the oldest events beyond the size that is kept, AGED_AT_ONCE at most; whether there may be more."""
    done = sql.execute(statements.SHRINK_EVENTS, {"size": retention.size, "most": AGED_AT_ONCE})
    return done.rowcount == AGED_AT_ONCE
