"""A volume as entries of a tar, and back: owners, modes, times, hard links, `user.` attributes, ACLs, file capabilities.

Both sides are hostile: what runs in a container may change a volume while it is read, and an archive may have been written
by anybody. So all goes by descriptors, following no link and entering no mount, and what is put back is made anew: nothing
is written over, and no device is made. Used by the volume driver.
"""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from reconciler.engine import tarentry
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes import managed
from reconciler.engine.tarentry import Entry, printable
from reconciler.linux import paths
from reconciler.linux.tarball import Exactly
from reconciler.model.errors import ContentError, Failed

_RESOLVE = paths.BENEATH | paths.NO_SYMLINKS | paths.NO_XDEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_XATTR = "SCHILY.xattr."

_Links = dict[tuple[int, int], str]


def is_kept(name: str) -> bool:
    """Which extended attributes go along: those that a container can set or depend on, none that means something to us."""
    return name in ("security.capability", "system.posix_acl_access", "system.posix_acl_default") or (
        name.startswith("user.") and not name.startswith("user.overlay.")
    )


# ---------------------------------------------------------------- packing


def pack_volume(layout: Layout, volume_id: str, tar: tarfile.TarFile) -> list[str]:
    """Add a volume under `volumes/ID/`; what was left out (devices, sockets, other mounts), a line each. Raises Failed."""
    prefix = f"volumes/{volume_id}"
    data = managed.volume_data(layout, volume_id)
    left_out: list[str] = []
    try:
        _add_bytes(tar, f"{prefix}/volume.json", (data.parent / "volume.json").read_bytes())
        top = os.open(data, _FOLDER | os.O_CLOEXEC)
        try:
            links: _Links = {}
            pending = ["."]
            while pending:
                pending += _pack_folder(top, pending.pop(), f"{prefix}/data", tar, links, left_out)
        finally:
            os.close(top)
    except OSError as error:
        where = error.filename or data
        raise Failed(f"volume {volume_id}: read {os.fsdecode(where)}: {error.strerror or error}") from error
    return left_out


def _pack_folder(
    top: int, path: str, prefix: str, tar: tarfile.TarFile, links: _Links, left_out: list[str]
) -> Iterable[str]:
    """Add one folder and what is in it but for the folders, which come next."""
    here = paths.openat2(top, path, _FOLDER, resolve=_RESOLVE)
    inner = []
    try:
        tar.addfile(_describe(here, _place(prefix, path), tarfile.DIRTYPE))
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                place = f"{path}/{entry.name}"
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    if found.st_dev == os.fstat(top).st_dev:
                        inner.append(place)
                    else:
                        left_out.append(f"{_place(prefix, place)}: another file system is mounted there")
                elif not _pack_leaf(here, entry.name, found, _place(prefix, place), tar, links):
                    left_out.append(f"{_place(prefix, place)}: a device or a socket")
    finally:
        os.close(here)
    return reversed(inner)


def _place(prefix: str, path: str) -> str:
    return prefix if path == "." else f"{prefix}/{path.removeprefix('./')}"


def _pack_leaf(here: int, name: str, found: os.stat_result, place: str, tar: tarfile.TarFile, links: _Links) -> bool:
    inode = (found.st_dev, found.st_ino)
    if inode in links:
        info = _info(place, found, tarfile.LNKTYPE)
        info.linkname = links[inode]
        tar.addfile(info)
        return True
    if stat.S_ISREG(found.st_mode):
        # Race: what is here now may be another thing than the one that was listed.
        with suppress(FileNotFoundError), _opened_file(here, name) as file:
            info = _describe(file, place, tarfile.REGTYPE)
            tar.addfile(info, Exactly(file, info.size))
    elif stat.S_ISLNK(found.st_mode):
        info = _info(place, found, tarfile.SYMTYPE)
        info.linkname = os.readlink(name, dir_fd=here)
        tar.addfile(info)
    elif stat.S_ISFIFO(found.st_mode):
        tar.addfile(_info(place, found, tarfile.FIFOTYPE))
    else:
        return False
    if found.st_nlink > 1:
        links[inode] = place
    return True


@contextmanager
def _opened_file(here: int, name: str) -> Iterator[int]:
    number = paths.openat2(here, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=_RESOLVE)
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "changed while it was read", name)
        yield number
    finally:
        os.close(number)


def _describe(number: int, place: str, kind: bytes) -> tarfile.TarInfo:
    """The header of an open file or folder, with its attributes."""
    info = _info(place, os.fstat(number), kind)
    attributes = dict(info.pax_headers)
    with suppress(OSError):  # A file system without attributes has none to keep.
        for name in os.listxattr(number):
            if is_kept(name):
                attributes[_XATTR + name] = os.getxattr(number, name).decode("utf-8", "surrogateescape")
    info.pax_headers = attributes
    return info


