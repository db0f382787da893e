"""Writes revisions, and which images are kept for whom: by revisions, and by leases of what came by hand."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from reconciler.model.key import Key
from reconciler.model.record import Stack
from reconciler.store import tables
from reconciler.store.sealed import Sealer, sealed_json

KEPT = 20
"""How many revisions of a stack are kept."""

_table = tables.revisions


def add_revision(
    connection: Connection,
    wanted: Stack,
    *,
    images: Mapping[Key, str],
    who: str,
    at: float,
    summary: Mapping[str, int],
    sealer: Sealer,
) -> int:
    """Write the next revision of a stack that is on record, and drop those that are too old; its number."""
    last = connection.execute(select(func.max(_table.c.number)).where(_table.c.stack == wanted.name)).scalar()
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
    connection.execute(insert(_table), row)
    pins = [
        {"stack": wanted.name, "number": number, "key": key, "digest": digest} for key, digest in images.items() if digest
    ]
    if pins:
        connection.execute(insert(tables.revision_images), pins)
    connection.execute(delete(_table).where(_table.c.stack == wanted.name, _table.c.number <= number - KEPT))
    return number


def finish_revision(connection: Connection, stack: str, number: int, *, result: str) -> None:
    """Say how the apply of a revision ended."""
    connection.execute(update(_table).where(_table.c.stack == stack, _table.c.number == number).values(result=result))


def lease(connection: Connection, digest: str, name: str) -> None:
    """Keep an image because of this name; one that is kept for it already stays."""
    connection.execute(insert_or(tables.leases).on_conflict_do_nothing(), {"digest": digest, "name": name})


def drop_lease(connection: Connection, digest: str, name: str | None = None) -> None:
    """Keep an image no more because of a name, or of any name."""
    statement = delete(tables.leases).where(tables.leases.c.digest == digest)
    connection.execute(statement if name is None else statement.where(tables.leases.c.name == name))
