"""The store of one root: `open_store` gives it, `read` and `write` are its transactions.

Opening looks at one number of the file and migrates or makes nothing by itself unless it was allowed to: what
only reads (`plan`, `get`) leaves no file behind but SQLite's own -wal and -shm, and none at all where there is no root.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.model.errors import Failed, RootError
from reconciler.store import database
from reconciler.store.database import (
    check_serial,
    connect,
    database_path,
    explained,
    link_into_place,
    link_new,
    read_version,
    remove_abandoned,
    serial_path,
    stage_path,
    write_private,
)
from reconciler.store.reading import Reading
from reconciler.store.sealed import Sealer, write_key

if TYPE_CHECKING:
    from reconciler.store.writing import Writer
    from reconciler.store.writing import Writing as Writing

TIMEOUT = 10.0
"""Seconds that a transaction waits for those of others."""


class Store:
    """A root's database. Threads may share it; `close` is the owner's."""

    def __init__(self, root: Path, *, timeout: float = TIMEOUT) -> None:
        self.path = database_path(root)
        self.sealer = Sealer(root)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._frozen: bytes | None = None
        """What reads answer from instead of the file: nothing's there, or an older schema, migrated in memory."""
        self._writer: Writer | None = None

    @contextmanager
    def read(self) -> Iterator[Reading]:
        """One moment of the database. Never waits for a writer."""
        with explained(self.path), self._reader() as sql:
            sql.execute("BEGIN")
            try:
                yield Reading(sql, self.sealer)
            finally:
                sql.rollback()

    @contextmanager
    def write(self) -> "Iterator[Writing]":
        """A transaction with the write lock: committed, and on disk, when the `with` ends without an error.

        Never waits for anything outside; keep it short. Raises LockTimeout, RootError.
        """
        with explained(self.path), self._open_writer().transaction(self.sealer) as writing:
            yield writing

    def read_content(self, digest: str) -> bytes:
        """What is kept of a config, a secret or a bound file. Raises Failed where it is not kept any more."""
        with self.read() as tx:
            data = tx.content(digest)
        if data is None:
            raise Failed(
                f"{self.path}: the content {digest[:19]}… is not kept any more",
                hint="apply again: it is read from the manifest's files",
            )
        return data

    def close(self) -> None:
        """Let go of all connections."""
        with self._lock, explained(self.path):
            if self._writer:
                self._writer.close()
            self._writer = None
            self._close_readers()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        frozen = self._frozen
        try:
            sql = self._readers.pop()
        except IndexError:
            sql = self._connect_reader()
        try:
            yield sql
        finally:
            # Race: another thread may have migrated the file while this one read the older state.
            if frozen is self._frozen:
                self._readers.append(sql)
            else:
                sql.close()

    def _connect_reader(self) -> sqlite3.Connection:
        if self._frozen is None:
            sql = connect(self.path, timeout=self._timeout)
        else:
            sql = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            sql.deserialize(self._frozen)
        sql.execute("PRAGMA query_only = ON")
        return sql

    def _close_readers(self) -> None:
        while self._readers:
            self._readers.pop().close()

    def _open_writer(self) -> "Writer":
        from reconciler.store.upgrade import upgrade_database
        from reconciler.store.writing import Writer

        with self._lock:
            if self._writer is None:
                if not self.path.exists():
                    raise RootError(f"{self.path}: there is no database yet", hint="the first `reconcile apply` makes it")
                if self._frozen is not None:
                    upgrade_database(self.path, timeout=self._timeout)
                    self._frozen = None
                    self._close_readers()
                sql = connect(self.path, timeout=self._timeout)
                # A copy that was put back may have another mode; nothing happens where it is right.
                sql.execute("PRAGMA journal_mode = WAL")
                self._writer = Writer(sql, self.path, timeout=self._timeout)
            return self._writer

    def freeze(self, image: bytes) -> None:
        """Answer from these bytes instead of the file."""
        self._frozen = image

    def look(self) -> None:
        """Read the schema's version once: where it is older, or nothing is there, reads answer from memory."""
        if not self.path.exists():
            from reconciler.store.upgrade import empty_image

            self._frozen = empty_image()
            return
        try:
            sql = self._connect_reader()
            version = read_version(sql, self.path)
        except sqlite3.Error as error:
            from reconciler.store.stuck import read_stuck

            self._frozen = read_stuck(self.path, error)
            if self._frozen is None:
                raise
            sql = self._connect_reader()
            version = read_version(sql, self.path)
        check_serial(sql, self.path)
        if version == database.SCHEMA_VERSION:
            self._readers.append(sql)
            return
        from reconciler.store.upgrade import upgraded_image

        self._frozen = upgraded_image(sql)
        sql.close()