def _info(place: str, found: os.stat_result, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(place)
    info.type, info.mode, info.uid, info.gid = kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.size = found.st_size if kind == tarfile.REGTYPE else 0
    seconds, nanoseconds = divmod(found.st_mtime_ns, 1_000_000_000)
    info.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
    return info


def _add_bytes(tar: tarfile.TarFile, place: str, data: bytes) -> None:
    info = tarfile.TarInfo(place)
    info.size, info.mode = len(data), 0o600
    tar.addfile(info, io.BytesIO(data))


# ---------------------------------------------------------------- unpacking


class Unpacker:
    """Fills one volume that was just made and is empty. `take` its entries in their order, then `finish`."""

    def __init__(self, layout: Layout, volume_id: str) -> None:
        self._layout = layout
        self._volume_id = volume_id
        self._prefix = f"volumes/{volume_id}/".encode()
        self._top = os.open(managed.volume_data(layout, volume_id), _FOLDER | os.O_CLOEXEC)
        self._folders: list[Entry] = []

    def take(self, entry: Entry, pieces: Iterable[memoryview]) -> None:
        """Make what an entry says. Raises ContentError for what does not belong into a volume, Failed for the disk."""
        name = entry.name.removeprefix(self._prefix)
        try:
            if name == b"volume.json":
                self._take_note(entry, pieces)
            elif name == b"data":
                self._folders.append(entry)
            elif name.startswith(b"data/"):
                self._make(name[5:], entry, pieces)
            else:
                raise _odd(entry, "volume.json or something in data/", "another name")
        except FileExistsError:
            raise _odd(entry, "each name once", "it twice") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EXDEV, errno.ENOENT, errno.ENOTDIR):
                raise _odd(entry, "a path through folders of the volume", os.strerror(error.errno)) from None
            raise Failed(
                f'volume {self._volume_id}: put back "{printable(entry.name)}": {error.strerror or error}',
                hint="free space, if the disk is full",
            ) from error

    def finish(self) -> None:
        """Owners, modes and times of folders, the inner ones first, for what is put into them changes their times."""
        for entry in reversed(self._folders):
            name = entry.name.removeprefix(self._prefix)
            folder = paths.openat2(self._top, name[5:] or b".", _FOLDER, resolve=_RESOLVE)
            try:
                _put_attributes(folder, entry)
            finally:
                os.close(folder)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._top)

    def _take_note(self, entry: Entry, pieces: Iterable[memoryview]) -> None:
        if entry.type != tarentry.FILE or entry.size > 1 << 20:
            raise _odd(entry, "a small file", "another thing")
        try:
            note = msgspec.json.decode(b"".join(map(bytes, pieces)), type=managed.VolumeFile)
        except msgspec.MsgspecError as error:
            raise _odd(entry, "what a volume says of itself", str(error)) from error
        managed.mark_used(self._layout, self._volume_id, used=note.used)

    def _make(self, path: bytes, entry: Entry, pieces: Iterable[memoryview]) -> None:
        above, _, name = path.rpartition(b"/")
        here = paths.openat2(self._top, above or b".", os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        try:
            self._make_in(here, name, entry, pieces)
        finally:
            os.close(here)

    def _make_in(self, here: int, name: bytes, entry: Entry, pieces: Iterable[memoryview]) -> None:
        if entry.type == tarentry.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=here)
            self._folders.append(entry)
        elif entry.type == tarentry.FILE:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o600, dir_fd=here)
            try:
                for piece in pieces:
                    while piece:
                        piece = piece[os.write(file, piece) :]
                _put_attributes(file, entry)
            finally:
                os.close(file)
        elif entry.type == tarentry.HARD_LINK:
            self._link(here, name, entry)
        elif entry.type in (tarentry.SYMLINK, tarentry.FIFO):
            if entry.type == tarentry.SYMLINK:
                os.symlink(entry.link, name, dir_fd=here)
            else:
                os.mkfifo(name, 0o600, dir_fd=here)
            os.chown(name, entry.uid, entry.gid, dir_fd=here, follow_symlinks=False)
            if entry.type == tarentry.FIFO:
                os.chmod(name, entry.mode, dir_fd=here)
            os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=here, follow_symlinks=False)
        else:
            raise _odd(entry, "a file, a folder, a link or a pipe", "a device")

    def _link(self, here: int, name: bytes, entry: Entry) -> None:
        if not entry.link.startswith(self._prefix + b"data/"):
            raise _odd(entry, "a link into the same volume", f'one to "{printable(entry.link)}"')
        above, _, target = entry.link.removeprefix(self._prefix + b"data/").rpartition(b"/")
        there = paths.openat2(self._top, above or b".", os.O_PATH | os.O_DIRECTORY, resolve=_RESOLVE)
        try:
            os.link(target, name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)


def _put_attributes(number: int, entry: Entry) -> None:
    # Order: a change of owner clears setuid and capabilities, so they follow it; the time comes last.
    os.fchown(number, entry.uid, entry.gid)
    os.fchmod(number, entry.mode)
    for raw, value in entry.xattrs.items():
        name = os.fsdecode(raw)
        if is_kept(name):
            os.setxattr(number, name, value)
    os.utime(number, ns=(entry.mtime, entry.mtime))


def _odd(entry: Entry, expected: str, found: str) -> ContentError:
    return ContentError(f'the archive\'s entry "{printable(entry.name)}"', expected, found)


def open_unpacker(layout: Layout, volume_id: str) -> Unpacker:
    """An unpacker for a volume that was made and has nothing in it. Raises Failed."""
    try:
        if any(Path(managed.volume_data(layout, volume_id)).iterdir()):
            raise Failed(f"volume {volume_id}: put back its data: there is some already")
        return Unpacker(layout, volume_id)
    except OSError as error:
        raise Failed(f"volume {volume_id}: put back its data: {error.strerror or error}") from error
