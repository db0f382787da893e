"""Writes stacks, records and holds. Specs are sealed on their way in. Reading them back is `reading.py`'s."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from reconciler.model.key import Key, stack_of
from reconciler.model.record import Hold, Record, StackRecord
from reconciler.store import statements
from reconciler.store.sealed import Sealer, sealed_json


def next_serial(sql: sqlite3.Connection) -> int:
    """Raise the root's serial by one."""
    (serial,) = sql.execute(statements.NEXT_SERIAL).fetchone()
    return int(serial)


def mark_stack(sql: sqlite3.Connection, name: str, serial: int) -> None:
    """Say that a stack's records changed with this serial."""
    sql.execute(statements.MARK_STACK, {"stack": name, "new_serial": serial})


def put_stack(sql: sqlite3.Connection, stack: StackRecord) -> None:
    """Write a stack; its serial is not this function's."""
    row = {"name": stack.name, "origin": stack.origin, "source": stack.source, "serial": 0, "revision": stack.revision}
    hold = msgspec.json.encode(stack.hold) if stack.hold else b""
    sql.execute(statements.PUT_STACK, {**row, "hold": hold})


def delete_stack(sql: sqlite3.Connection, name: str) -> None:
    """Remove a stack with its revisions; one that has records still is refused by the database."""
    sql.execute(statements.DELETE_STACK, {"stack": name})


def put_records(sql: sqlite3.Connection, records: Sequence[Record], *, serial: int, sealer: Sealer) -> None:
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
    sql.executemany(statements.PUT_RECORD, rows)


def put_statuses(sql: sqlite3.Connection, statuses: Mapping[Key, Mapping[str, Any]], sealer: Sealer) -> None:
    """Write last outcomes alone."""
    rows = [{"of_key": key, "new_status": sealed_json(dict(status), sealer)} for key, status in statuses.items()]
    sql.executemany(statements.PUT_STATUS, rows)


def delete_record(sql: sqlite3.Connection, key: Key) -> None:
    """Remove a record, and with it its hold."""
    sql.execute(statements.DELETE_RECORD, {"of_key": key})


def set_hold(sql: sqlite3.Connection, key: Key, hold: Hold | None) -> None:
    """Hold a record, or let it go."""
    if hold is None:
        sql.execute(statements.DELETE_HOLD, {"of_key": key})
        return
    row = {"key": key, "kind": hold.kind, "who": hold.who, "at": hold.when, "why": hold.why}
    sql.execute(statements.PUT_HOLD, row)
