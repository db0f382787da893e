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
_strangers: dict[int, int] = {}
"""Daemons that other threads started meanwhile, and that became our children: pid and start time."""


class AdoptingOrphans:
    """Within a `with`, what our children leave behind when they end is ours to reap (prctl(2), PR_SET_CHILD_SUBREAPER).

    `keep` names the one that it was for; any other is reaped by a later `with`, once it has ended.
    """

    def __init__(self) -> None:
        self._kept: set[int] = set()

    def __enter__(self) -> "AdoptingOrphans":
        global _within, _before
        with _lock:
            _reap_strangers()
            if not _within:
                _before = frozenset(_read_children())
                _set(1)
            _within += 1
        return self

    def keep(self, pid: int) -> None:
        """Somebody waits for this one."""
        self._kept.add(pid)

    def __exit__(self, *_: object) -> None:
        global _within
        with _lock:
            _within -= 1
            if not _within:
                _set(0)
            for pid in set(_read_children()) - _before - self._kept:
                with suppress(ProcessLookupError):
                    if os.getsid(pid) == pid:
                        _strangers[pid] = read_start_time(pid)
            for pid in self._kept:
                _strangers.pop(pid, None)


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
