"""Waits until somebody touches a file: inotify(7), through the C library, for what one process tells all that wait.

A touch (utimensat(2)) wakes by IN_ATTRIB; what is written to the file does not. What happens between two calls of `wait`
is not missed: the kernel keeps it. Raises OSError only.
"""

import ctypes
import os
import select
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_IN_ATTRIB = 0x4


class TouchWaiter:
    """One file that is waited for. `close` lets go of it."""

    def __init__(self, path: Path) -> None:
        self._number: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._number < 0:
            raise _refusal(path)
        if _libc.inotify_add_watch(self._number, os.fsencode(path), ctypes.c_uint32(_IN_ATTRIB)) < 0:
            error = _refusal(path)
            os.close(self._number)
            raise error

    def wait(self, seconds: float) -> bool:
        """Whether it was touched since the last call, or is within so many seconds."""
        ready, _, _ = select.select([self._number], [], [], seconds)
        if ready:
            os.read(self._number, 65536)
        return bool(ready)

    def close(self) -> None:
        """Wait no more."""
        os.close(self._number)


def touch(path: Path) -> None:
    """Wake whoever waits for a file. Raises OSError."""
    os.utime(path)


def _refusal(path: Path) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), str(path))
