"""Opens the SQLite file of a root: connections, pragmas, its schema's version, and what its errors mean.

Knows files and versions, no table. `reading.py` and `writing.py` work on the connections made here. It imports neither
SQLAlchemy nor alembic: commands that only look pay for neither.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import MsgspecError

from reconciler.model.errors import Failed, LockTimeout, ReconcileError, RootError

SCHEMA_VERSION = 2
"""The newest migration, kept as PRAGMA user_version; a test holds it equal to alembic's head."""
APPLICATION_ID = 0x7265636F
"""PRAGMA application_id, "reco": tells our database from another program's."""

_ABANDONED = 10.0
"""Seconds after which what a dead process was making is nobody's."""
_ROOM = 64 * 1024
"""Bytes: a -shm of 32 KiB, and the first pages of a log."""
_CODE = 0xFF
"""Primary part of an extended SQLite result code (sqlite.org/rescode.html)."""


def database_path(root: Path) -> Path:
    """`ROOT/reconcile.db`."""
    return root / "reconcile.db"


def connect(path: Path, *, timeout: float) -> sqlite3.Connection:
    """A connection in autocommit mode to a database that exists; the caller begins and ends transactions.

    `timeout` in seconds is how long SQLite waits for another process's lock. May be used from any thread, by one at a
    time. Raises sqlite3.OperationalError where the file is gone.
    """
    uri = path.absolute().as_uri() + "?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    # Order: FULL syncs the log at each commit, so that what an apply called done outlives a power cut. 0.7 ms more a
    # commit than NORMAL, a few commits an apply (docs/decisions/0060).
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def read_version(connection: sqlite3.Connection, path: Path) -> int:
    """The schema's version of a database of ours. Raises RootError for another program's, an empty one, a newer one."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID or version < 1:
        raise RootError(
            f"{path}: this is not a database of reconcile, or it was emptied", hint=_hint(sqlite3.SQLITE_CORRUPT, path)
        )
    if version > SCHEMA_VERSION:
        raise RootError(
            f"{path}: made by a newer reconcile (schema {version}; this one knows {SCHEMA_VERSION})",
            hint=f"use the newer reconcile, or put back the copy that it kept before it migrated, {path.name}.schema-N",
        )
    return int(version)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Map what SQLite and SQLAlchemy raise inside to errors for people."""
    try:
        yield
    except ReconcileError:
        raise
    except MsgspecError as error:
        raise RootError(
            f"{path}: a row of the database can't be read", str(error), _hint(sqlite3.SQLITE_CORRUPT, path)
        ) from error
    except Exception as error:
        cause = getattr(error, "orig", error)
        if not isinstance(cause, sqlite3.Error):
            raise
        raise explain_error(cause, path) from error


def explain_error(error: sqlite3.Error, path: Path) -> ReconcileError:
    """What an error of SQLite means for the root."""
    words = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & _CODE
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockTimeout(f"the database {path}", find_writer(path))
    if code == sqlite3.SQLITE_CANTOPEN and is_read_only(path):
        code = sqlite3.SQLITE_READONLY
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and is_full(path):
        code = sqlite3.SQLITE_FULL
    if code == sqlite3.SQLITE_FULL:
        return Failed(f"{path}: writing the database failed: the disk is full", words, "free some space and try again")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Failed(f"{path}: the database refused what contradicts it", words, "nothing was written; apply again")
    return RootError(f"{path}: {_MEANINGS.get(code, words)}", words, _hint(code, path))


def _hint(code: int, path: Path) -> str:
    return _HINTS.get(code, _HINTS[sqlite3.SQLITE_CORRUPT]).format(path=path)


def is_read_only(path: Path) -> bool:
    """Whether the file system is: SQLite then can't make its -shm, and only says that it can't open something."""
    with suppress(OSError):
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    return False


def is_full(path: Path) -> bool:
    """Whether the file system has no room for SQLite's -shm, whose failure is told as an I/O error."""
    with suppress(OSError):
        found = os.statvfs(path.parent)
        return found.f_bfree * found.f_frsize < _ROOM or (found.f_files > 0 and found.f_ffree == 0)
    return False


