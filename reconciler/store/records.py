"""Writes stacks, records and holds. Specs are sealed on their way in. Reading them back is `reading.py`'s."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, update
from sqlalchemy.dialects.sqlite import insert

from reconciler.model.key import Key, stack_of
from reconciler.model.record import Hold, Record, StackRecord
from reconciler.store import tables
from reconciler.store.sealed import Sealer, sealed_json

_STACK = insert(tables.stacks)
_UPSERT_STACK = _STACK.on_conflict_do_update(
    index_elements=["name"],
    set_={name: _STACK.excluded[name] for name in ("origin", "source", "revision", "hold")},
)
_RECORD = insert(tables.records)
_UPSERT_RECORD = _RECORD.on_conflict_do_update(
    index_elements=["key"],
    set_={
        name: _RECORD.excluded[name]
        for name in ("image", "incarnation", "created_at", "serial", "spec", "grants", "status")
    },
)
_HOLD = insert(tables.holds)
_UPSERT_HOLD = _HOLD.on_conflict_do_update(
    index_elements=["key"], set_={name: _HOLD.excluded[name] for name in ("kind", "who", "at", "why")}
)
_STATUS = update(tables.records).where(tables.records.c.key == bindparam("of_key")).values(status=bindparam("new_status"))


def next_serial(connection: Connection) -> int:
    """Raise the root's serial by one."""
    return int(
        connection.execute(
            update(tables.root).values(serial=tables.root.c.serial + 1).returning(tables.root.c.serial)
        ).scalar_one()
    )


def mark_stack(connection: Connection, name: str, serial: int) -> None:
    """Say that a stack's records changed with this serial."""
    connection.execute(update(tables.stacks).where(tables.stacks.c.name == name).values(serial=serial))


def put_stack(connection: Connection, stack: StackRecord) -> None:
    """Write a stack; its serial is not this function's."""
    row = {"name": stack.name, "origin": stack.origin, "source": stack.source, "serial": 0, "revision": stack.revision}
    hold = msgspec.json.encode(stack.hold) if stack.hold else b""
    connection.execute(_UPSERT_STACK, {**row, "hold": hold})


def delete_stack(connection: Connection, name: str) -> None:
    """Remove a stack with its revisions; one that has records still is refused by the database."""
    connection.execute(delete(tables.stacks).where(tables.stacks.c.name == name))


def put_records(connection: Connection, records: Sequence[Record], *, serial: int, sealer: Sealer) -> None:
    """Write records, new or not. Their `hold`, `serial` and `unfinished` are not taken from them."""
    rows = [
        {
            "key": record.key,
            "stack": stack_of(record.key),
            "image": record.image,
            "incarnation": record.incarnation,
            "created_at": record.created_at,
            "serial": serial,
            "spec": sealed_json(record.spec, sealer),
            "grants": msgspec.json.encode(record.grants),
            "status": sealed_json(record.status, sealer),
        }
        for record in records
    ]
    if rows:
        connection.execute(_UPSERT_RECORD, rows)


def put_statuses(connection: Connection, statuses: Mapping[Key, Mapping[str, Any]], sealer: Sealer) -> None:
    """Write last outcomes alone."""
    rows = [{"of_key": key, "new_status": sealed_json(dict(status), sealer)} for key, status in statuses.items()]
    if rows:
        connection.execute(_STATUS, rows)


def delete_record(connection: Connection, key: Key) -> None:
    """Remove a record, and with it its hold."""
    connection.execute(delete(tables.records).where(tables.records.c.key == key))


def set_hold(connection: Connection, key: Key, hold: Hold | None) -> None:
    """Hold a record, or let it go."""
    if hold is None:
        connection.execute(delete(tables.holds).where(tables.holds.c.key == key))
        return
    row = {"key": key, "kind": hold.kind, "who": hold.who, "at": hold.when, "why": hold.why}
    connection.execute(_UPSERT_HOLD, row)
