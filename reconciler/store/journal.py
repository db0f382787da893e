"""Writes intents: what is about to be done, before it is, gone with its outcome. Recovery reads them, see `converge/`."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert

from reconciler.model.record import Intent
from reconciler.store import tables
from reconciler.store.sealed import Sealer, sealed_json

_INSERT = insert(tables.intents)
_DELETE = delete(tables.intents).where(tables.intents.c.id == bindparam("of_id"))


def put_intents(connection: Connection, intents: Sequence[Intent], sealer: Sealer) -> list[int]:
    """Write intents; their ids, in the same order."""
    rows = [
        {
            "key": intent.key,
            "stack": intent.stack,
            "verb": intent.verb,
            "image": intent.new.image if intent.new else "",
            "data": sealed_json(intent, sealer),
        }
        for intent in intents
    ]
    # One by one: SQLAlchemy's way to many ids in order costs twice as much for the usual few.
    results = [connection.execute(_INSERT, row) for row in rows]
    return [int(result.inserted_primary_key[0]) for result in results if result.inserted_primary_key]


def finish_intents(connection: Connection, ids: Sequence[int]) -> None:
    """Remove intents whose outcome is recorded."""
    if ids:
        connection.execute(_DELETE, [{"of_id": number} for number in ids])
