"""Copies a folder of an image, which is hostile, into one of ours: by descriptors, following no link, entering no mount.

Used by managed.py. Keeps owners, modes, times, hard links, file capabilities and `user.` attributes; leaves out devices
and sockets. Raises OSError only.
"""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from reconciler.linux import paths

_RESOLVE = paths.BENEATH | paths.NO_SYMLINKS | paths.NO_XDEV
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_PIECE = 1 << 24

_Links = dict[tuple[int, int], str]


def copy_tree(source: int, target: Path) -> None:
    """Copy what is in the folder `source` into the empty folder `target`, and its own owner, mode and time.

    Any depth takes two descriptors: each folder is opened anew beneath the top.
    """
    top = os.open(target, _FOLDER | os.O_CLOEXEC)
    try:
        links: _Links = {}
        pending, done = ["."], []
        while pending:
            path = pending.pop()
            done.append(path)
            pending += _copy_folder(source, top, path, links)
        for path in reversed(done):  # Order: what is put into a folder changes its time, so the inner ones come first.
            _finish_folder(source, top, path)
    finally:
        os.close(top)


def _copy_folder(source: int, target: int, path: str, links: _Links) -> list[str]:
    """Copy the entries of one folder: the folders among them, made and still to be filled."""
    inner = []
    here = paths.openat2(source, path, _FOLDER, resolve=_RESOLVE)
    there = paths.openat2(target, path, _FOLDER, resolve=_RESOLVE)
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    os.mkdir(entry.name, 0o700, dir_fd=there)
                    inner.append(f"{path}/{entry.name}")
                else:
                    _copy_leaf(here, there, entry.name, found, links, (target, f"{path}/{entry.name}"))
    finally:
        os.close(here)
        os.close(there)
    return inner


def _copy_leaf(here: int, there: int, name: str, found: os.stat_result, links: _Links, place: tuple[int, str]) -> None:
    top, path = place
    inode = (found.st_dev, found.st_ino)
    if found.st_nlink > 1 and inode in links:
        os.link(links[inode], name, src_dir_fd=top, dst_dir_fd=there, follow_symlinks=False)
        return
    if stat.S_ISREG(found.st_mode):
        _copy_file(here, there, name)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
    elif stat.S_ISFIFO(found.st_mode):
        os.mkfifo(name, 0o600, dir_fd=there)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=there)
    else:
        return
    os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=there, follow_symlinks=False)
    if found.st_nlink > 1:
        links[inode] = path


def _copy_file(here: int, there: int, name: str) -> None:
    source = paths.openat2(here, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=_RESOLVE)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):  # Race: somebody put another thing here.
            raise OSError(errno.EINVAL, "changed while it was copied", name)
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=there)
        try:
            while os.sendfile(target, source, None, _PIECE):
                pass
            _copy_attributes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _finish_folder(source: int, target: int, path: str) -> None:
    here = paths.openat2(source, path, _FOLDER, resolve=_RESOLVE)
    there = paths.openat2(target, path, _FOLDER, resolve=_RESOLVE)
    try:
        _copy_attributes(here, there)
        found = os.fstat(here)
        os.utime(there, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        os.close(here)
        os.close(there)


def _copy_attributes(here: int, there: int) -> None:
    found = os.fstat(here)
    # Order: a change of owner clears setuid and capabilities, so they follow it.
    os.fchown(there, found.st_uid, found.st_gid)
    os.fchmod(there, stat.S_IMODE(found.st_mode))
    with suppress(OSError):  # A file system without attributes has none to copy.
        for name in os.listxattr(here):
            if name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay.")):
                os.setxattr(there, name, os.getxattr(here, name))
