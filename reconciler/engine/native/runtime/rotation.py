"""Keeps a container's log bounded: what is above half of its size is set aside by rename, and the oldest goes.

conmon itself cuts a log that reaches its full size, and what it cuts is lost; so that a reader can say where, a file that
was begun in order is marked. Imports the standard library only. Called under the container's lock.
"""

import errno
import os
import time

from reconciler.engine.native.runtime import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BEGUN = "trusted.reconcile.begun"
_REOPEN = b"2 0 0\n"
"""conmon's control message for `open the log anew`."""


def rotate(path: str, monitor: "dict[str, Any]") -> bool:
    """Set the log aside if it is above half of its size, and have conmon open a new one: whether it was.

    `path` is the bundle, `monitor` its monitor.json.
    """
    log = monitor["log"]
    try:
        if os.stat(log).st_size * 2 <= monitor["max_size"]:
            return False
    except FileNotFoundError:
        return False
    shift(log, keep=monitor["keep"])
    if _tell_conmon(path):
        _wait_for_file(log)
    note_begun(log)
    return True


def is_missing(path: str, monitor: "dict[str, Any]") -> bool:
    """Whether its log is gone, and what it says goes where nobody finds it."""
    if os.path.exists(monitor["log"]):
        return False
    lock = bundle.try_lock(path)
    if lock < 0:  # Race: whoever sets it aside has it.
        return False
    os.close(lock)
    return not os.path.exists(monitor["log"])


def renew(path: str, monitor: "dict[str, Any]") -> None:
    """Have a log that is gone opened anew; its folder is there. Called under the lock."""
    if not os.path.exists(monitor["log"]) and _tell_conmon(path):
        _wait_for_file(monitor["log"])


def shift(log: str, *, keep: int) -> None:
    """Rename LOG to LOG.1, LOG.1 to LOG.2 and so on; what would be above `keep` is removed."""
    for number in range(keep, 0, -1):
        source = log if number == 1 else f"{log}.{number - 1}"
        try:
            os.rename(source, f"{log}.{number}")
        except FileNotFoundError:
            continue
    if keep == 0:
        os.unlink(log)


def _tell_conmon(path: str) -> bool:
    try:
        fd = os.open(f"{path}/{bundle.CTL}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # No monitor reads: the next one opens the file itself.
        return False
    try:
        os.write(fd, _REOPEN)
    finally:
        os.close(fd)
    return True


def _wait_for_file(log: str) -> None:
    deadline = time.monotonic() + 1.0
    while not os.path.exists(log) and time.monotonic() < deadline:
        time.sleep(0.002)


def note_empty(log: str) -> None:
    """Mark a log that nothing was written into yet as begun in order; one that goes on is what it was."""
    try:
        if os.stat(log).st_size == 0:
            note_begun(log)
    except FileNotFoundError:
        return


def note_begun(log: str) -> None:
    """Mark the file itself: one that conmon puts in its place has no mark. (An inode's number comes back too soon.)"""
    try:
        os.setxattr(log, _BEGUN, b"1")
    except OSError:  # Not there yet, or a file system without extended attributes: then nothing can be told.
        return


def was_cut(log: str) -> bool:
    """Whether lines before the first one of this file are lost, for conmon cut it."""
    try:
        os.getxattr(log, _BEGUN)
    except OSError as error:
        return error.errno == errno.ENODATA
    return False
