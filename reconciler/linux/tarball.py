"""A folder or file, by descriptors → a tar stream, and back. Whoever wrote what is packed or unpacked is not trusted.

Packing opens every entry beneath the one before it and follows no link. Unpacking resolves each parent as the caller says:
inside a root, as a process chrooted there would, or beneath one folder without any link. Raises OSError and tarfile's
errors; knows no containers.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from reconciler.linux import paths
from reconciler.linux.files import staging_name

_BELOW = paths.BENEATH | paths.NO_SYMLINKS | paths.NO_MAGICLINKS
_ENTRY = paths.BENEATH | paths.NO_MAGICLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PIECE = 1 << 20

Skipped = Callable[[str], None]
"""Called with the name of each entry that is left out: a device, a socket."""


_TYPES_OF_HEADERS = frozenset((*b"xgXLK",))
_MOST_HEADER = 1 << 20
"""Bytes of what tarfile reads whole: long names, extended headers."""


class _Entry(tarfile.TarInfo):
    """One that nobody can make us read whole where it is large, and after which a tar does not end unsaid: tarfile takes an
    end of the stream between two entries, and bytes that are none, for the end of the tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Entry":
        """A header. Raises OSError for an extended one that is larger than any name or attribute, and where the tar breaks
        off; ReadError for what is none."""
        if len(buf) < tarfile.BLOCKSIZE:
            raise OSError(errno.ENODATA, "the tar breaks off: its end is missing")
        try:
            found = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(str(error)) from error
            raise  # Zeros: its end.
        if found.type[0] in _TYPES_OF_HEADERS and found.size > _MOST_HEADER:
            raise OSError(errno.E2BIG, "a header of the tar is too large")
        return found


def forget_members(tar: tarfile.TarFile) -> None:
    """Have a stream keep none of the entries that it has gone by: tarfile keeps all."""
    members: list[tarfile.TarInfo] = vars(tar)["members"]
    members.clear()


def pack(start: int, top: str, to: IO[bytes], *, skipped: Skipped) -> None:
    """Write a tar of what `start` is (an O_PATH descriptor) to a stream, under the name `top`; of a folder with `top` ""
    only what is in it. Hard links within it are kept, devices and sockets left out."""
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        _Packer(tar, skipped).add(start, top)


class _Packer:
    def __init__(self, tar: tarfile.TarFile, skipped: Skipped) -> None:
        self._tar = tar
        self._skipped = skipped
        self._links: dict[tuple[int, int], str] = {}

    def add(self, opened: int, name: str) -> None:
        found = os.fstat(opened)
        if stat.S_ISDIR(found.st_mode):
            if name:
                self._tar.addfile(_header(found, name, tarfile.DIRTYPE))
            self._add_folder(opened, name)
        elif stat.S_ISREG(found.st_mode):
            self._add_file(opened, found, name)
        elif stat.S_ISLNK(found.st_mode):
            self._tar.addfile(_header(found, name, tarfile.SYMTYPE, target=os.readlink("", dir_fd=opened)))
        elif stat.S_ISFIFO(found.st_mode):
            self._tar.addfile(_header(found, name, tarfile.FIFOTYPE))
        else:
            self._skipped(name)
        forget_members(self._tar)

    def _add_folder(self, opened: int, name: str) -> None:
        if paths.is_kernels(opened):
            return  # What is in /proc and /sys is no file to keep.
        folder = paths.openat2(opened, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BELOW)
        try:
            with os.scandir(folder) as entries:
                inner = sorted(entry.name for entry in entries)
            for each in inner:
                try:
                    entry = paths.openat2(folder, each, os.O_PATH | os.O_NOFOLLOW, resolve=_ENTRY)
                except FileNotFoundError:
                    continue  # Race: it went while we looked.
                try:
                    self.add(entry, f"{name}/{each}" if name else each)
                finally:
                    os.close(entry)
        finally:
            os.close(folder)

    def _add_file(self, opened: int, found: os.stat_result, name: str) -> None:
        inode = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and inode in self._links:
            self._tar.addfile(_header(found, name, tarfile.LNKTYPE, target=self._links[inode]))
            return
        if found.st_nlink > 1:
            self._links[inode] = name
        # The descriptor, not a path: what it is was looked at, and a fifo would have hung.
        with open(f"/proc/self/fd/{opened}", "rb", buffering=0) as file:  # noqa: PTH123
            header = _header(found, name, tarfile.REGTYPE)
            header.size = found.st_size
            self._tar.addfile(header, Exactly(file.fileno(), found.st_size))


