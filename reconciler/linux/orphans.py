"""Children of our children, left behind: ours to reap while we say so."""

import ctypes
import os
import threading
from contextlib import suppress
from pathlib import Path

from reconciler.linux.process import read_start_time

_PR_SET_CHILD_SUBREAPER = 36
_lock = threading.Lock()
_within = 0
"""How many threads are in such a `with`: the setting is the whole process's."""
_before: frozenset[int] = frozenset()
_awaited: set[int] = set()
"""Those that some thread will reap itself."""
_strangers: dict[int, int] = {}
"""Daemons that other threads started meanwhile, and that became our children: pid and start time."""


class AdoptingOrphans:
    """Within a `with`, what our children leave behind when they end is ours to reap (prctl(2), PR_SET_CHILD_SUBREAPER).

    `keep` names the one that it was for, `reap` waits for it; any other is reaped by a later `with`, once it has ended.
    """

    def __enter__(self) -> "AdoptingOrphans":
        global _within, _before
        with _lock:
            if not _within:  # Race: else another thread may be about to say that one is its own.
                _reap_strangers()
                _before = frozenset(_read_children())
                _set(1)
            _within += 1
        return self

    def keep(self, pid: int) -> None:
        """Somebody reaps this one."""
        with _lock:
            _awaited.add(pid)
            _strangers.pop(pid, None)  # Another thread may have seen it before we knew it.

    def reap(self, pid: int) -> int:
        """Wait for it; its exit code, as `os.waitstatus_to_exitcode` gives it."""
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with _lock:
            _awaited.discard(pid)
        return code

    def __exit__(self, *_: object) -> None:
        global _within
        with _lock:
            _within -= 1
            if not _within:
                _set(0)
            for pid in set(_read_children()) - _before - _awaited:
                with suppress(ProcessLookupError):
                    if os.getsid(pid) == pid:
                        _strangers[pid] = read_start_time(pid)


def _read_children() -> list[int]:
    """Of all threads (proc(5), /proc/PID/task/TID/children)."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _reap_strangers() -> None:
    for pid, began in list(_strangers.items()):
        if read_start_time(pid) != began:
            del _strangers[pid]
            with suppress(ChildProcessError):  # A thread may have started and reaped it itself.
                os.waitpid(pid, os.WNOHANG)


def _set(value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
