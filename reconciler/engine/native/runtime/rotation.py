"""Keeps a container's log bounded: what is above half of its size is set aside by rename, and the oldest goes.

conmon itself cuts a log that reaches its full size, and what it cuts is lost; so that a reader can say where, the inode of
the file that was begun in order is noted. Imports the standard library only. Called under the container's lock.
"""

import os
import time

from reconciler.engine.native.runtime import bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BEGUN = "log-begun"
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


def note_begun(log: str) -> None:
    """Note which file the log is now: one that conmon puts in its place by itself will have another inode."""
    try:
        inode = os.stat(log).st_ino
    except FileNotFoundError:
        return
    bundle.write_text(os.path.dirname(log), _BEGUN, str(inode))


def was_cut(log: str) -> bool:
    """Whether conmon cut the log since it was last set aside: lines before its first one are lost."""
    try:
        with open(f"{os.path.dirname(log)}/{_BEGUN}", encoding="ascii") as file:
            return int(file.read()) != os.stat(log).st_ino
    except (FileNotFoundError, ValueError):
        return False