def open_store(root: Path, *, create: bool = False, timeout: float = TIMEOUT) -> Store:
    """The store of a root. With `create`, folder, key and database are made where they are missing.

    Without, a root that does not exist reads as an empty one, and nothing is made. `timeout` in seconds is how long
    transactions wait for those of others. Raises RootError: a root that has an id but no database, a database that is
    damaged, newer, or none of ours.
    """
    store = Store(root, timeout=timeout)
    with explained(store.path):
        if create:
            remove_abandoned(root)
        if not store.path.exists():
            _check_not_lost(root, store.path)
            if create:
                _create_root(root, store.path)
        store.look()
    return store


def _check_not_lost(root: Path, path: Path) -> None:
    if (root / "id").exists():
        raise RootError(
            f"{path}: this root has an id but no database: it is lost, not new",
            hint="`reconcile recover` rebuilds it from what is there; or put a copy of it back",
        )


def _create_root(root: Path, path: Path) -> None:
    from reconciler.store.upgrade import create_database

    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise RootError(f"{root}: the root can't be made: {error.strerror}", hint="choose another with --root") from error
    with _saying_made(path):
        ensure_key(root)
        create_database(path)


@contextmanager
def building_store(root: Path, *, image: bytes = b"", key: bytes = b"") -> Iterator[Store]:
    """A store to fill, which becomes the root's, whole, when the `with` ends without an error; else nothing is left of it.

    It begins empty, or as `image`, a database of this or an older schema; sensitive values are sealed with `key`, which
    becomes the root's, or with the root's own, made where it has none. Raises RootError where the root has a database, or
    gets one meanwhile. What SQLite left of an older one (its log would be played into the new one) is moved aside.
    """
    path, staged = database_path(root), root / f"new-{secrets.token_hex(6)}"
    try:
        with _saying_made(path):
            _stage(root, staged, image=image, key=key)
        store = open_store(staged, create=not image)
        try:
            yield store
        finally:
            store.close()
        with _saying_made(path):
            _put_into_place(root, staged, key=bool(key))
    finally:
        with suppress(FileNotFoundError):
            for file in list(staged.iterdir()):
                file.unlink()
            staged.rmdir()


@contextmanager
def _saying_made(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RootError(f"{path}: the database can't be made: {error.strerror}", hint="look at the disk") from error


def _stage(root: Path, staged: Path, *, image: bytes, key: bytes) -> None:
    staged.mkdir(mode=0o700)
    if key:
        write_key(staged / "key", key)
    else:
        ensure_key(root)
        (staged / "key").hardlink_to(root / "key")
    if image:
        write_private(database_path(staged), image)


def _put_into_place(root: Path, staged: Path, *, key: bool) -> None:
    path = database_path(root)
    if key:
        link_new(staged / "key", root / "key")
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(f"{path.name}{suffix}.lost"))
    serial_path(path).unlink(missing_ok=True)
    link_new(database_path(staged), path)


def ensure_key(root: Path) -> None:
    """Make the root's key where it has none."""
    key = root / "key"
    if not key.exists():
        staged = stage_path(key)
        write_key(staged)
        link_into_place(staged, key)


def copy_database(root: Path) -> bytes:
    """The whole database of a root as one file of this version's schema, of one moment, while others write. Raises
    RootError where there is none."""
    path = database_path(root)
    with explained(path), closing(connect(path, timeout=TIMEOUT)) as source:
        if read_version(source, path) < database.SCHEMA_VERSION:
            from reconciler.store.upgrade import upgraded_image

            return upgraded_image(source)
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            source.backup(copy)
            image = bytearray(copy.serialize())
    # A file in WAL mode says so in bytes 18 and 19; this one has no log beside it (sqlite.org/fileformat2.html).
    image[18:20] = b"\x01\x01"
    return bytes(image)


def open_copy(root: Path, image: bytes) -> Store:
    """A store to read from a copy of a root's database."""
    store = Store(root)
    store.freeze(image)
    return store
