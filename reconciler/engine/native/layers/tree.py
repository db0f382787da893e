"""Makes a plain folder of a layer, where neither maker of images is: the slow way, and the last choice.

The entries come without contradiction (parents first, no name twice), and each is made beneath a descriptor of the folder
by openat2 without links, so that no entry can name anything outside even so. Needs root.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from reconciler.engine.tarentry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, HARD_LINK, ROOT, SYMLINK, Entry
from reconciler.linux import files, paths
from reconciler.model.errors import Failed

FORM = "tree"
_RESOLVE = paths.BENEATH | paths.NO_SYMLINKS | paths.NO_XDEV
_KINDS = {CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}


class TreeMaker:
    """One folder being filled."""

    def __init__(self, folder: Path, *, what: str) -> None:
        self._what = what
        self._path = folder / "image"
        self._path.mkdir(mode=0o755)
        self._top = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._file = -1
        self._entry = Entry(name=ROOT, type=FILE)
        self._parent = (ROOT, os.dup(self._top))
        self._times: list[tuple[bytes, int]] = []

    def begin(self, entry: Entry) -> None:
        """The next entry; `entry.size` bytes of data follow by `write`."""
        self._end_file()
        try:
            self._make(entry)
        except OSError as error:
            raise self._failed(error) from error

    def _make(self, entry: Entry) -> None:
        parent, base = self._open_parent(entry.name)
        if entry.type == HARD_LINK:
            folder, _, name = entry.link.rpartition(b"/")
            source = self._open(folder)
            try:
                os.link(name, base, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
            return
        if entry.type == SYMLINK:
            os.symlink(entry.link, base, dir_fd=parent)
        elif entry.type == DIRECTORY:
            os.mkdir(base, 0o700, dir_fd=parent)
        elif entry.type == FILE:
            self._file = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent)
            self._entry = entry
            return  # Kernel: a write takes capabilities off, so attributes follow the data.
        else:
            os.mknod(base, _KINDS[entry.type] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        # Order: a change of owner clears setuid, so the mode follows it.
        os.chown(base, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != SYMLINK:
            os.chmod(base, entry.mode, dir_fd=parent)
        if entry.type == DIRECTORY:
            self._finish_folder(entry, parent, base)
        else:
            os.utime(base, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _finish_folder(self, entry: Entry, parent: int, base: bytes) -> None:
        self._times.append((entry.name, entry.mtime))
        if entry.xattrs:
            number = paths.openat2(parent, base, os.O_RDONLY | os.O_NOFOLLOW, resolve=_RESOLVE)
            try:
                _set_xattrs(number, entry)
            finally:
                os.close(number)

    def write(self, piece: memoryview) -> None:
        """A piece of the current entry's data."""
        try:
            files.write_all(self._file, piece)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> Path:
        """The folder, whole; times of folders are set last, for what is put into them changes them."""
        self._end_file()
        for name, mtime in reversed(self._times):
            number = self._open(name)
            try:
                os.utime(number, ns=(mtime, mtime))
            finally:
                os.close(number)
        return self._path

    def close(self) -> None:
        """Let go of everything; again changes nothing."""
        for number in (self._file, self._top, self._parent[1]):
            with suppress(OSError):
                os.close(number)
        self._file, self._top, self._parent = -1, -1, (ROOT, -1)

    def _end_file(self) -> None:
        number, self._file = self._file, -1
        if number < 0:
            return
        entry = self._entry
        try:
            os.fchown(number, entry.uid, entry.gid)
            os.fchmod(number, entry.mode)
            _set_xattrs(number, entry)
            os.utime(number, ns=(entry.mtime, entry.mtime))
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(number)

    def _open(self, folder: bytes) -> int:
        return paths.openat2(self._top, folder or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=_RESOLVE)

    def _open_parent(self, name: bytes) -> tuple[int, bytes]:
        folder, _, base = name.rpartition(b"/")
        if folder != self._parent[0]:
            number = self._open(folder)
            os.close(self._parent[1])
            self._parent = (folder, number)
        return self._parent[1], base

    def _failed(self, error: OSError) -> Failed:
        return Failed(f"{self._what}: unpack it: {error.strerror or error}", hint="free space, if the disk is full")


def _set_xattrs(number: int, entry: Entry) -> None:
    for name, value in entry.xattrs.items():
        os.setxattr(number, name, value)


def make(folder: Path, *, what: str) -> TreeMaker:
    """Begin a tree in `folder`."""
    return TreeMaker(folder, what=what)
