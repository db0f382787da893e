"""Has a source looked at when something in its folder changes.

Where the kernel tells nothing of a folder (NFS tells only of this host's own changes), polling is all there is; so it is
for one that is not there yet, and for one that can't be watched, which is said. Decides nothing.
"""

import errno
import os
import select
import threading
from collections.abc import Callable

from msgspec import Struct

from reconciler.linux.foldertree import FolderTrees

SETTLE = 0.15
"""Seconds in which changes of files count as one: an editor writes, renames and removes."""
_LIMITS = {
    errno.ENOSPC: "fs.inotify.max_user_watches are used up",
    errno.EMFILE: "fs.inotify.max_user_instances are used up",
    errno.ENOMEM: "the kernel has no memory for it",
}


class _Watched(Struct, frozen=True):
    key: str
    identity: tuple[int, int]


class FolderWatcher:
    """One thread that waits for all folders."""

    def __init__(self, add: Callable[[str, float], None], lost: Callable[[], None] = lambda: None) -> None:
        self._add = add
        self._lost = lost
        self._lock = threading.Lock()
        self._folders: dict[str, _Watched] = {}
        self._trees: FolderTrees | None = None
        self._why = ""
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="folders", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and let go of everything."""
        os.write(self._wake, b"x")
        self._thread.join(5)
        with self._lock:
            if self._trees is not None:
                self._trees.close()
            self._trees = None
        os.close(self._woken)
        os.close(self._wake)

    def forget(self, folder: str) -> None:
        """Watch it no more."""
        with self._lock:
            if self._folders.pop(folder, None) is not None and self._trees is not None:
                self._trees.forget(folder)

    def follow(self, folder: str, key: str = "") -> str:
        """Watch a folder, for its source or another `key`, if it is there. Again for one that was removed and made anew:
        that is another. Why not all of it is watched; empty where it is, or is not there."""
        try:
            found = os.stat(folder)  # noqa: PTH116
            identity = (found.st_dev, found.st_ino)
        except OSError:
            self.forget(folder)
            return ""
        with self._lock:
            try:
                trees = self._open()
            except OSError as error:
                return _render(error)
            self._pass_on(*trees.read())
            known = self._folders.get(folder)
            same = known is not None and known.identity == identity and trees.is_watched(folder)
            if not same or folder in trees.incomplete:
                trees.forget(folder)
                trees.watch(folder)
                self._folders[folder] = _Watched(key or f"source {folder}", identity)
            return _render(trees.incomplete[folder]) if folder in trees.incomplete else ""

    def _open(self) -> FolderTrees:
        if self._trees is None:
            self._trees = FolderTrees()
            os.write(self._wake, b"w")
        return self._trees

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        while True:
            ready = {number for number, _ in poll.poll()}
            if self._woken in ready:
                if b"x" in os.read(self._woken, 64):
                    return
                if self._trees is not None:
                    poll.register(self._trees.fileno(), select.POLLIN)
            self._hear()

    def _hear(self) -> None:
        with self._lock:
            if self._trees is not None:
                self._pass_on(*self._trees.read())

    def _pass_on(self, changed: set[str], lost: bool) -> None:  # noqa: FBT001 what `read` gives
        for top in changed & self._folders.keys():
            self._add(self._folders[top].key, SETTLE)
        if lost:
            self._lost()


def _render(error: OSError) -> str:
    return _LIMITS.get(error.errno or 0, error.strerror or str(error))