class Exactly:
    """As many bytes of an open file as its header says, whatever becomes of it meanwhile: cut, or filled with zeros."""

    def __init__(self, number: int, size: int) -> None:
        self._number = number
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """The next bytes; all that are left, without a size."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = b""
        while len(data) < wanted and (more := os.read(self._number, min(wanted - len(data), _PIECE))):
            data += more
        self._left -= wanted
        return data.ljust(wanted, b"\0")


def _header(found: os.stat_result, name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    header.mode, header.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    header.uid, header.gid = found.st_uid, found.st_gid
    return header


class Place:
    """Where a tar is unpacked. With `root`, `base` is a path in it and links lead about inside it; with `folder`, a
    descriptor, no link on the way is followed."""

    def __init__(self, base: str = "", *, root: int = -1, folder: int = -1) -> None:
        self._base, self._root, self._folder = base, root, folder

    @contextmanager
    def parent_of(self, name: str) -> Iterator[tuple[int, str]]:
        """The open folder that an entry is to be in, and the entry's last name."""
        head, _, last = name.rpartition("/")
        opened = self.open_folder(head)
        try:
            yield opened, last
        finally:
            os.close(opened)

    def open_folder(self, name: str) -> int:
        """An open folder inside; missing ones on the way are made."""
        if self._root >= 0:
            if name:
                paths.mkdir_in_root(self._root, f"{self._base}/{name}")
            return paths.open_in_root(self._root, f"{self._base}/{name}", os.O_RDONLY | os.O_DIRECTORY)
        here = os.dup(self._folder)
        for part in filter(None, name.split("/")):
            try:
                inner = _open_below(here, part)
            finally:
                os.close(here)
            here = inner
        return here


def _open_below(folder: int, name: str) -> int:
    try:
        return paths.openat2(folder, name, _FOLDER, resolve=_BELOW)
    except FileNotFoundError:
        os.mkdir(name, 0o755, dir_fd=folder)
        return paths.openat2(folder, name, _FOLDER, resolve=_BELOW)


def unpack(stream: IO[bytes], place: Place, *, owner: tuple[int, int] | None, set_ids: bool, skipped: Skipped) -> None:
    """Unpack a tar stream. `owner` None keeps the tar's numbers; without `set_ids` setuid and setgid bits are dropped. A
    folder that is there stays and takes mode and owner; anything else gives way; a folder gives way to folders alone."""
    with tarfile.open(fileobj=stream, mode="r|*", encoding="utf-8", errors="surrogateescape", tarinfo=_Entry) as tar:
        folders: list[tuple[str, int]] = []
        while (entry := tar.next()) is not None:
            forget_members(tar)
            name = clean_name(entry.name)
            if name:
                _unpack_entry(tar, entry, name, place, owner=owner, set_ids=set_ids, skipped=skipped)
            if entry.isdir() and name:
                folders.append((name, int(entry.mtime)))
        for name, mtime in reversed(folders):  # Order: what is put into a folder changes its time.
            folder = place.open_folder(name)
            try:
                os.utime(folder, (mtime, mtime))
            finally:
                os.close(folder)


