"""Writes intents: what is about to be done, before it is, gone with its outcome. Recovery reads them, see `converge/`."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert

from reconciler.model.record import Intent
from reconciler.store import tables
from reconciler.store.sealed import Sealer, sealed_json

_INSERT = insert(tables.intents).returning(tables.intents.c.id, sort_by_parameter_order=True)
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
    return list(connection.execute(_INSERT, rows).scalars()) if rows else []


def finish_intents(connection: Connection, ids: Sequence[int]) -> None:
    """Remove intents whose outcome is recorded."""
    if ids:
        connection.execute(_DELETE, [{"of_id": number} for number in ids])
