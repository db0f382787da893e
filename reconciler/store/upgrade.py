"""Makes a root's database, and brings an older one to this version's schema. Only migrations import SQLAlchemy and alembic.

A new database is made whole under another name and linked into place, so nobody ever sees half of one. An older one
is copied, then migrated in one transaction.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.linux import failpoint
from reconciler.model.errors import RootError
from reconciler.store import database, statements
from reconciler.store.database import connect, link_into_place, read_version, stage_path

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")


def create_database(path: Path) -> None:
    """Make a database of the newest schema, 0600, unless another process is faster."""
    staged = _stage(path)
    sql = connect(staged, timeout=0)
    try:
        sql.execute("PRAGMA journal_mode = WAL")
        write_schema(sql)
    finally:
        sql.close()
    link_into_place(staged, path)


def write_schema(sql: sqlite3.Connection) -> None:
    """All tables of the newest schema into an empty database."""
    sql.execute("BEGIN IMMEDIATE")
    for statement in statements.CREATE:
        sql.execute(statement)
    sql.execute("INSERT INTO root (id, serial) VALUES (1, 0)")
    _stamp(sql)
    with failpoint.change("commit"):
        sql.commit()


def upgrade_database(path: Path, *, timeout: float) -> None:
    """Migrate in place, after a copy `reconcile.db.schema-N` of what was; a database of this version is left alone."""
    sql = connect(path, timeout=timeout)
    try:
        # Order: before the transaction, in which SQLite ignores it. A table that is rebuilt would take its children away.
        sql.execute("PRAGMA foreign_keys = OFF")
        # Race: whoever migrates holds the write lock from before the copy; a second one finds the new version.
        sql.execute("BEGIN IMMEDIATE")
        version = read_version(sql, path)
        if version < database.SCHEMA_VERSION:
            _keep_copy(path, version, timeout=timeout)
            migrate(sql)
        with failpoint.change("commit"):
            sql.commit()
    finally:
        sql.rollback()
        sql.close()


def upgraded_image(sql: sqlite3.Connection) -> bytes:
    """An older database migrated in memory: what those read who may change nothing on disk."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
        sql.backup(copy)
        copy.execute("BEGIN IMMEDIATE")
        migrate(copy)
        image = bytearray(copy.serialize())
    # A file in WAL mode says so in bytes 18 and 19, and memory can't be (sqlite.org/c3ref/deserialize.html).
    image[18:20] = b"\x01\x01"
    return bytes(image)


def empty_image() -> bytes:
    """A new database that no file holds: what those read who look at a root that does not exist."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as sql:
        write_schema(sql)
        return sql.serialize()


def migrate(sql: sqlite3.Connection) -> None:
    """Run the migrations that are missing, in the caller's transaction. Raises RootError where rows lost their parents."""
    from alembic import command
    from alembic.config import Config

    (version,) = sql.execute("PRAGMA user_version").fetchone()
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with _alchemy(sql) as connection:
        config.attributes["connection"] = connection
        # user_version is the one truth; alembic's own table only follows it.
        if version:
            command.stamp(config, revision_name(version))
        command.upgrade(config, revision_name(database.SCHEMA_VERSION))
        if broken := sql.execute("PRAGMA foreign_key_check").fetchone():
            raise RootError(f"migrating the database: a row of {broken[0]} lost what it belongs to; nothing was changed")
        _stamp(sql)
        with failpoint.change("commit"):
            connection.commit()


def revision_name(version: int) -> str:
    """Alembic's name of a version of the schema."""
    return f"{version:04}"


@contextmanager
def _alchemy(sql: sqlite3.Connection) -> "Iterator[Connection]":
    """A connection of the driver as SQLAlchemy's."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    with create_engine("sqlite://", creator=lambda: sql, poolclass=StaticPool).connect() as connection:
        yield connection


def _stamp(sql: sqlite3.Connection) -> None:
    sql.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    sql.execute(f"PRAGMA user_version = {database.SCHEMA_VERSION}")


def _stage(path: Path) -> Path:
    """An empty file, 0600, under a name beside `path`."""
    staged = stage_path(path)
    os.close(os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return staged


def _keep_copy(path: Path, version: int, *, timeout: float) -> None:
    kept = path.with_name(f"{path.name}.schema-{version}")
    staged = _stage(kept)
    source, target = connect(path, timeout=timeout), connect(staged, timeout=timeout)
    try:
        source.backup(target)
        # Else it stays in WAL mode, and a copy is not one file.
        target.execute("PRAGMA journal_mode = DELETE")
    finally:
        source.close()
        target.close()
    kept.unlink(missing_ok=True)
    link_into_place(staged, kept)
