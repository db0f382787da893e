"""Some of the disk is kept for who wants to free it: a file in the root, let go where `stop` or `delete` meet no room.

To free something our own records are written first, and SQLite can't write on a full disk. What makes things never touches
the reserve: it fails, as it must, and the next command that makes something while there is room again keeps a new one.
"""

import os
from contextlib import suppress
from pathlib import Path

from reconciler.linux.files import STAGING, staging_name

NAME = "reserve"
MOST = 8 << 20
"""Bytes: SQLite's log may grow to 4 MiB before it is folded in, and a delete writes little beside it."""
LEAST = 256 << 10
SHARE = 16
"""The reserve takes no more than this part of what is free."""
LOW = 512 << 10
"""Bytes left at which the disk counts as full."""


def keep_reserve(root: Path) -> None:
    """Put the reserve aside, where it is not and there is ample room. A file system that can't do that has none."""
    path = root / NAME
    with suppress(OSError):
        if path.exists():
            return
        size = min(MOST, _free(root) // SHARE)
        if size < LEAST:
            return
        # One that died here left its own, of megabytes; one that is at it now finds no file to rename, and has ours.
        for left in root.glob(f"{STAGING}{NAME}-*"):
            left.unlink()
        staged = root / staging_name(NAME)
        number = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(number, 0, size)  # Blocks, not a hole: a hole would need room when it is written.
            staged.rename(path)
        except OSError:
            staged.unlink()
        finally:
            os.close(number)


def release_reserve(root: Path) -> bool:
    """Let it go where the disk is full: whether it was."""
    path = root / NAME
    try:
        if _free(root) >= LOW:
            return False
        path.unlink()
    except OSError:
        return False
    return True


def _free(root: Path) -> int:
    found = os.statvfs(root)
    return found.f_bfree * found.f_frsize  # With what the file system keeps for root, which we are.