_MEANINGS = {
    sqlite3.SQLITE_NOTADB: "this is not a database",
    sqlite3.SQLITE_CORRUPT: "the database is damaged",
    sqlite3.SQLITE_READONLY: "the database can't be written: it or its file system is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database can't be opened",
    sqlite3.SQLITE_IOERR: "reading or writing the database failed",
    sqlite3.SQLITE_PERM: "the database may not be opened",
    sqlite3.SQLITE_ERROR: "the tables are not what the schema's version says",
}
_HINTS = {
    sqlite3.SQLITE_CORRUPT: "put back a copy of it, or have it rebuilt from what is there: mv {path} {path}.damaged, then"
    " `reconcile recover`; what runs goes on running, and nothing was guessed or changed",
    sqlite3.SQLITE_READONLY: "mount the file system writable, or give another --root",
    sqlite3.SQLITE_CANTOPEN: "look at the permissions of the root's folder and at its file system",
    sqlite3.SQLITE_IOERR: "look at the disk (dmesg); nothing was guessed or changed",
    sqlite3.SQLITE_PERM: "run it as the root's owner",
}


def find_writer(path: Path) -> str:
    """Who holds SQLite's write lock, `reconcile (pid 4121)`, by /proc/locks.

    In WAL mode that is byte 120 of the -shm file (sqlite.org/walformat.html, "WAL locks"). Asking the kernel for the
    lock instead would need a descriptor of that file, and closing it would drop this process's own locks.
    """
    with suppress(OSError):
        shared = Path(f"{path}-shm").stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "POSIX" and fields[3] == "WRITE" and fields[5].endswith(f":{shared}") and fields[6] == "120":
                name = Path(f"/proc/{fields[4]}/comm").read_text(encoding="utf-8", errors="replace").strip()
                return f"{name} (pid {fields[4]})"
    return "another process"


def check_serial(connection: sqlite3.Connection, path: Path) -> None:
    """Raise RootError for a database that is older than this root: its log was deleted, or an old copy was put back.

    What it does not know of would look like the leftovers of a crash, and be removed.
    """
    # Order: the file first. It is written after each commit, so the database is never behind it by itself.
    # Race: the file may be written while it is read, hence the second look.
    for _ in range(2):
        written = _read_serial(path)
        (serial,) = connection.execute("SELECT serial FROM root").fetchone()
        if serial >= written:
            return
    raise RootError(
        f"{path}: the database is older than its root: it ends at change {serial}, the root is at {written}",
        "its -wal file was deleted, or an old copy was put back",
        f"put the newest copy back with its -wal, or have it rebuilt from what is there: mv {path} {path}.old, then"
        f" `reconcile recover`; if the old one is meant, remove {serial_path(path)}",
    )


def write_serial(path: Path, serial: int) -> None:
    """Note the last change beside the database, for `check_serial`. Best effort, not synced: an older number is no harm."""
    with suppress(OSError):
        descriptor = os.open(serial_path(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, b"%020d" % serial, 0)
        finally:
            os.close(descriptor)


def _read_serial(path: Path) -> int:
    """What `write_serial` noted; 0 where there is nothing, or nothing whole."""
    with suppress(OSError, ValueError):
        return int(serial_path(path).read_bytes())
    return 0


def serial_path(path: Path) -> Path:
    """`ROOT/serial`."""
    return path.with_name("serial")


def stage_path(path: Path) -> Path:
    """A name beside `path` that nobody else uses, for what is linked into place when whole."""
    return path.with_name(f"{path.name}.new-{os.getpid()}-{os.urandom(4).hex()}")


def remove_abandoned(root: Path) -> None:
    """Remove what `stage_path` named for processes that are no more: a copy of the key, half a database. Best effort."""
    with suppress(OSError):
        for name in os.listdir(root):  # noqa: PTH208 - names only
            _, staged, rest = name.partition(".new-")
            pid = rest.partition("-")[0]
            if staged and pid.isdigit() and _is_abandoned(root / name, pid):
                (root / name).unlink()


def _is_abandoned(path: Path, pid: str) -> bool:
    age = time.time() - path.stat().st_mtime
    # Race: a pid of another namespace is not seen here; what it makes is done within milliseconds.
    if age < _ABANDONED:
        return False
    # Who bears the pid of before the boot is another process, and may live as long as the machine.
    return age > time.clock_gettime(time.CLOCK_BOOTTIME) or not Path(f"/proc/{pid}").exists()


def write_private(path: Path, data: bytes) -> None:
    """Write a new file, 0600, on the disk. Raises FileExistsError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def link_new(staged: Path, path: Path) -> None:
    """Give a finished database its name, on the disk. Raises RootError where there is one already."""
    try:
        os.link(staged, path)
    except FileExistsError as error:
        raise RootError(
            f"{path}: there is a database already", hint="nothing was changed; look which one is right"
        ) from error
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_into_place(staged: Path, path: Path) -> None:
    """Give a finished file its name, unless somebody was faster; either way the staged name goes."""
    with suppress(FileExistsError):
        os.link(staged, path)
    staged.unlink()
    sync_folder(path.parent)
