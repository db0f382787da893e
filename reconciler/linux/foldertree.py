"""Hears of changes in folders and in all that lies below them: inotify(7), through the C library, by one descriptor.

Says in which folder something changed, not what: whoever hears it looks. What the kernel could not keep (IN_Q_OVERFLOW) is
a change of all of them. Raises OSError only.
"""

import ctypes
import errno
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR, _DONT_FOLLOW, _EXCL_UNLINK, _IS_FOLDER = 0x1000000, 0x2000000, 0x4000000, 0x40000000
# Who only reads, as we do, changes nothing: no IN_OPEN, no IN_CLOSE_NOWRITE.
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_EVENT = struct.Struct("=iIII")
_BUFFER = 1 << 16


class FolderTrees:
    """The folders that are watched. Not shared between threads but for `fileno`."""

    def __init__(self) -> None:
        self._number: int = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._number < 0:
            raise _refusal("inotify")
        self._tops: dict[int, set[str]] = {}
        """By watch: the folders that were asked for in which that one is; it may be in several."""
        self._own: dict[str, int] = {}
        self.incomplete: dict[str, OSError] = {}
        """Folders of which not all is watched, and why: ENOSPC where fs.inotify.max_user_watches are used up."""

    def fileno(self) -> int:
        """Readable where something changed."""
        return self._number

    def watch(self, top: str) -> None:
        """Watch a folder, or a link to one, and all folders below it; again for those that came. `incomplete` has it where
        not all of it can be."""
        self.incomplete.pop(top, None)
        try:
            self._own[top] = self._add(top, top, 0)
            for folder, names, _ in os.walk(top):
                for name in names:
                    self._add(top, f"{folder}/{name}", _DONT_FOLLOW)
        except OSError as error:
            self.incomplete[top] = error

    def is_watched(self, top: str) -> bool:
        """Whether a folder is still the one that was watched, as far as was read; it may have been removed since, and made
        anew with the same inode."""
        return top in self._own

    def _add(self, top: str, folder: str, how: int) -> int:
        mask = ctypes.c_uint32(_CHANGES | _ONLYDIR | _EXCL_UNLINK | how)
        watch: int = _libc.inotify_add_watch(self._number, os.fsencode(folder), mask)
        if watch >= 0:
            self._tops.setdefault(watch, set()).add(top)
            return watch
        error = _refusal(folder)
        # Race: one below it may be gone, and a link to a folder is none.
        if top == folder or error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise error
        return -1

    def forget(self, top: str) -> None:
        """Watch a folder no more."""
        self.incomplete.pop(top, None)
        self._own.pop(top, None)
        for watch in [watch for watch, tops in self._tops.items() if top in tops]:
            self._tops[watch].discard(top)
            if not self._tops[watch]:
                del self._tops[watch]
                _libc.inotify_rm_watch(self._number, watch)

    def read(self) -> tuple[set[str], bool]:
        """The folders in which something changed since, and whether the kernel lost something: then it is all of them."""
        changed: set[str] = set()
        grown: set[str] = set()
        lost = False
        for watch, mask in self._read_events():
            if mask & _OVERFLOW:
                lost = True
                continue
            tops = self._tops.get(watch, set())
            changed |= tops
            if mask & _IGNORED:
                self._tops.pop(watch, None)
                self._own = {top: own for top, own in self._own.items() if own != watch}
            elif mask & _IS_FOLDER and mask & (_CREATE | _MOVED_TO):
                grown |= tops
        if lost:
            changed = grown = {top for tops in self._tops.values() for top in tops}
        # Order: watched before it is said that they changed, so that what comes behind who looks then is heard too.
        for top in grown:
            self.watch(top)
        return changed, lost

    def _read_events(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        while True:
            try:
                data = os.read(self._number, _BUFFER)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                found.append((watch, mask))
                at += _EVENT.size + length

    def close(self) -> None:
        """Watch nothing any more."""
        os.close(self._number)


def _refusal(path: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), path)
