"""Writes revisions, and which images are kept for whom: by revisions, and by leases of what came by hand."""

import sqlite3
from collections.abc import Mapping

import msgspec

from reconciler.model.key import Key
from reconciler.model.record import Stack
from reconciler.store import statements
from reconciler.store.sealed import Sealer, sealed_json

KEPT = 20
"""How many revisions of a stack are kept."""


def add_revision(
    sql: sqlite3.Connection,
    wanted: Stack,
    *,
    images: Mapping[Key, str],
    who: str,
    at: float,
    summary: Mapping[str, int],
    sealer: Sealer,
) -> int:
    """Write the next revision of a stack that is on record, and drop those that are too old; its number."""
    (last,) = sql.execute(statements.LAST_REVISION, {"of_stack": wanted.name}).fetchone()
    number = int(last or 0) + 1
    row = {
        "stack": wanted.name,
        "number": number,
        "at": at,
        "who": who,
        "source": wanted.source,
        "summary": msgspec.json.encode(dict(summary)),
        "wanted": sealed_json(wanted, sealer),
        "result": "",
    }
    sql.execute(statements.PUT_REVISION, row)
    pins = [
        {"stack": wanted.name, "number": number, "key": key, "digest": digest} for key, digest in images.items() if digest
    ]
    sql.executemany(statements.PUT_REVISION_IMAGE, pins)
    sql.execute(statements.DELETE_REVISIONS, {"of_stack": wanted.name, "last": number - KEPT})
    return number


def finish_revision(sql: sqlite3.Connection, stack: str, number: int, *, result: str) -> None:
    """Say how the apply of a revision ended."""
    sql.execute(statements.FINISH_REVISION, {"of_stack": stack, "of_number": number, "new_result": result})


def lease(sql: sqlite3.Connection, digest: str, name: str) -> None:
    """Keep an image because of this name; one that is kept for it already stays."""
    sql.execute(statements.PUT_LEASE, {"digest": digest, "name": name})


def drop_lease(sql: sqlite3.Connection, digest: str, name: str | None = None) -> None:
    """Keep an image no more because of a name, or of any name."""
    if name is None:
        sql.execute(statements.DELETE_LEASES, {"of_digest": digest})
    else:
        sql.execute(statements.DELETE_LEASE, {"of_digest": digest, "of_name": name})
