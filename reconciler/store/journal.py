"""Writes intents: what is about to be done, before it is, gone with its outcome. Recovery reads them, see `converge/`."""

import sqlite3
from collections.abc import Sequence

from reconciler.model.key import Key
from reconciler.model.record import Intent
from reconciler.store import statements
from reconciler.store.sealed import Sealer, sealed_json


def put_intents(sql: sqlite3.Connection, intents: Sequence[Intent], sealer: Sealer) -> list[int]:
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
    return [sql.execute(statements.PUT_INTENT, row).lastrowid or 0 for row in rows]


def finish_intents(sql: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove intents whose outcome is recorded."""
    sql.executemany(statements.DELETE_INTENT, [{"of_id": number} for number in ids])


def drop_owed_restarts(sql: sqlite3.Connection, keys: Sequence[Key]) -> None:
    """Remove the intents to restart these: something else is begun of them that makes up for it."""
    sql.executemany(statements.DELETE_INTENTS_OF, [{"of_key": key, "of_verb": "restart"} for key in keys])
