"""A database beside which SQLite can make nothing, for the disk is full or read-only → its bytes, for those who only look.

Reading in WAL mode needs the -shm file. It is there as long as anybody has the database open, so that where it can't be
made nobody writes either, and a copy is whole.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from reconciler.store.database import is_full, is_read_only

_MEMORY = ("/run", "/dev/shm", None)
"""Folders for the copy, the first that can be written; None: that of temporary files."""
_STUCK = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL)


def read_stuck(path: Path, error: sqlite3.Error) -> bytes | None:
    """What memory can answer from where opening failed with this error; None where the file system is not the cause.

    Raises OSError where no copy can be made.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in _STUCK or not (is_full(path) or is_read_only(path)):
        return None
    memory = next((folder for folder in _MEMORY if folder is None or os.access(folder, os.W_OK)), None)
    with TemporaryDirectory(prefix="reconcile-", dir=memory) as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        if (log := Path(f"{path}-wal")).exists():
            shutil.copyfile(log, f"{copy}-wal")
        with closing(sqlite3.connect(copy, isolation_level=None)) as sql:
            # What the log has goes into the file, which memory can then hold.
            sql.execute("PRAGMA journal_mode = DELETE")
        return copy.read_bytes()
