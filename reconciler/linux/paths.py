"""Turns a path that somebody else wrote into a descriptor inside a root, whatever links lie on the way.

openat2(2) with RESOLVE_IN_ROOT (kernel >= 5.6): `..`, absolute paths and links end inside the root, and links of /proc
that lead out of it are refused. Nothing here follows a path by string. Raises OSError only.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_OPENAT2 = 437

NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
"""How openat2 resolves (linux/openat2.h)."""


def openat2(directory: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a descriptor, closed on exec, which the caller closes."""
    name = os.fsencode(path)
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a path with a NUL byte", path)
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        number: int = _syscall(ctypes.c_long(_OPENAT2), directory, name, how, ctypes.c_size_t(len(how)))
        if number >= 0:
            return number
        code = ctypes.get_errno()
        if code not in (errno.EAGAIN, errno.EINTR):  # Race: EAGAIN when a rename met a `..`; asking again is the cure.
            raise OSError(code, os.strerror(code), path)
    raise OSError(errno.EAGAIN, "the path changes faster than it can be resolved", path)


@contextmanager
def opened(root: int | str | Path) -> Iterator[int]:
    """A descriptor of a root: the one given, which stays the caller's, or one of a path for the time of the block."""
    if isinstance(root, int):
        yield root
        return
    number = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def open_in_root(root: int | str | Path, path: str | bytes, flags: int, mode: int = 0) -> int:
    """Open `path` as a process chrooted into `root` would, without any link of /proc: the caller closes."""
    with opened(root) as directory:
        return openat2(directory, path, flags, mode=mode, resolve=IN_ROOT | NO_MAGICLINKS)


def mkdir_in_root(root: int | str | Path, path: str, mode: int = 0o755) -> None:
    """Make a folder and its missing parents inside `root`, owned by the caller. What exists is left as it is.

    Links on the way are followed inside the root. Raises NotADirectoryError where something else is in the way.
    """
    with opened(root) as directory:
        here = openat2(directory, "/", os.O_PATH | os.O_DIRECTORY, resolve=IN_ROOT)
        done = "/"
        try:
            for part in path.split("/"):
                if part in ("", "."):
                    continue
                done = f"{done}{part}/"
                here, before = _enter(directory, here, done, part, mode), here
                os.close(before)
        finally:
            os.close(here)


def _enter(root: int, here: int, done: str, part: str, mode: int) -> int:
    """Open `done` (whose last component is `part`, in the folder `here`), making it first where it is missing."""
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        return openat2(root, done, flags, resolve=IN_ROOT | NO_MAGICLINKS)
    except FileNotFoundError:
        if part == "..":
            raise
    with suppress(FileExistsError):  # A link to nothing: opening it again says so.
        os.mkdir(part, mode, dir_fd=here)
    return openat2(root, done, flags, resolve=IN_ROOT | NO_MAGICLINKS)


def say_whose(path: str | Path) -> str:
    """Why a folder is not this user's alone: who else owns it or may write to it, or that it is no folder; "" where it is,
    and where there is nothing. A link is not followed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return "it is no folder"
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}"
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and found.st_gid != os.getegid()):
        return f"others may write to it (mode {mode:04o})"
    return ""


_KERNELS = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163, 0x73636673})
"""statfs(2): proc, sysfs, cgroup, cgroup2, devpts, mqueue, debugfs, tracefs, securityfs."""


def is_kernels(number: int) -> bool:
    """Whether a descriptor is on a file system that shows the kernel and keeps nothing."""
    found = ctypes.create_string_buffer(256)
    if _libc.fstatfs(number, found) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    kind: int = struct.unpack_from("=q", found)[0]
    return kind & 0xFFFFFFFF in _KERNELS


def read_in_root(root: int | str | Path, path: str, *, limit: int = 1 << 20) -> bytes:
    """The bytes of a regular file inside `root`.

    Raises OSError: EINVAL for anything but a regular file, which is not opened; EFBIG for more than `limit` bytes.
    """
    number = open_in_root(root, path, os.O_PATH)
    try:
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if found.st_size > limit:
            raise OSError(errno.EFBIG, f"{found.st_size} bytes are more than {limit}", path)
        with open(f"/proc/self/fd/{number}", "rb", buffering=0) as file:  # noqa: PTH123 - the descriptor, not a path
            data = file.read(limit + 1)
    finally:
        os.close(number)
    if data is None or len(data) > limit:
        raise OSError(errno.EFBIG, f"more than {limit} bytes", path)
    return data
