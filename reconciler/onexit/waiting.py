"""Sleeps until a time, a change of a bundle's policy.json, or the end of an apply: whichever comes first.

Used by follow.py. The kernel tells of changes in the bundle's folder by SIGIO (dnotify, fcntl(2) F_NOTIFY), for which the
standard library has all it takes; inotify would need ctypes.
"""

import fcntl
import os
import select
import time

from reconciler.engine.native.runtime import bundle
from reconciler.linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

_EVENTS = fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_DELETE | fcntl.DN_MULTISHOT
_LOOK_EVERY = 0.1
"""Seconds between looks where the kernel has no dnotify."""


class Sleeper:
    """Watches one bundle from its first `note` to the end of its `with` block."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = (0, 0)
        self._longest = float("inf")
        self._open: list[int] = []
        self._wake = -1

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        for fd in self._open:
            os.close(fd)

    def note(self) -> None:
        """What is there now is known. Order: called under the lock, for what others write comes after."""
        if self._wake < 0:
            self._watch()
        self._seen = self._identify()
        self._drain()

    def _watch(self) -> None:
        import signal  # Only who sleeps pays for this import.

        self._wake, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._open += [self._wake, bell]
        signal.signal(signal.SIGIO, lambda *_: None)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        try:
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._open.append(folder)
            fcntl.fcntl(folder, fcntl.F_NOTIFY, _EVENTS)
        except OSError:  # The bundle has gone, which the lock will tell; or CONFIG_DNOTIFY is off.
            self._longest = _LOOK_EVERY

    def _drain(self) -> None:
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            return

    def sleep(self, seconds: float, apply: "dict[str, Any] | None" = None) -> None:
        """Sleep at most `seconds`; less when the policy is written or removed, or when `apply` (pid, start_time) ends."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        pidfd = process.open_pidfd(apply["pid"], apply["start_time"]) if apply else -1
        if apply and pidfd < 0:
            return
        try:
            if pidfd >= 0:
                poll.register(pidfd, select.POLLIN)
            while (left := deadline - time.monotonic()) > 0:
                ready = poll.poll(min(left, self._longest) * 1000 + 1)
                if any(fd == pidfd for fd, _ in ready) or self._identify() != self._seen:
                    return
                self._drain()
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def _identify(self) -> tuple[int, int]:
        try:
            found = os.stat(f"{self._path}/{bundle.POLICY}")
        except OSError:
            return (0, 0)
        return found.st_ino, found.st_mtime_ns