def clean_name(name: str) -> str:
    """A name of a tar, relative and without `.`; "" for the top itself. Raises OSError for one that leads out."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise OSError(errno.EINVAL, "a name that leads out of the archive", name)
    return "/".join(parts)


def _unpack_entry(
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    name: str,
    place: Place,
    *,
    owner: tuple[int, int] | None,
    set_ids: bool,
    skipped: Skipped,
) -> None:
    uid, gid = owner or (entry.uid, entry.gid)
    mode = entry.mode & (0o7777 if set_ids else 0o1777)
    with place.parent_of(name) as (parent, last):
        if entry.isdir():
            _make_folder(parent, last)
        elif entry.isreg():
            _write_file(tar, entry, parent, last, (uid, gid, mode))
            return
        elif entry.issym():
            _make_way(parent, last)
            os.symlink(entry.linkname, last, dir_fd=parent)
            os.chown(last, uid, gid, dir_fd=parent, follow_symlinks=False)
            return
        elif entry.islnk():
            with place.parent_of(clean_name(entry.linkname)) as (other, target):
                _make_way(parent, last)
                os.link(target, last, src_dir_fd=other, dst_dir_fd=parent, follow_symlinks=False)
            return
        elif entry.isfifo():
            _make_way(parent, last)
            os.mkfifo(last, 0o600, dir_fd=parent)
        else:
            skipped(name)
            return
        _finish(parent, last, entry, (uid, gid, mode))


def _finish(parent: int, last: str, entry: tarfile.TarInfo, owned: tuple[int, int, int]) -> None:
    """Owner and mode of a folder or a fifo that was made; a file has had its own through its descriptor."""
    uid, gid, mode = owned
    opened = os.open(last, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        found = os.fstat(opened).st_mode
        # Race: what has this name by now may be a file of who runs there, which must not become root's and setuid.
        if not (stat.S_ISDIR(found) if entry.isdir() else stat.S_ISFIFO(found)):
            raise OSError(errno.ESTALE, "it was replaced while it was copied", last)
        # Order: a change of owner clears setuid, so the mode follows it.
        os.chown(f"/proc/self/fd/{opened}", uid, gid)
        os.chmod(f"/proc/self/fd/{opened}", mode)  # noqa: PTH101 - the descriptor, not a path
        if not entry.isdir():
            os.utime(f"/proc/self/fd/{opened}", (int(entry.mtime), int(entry.mtime)))
    finally:
        os.close(opened)


def _make_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise


def _make_way(parent: int, name: str) -> None:
    """Take away what has this name; a folder stays, and is an error."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return


def _write_file(tar: tarfile.TarFile, entry: tarfile.TarInfo, parent: int, name: str, owned: tuple[int, int, int]) -> None:
    uid, gid, mode = owned
    with _new_file(parent, name) as file:
        source = tar.extractfile(entry)
        assert source is not None
        while piece := source.read(_PIECE):
            file.write(piece)
        file.flush()
        # Race: by the descriptor, for a name may be another file's by now. Order: a change of owner clears setuid.
        os.fchown(file.fileno(), uid, gid)
        os.fchmod(file.fileno(), mode)
        os.utime(file.fileno(), (int(entry.mtime), int(entry.mtime)))


@contextmanager
def _new_file(parent: int, name: str) -> Iterator[IO[bytes]]:
    """A file that takes its name at the end of a `with`, whole, from whatever had it: of one that was not finished nothing
    is left, even where we are killed (open(2), O_TMPFILE), and what had the name keeps it."""
    staged = staging_name("copied")
    number, named = _open_unnamed(parent, staged)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if not named:
                os.link(f"/proc/self/fd/{number}", staged, dst_dir_fd=parent)
                named = True
        os.rename(staged, name, src_dir_fd=parent, dst_dir_fd=parent)
        named = False
    finally:
        if named:
            with suppress(FileNotFoundError):
                os.unlink(staged, dir_fd=parent)


def _open_unnamed(parent: int, staged: str) -> tuple[int, bool]:
    """A new file, and whether it has a name already, for want of a file system that knows files without."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=parent), False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(staged, flags, 0o600, dir_fd=parent), True
