"""Writes revisions, and which images are kept for whom: by revisions, and by leases of what came by hand."""

import sqlite3
from collections.abc import Mapping

import msgspec

from reconciler.model.key import Key
from reconciler.model.record import DONE, GOING_BACK, Stack
from reconciler.store import statements
from reconciler.store.rows import KEPT
from reconciler.store.sealed import Sealer, sealed_json


def add_revision(
    sql: sqlite3.Connection,
    wanted: Stack,
    *,
    images: Mapping[Key, str],
    who: str,
    at: float,
    summary: Mapping[str, int],
    sealer: Sealer,
    keep: int = KEPT,
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
    drop_revisions(sql, wanted.name, keep=keep)
    return number


def drop_revisions(sql: sqlite3.Connection, stack: str, *, keep: int) -> int:
    """Drop all revisions of a stack but the newest `keep`; how many went.

    The newest that was reached and the newest that a manifest made stay in every case: one is what a failure goes back to,
    the other what tells whether a manifest has changed since a rollback.
    """
    rows = sql.execute("SELECT number, result, source FROM revisions WHERE stack = ? ORDER BY number DESC", (stack,))
    found = rows.fetchall()
    stay = {number for number, _, _ in found[:keep]}
    stay |= {next((number for number, result, _ in found if result == DONE), 0)}
    stay |= {next((number for number, _, source in found if not source.startswith(GOING_BACK)), 0)}
    gone = [{"of_stack": stack, "of_number": number} for number, _, _ in found if number not in stay]
    sql.executemany(statements.DELETE_REVISION, gone)
    return len(gone)


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
