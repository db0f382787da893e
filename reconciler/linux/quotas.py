"""Project quotas: a folder bears a project's number, and the file system bounds what bears it.

ioctl_xfs_fsgetxattr(2) (linux/fs.h: FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR) and quotactl_fd(2) (kernel >= 5.14). ext4 and xfs
have them where they were mounted with `prjquota`. Raises OSError only.
"""

import ctypes
import fcntl
import os
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
_FSXATTR = "=5I8s"
_INHERIT = 0x200
_QUOTACTL_FD = 443
_GETQUOTA, _SETQUOTA, _PROJECT = 0x800007, 0x800008, 2
_DQBLK = "=8QI4x"
_BLOCK_LIMITS = 1
_UNIT = 1024


def read_project(folder: str | Path) -> int:
    """The number of the project that new files of a folder belong to, 0 for none."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags, _, _, project, _, _ = struct.unpack(_FSXATTR, fcntl.ioctl(fd, _FSGETXATTR, bytes(28)))
    finally:
        os.close(fd)
    return project if flags & _INHERIT else 0


def set_project(folder: str | Path, project: int) -> None:
    """Let a folder, and all that is made in it from now on, belong to a project."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        flags, size, extents, _, cow, rest = struct.unpack(_FSXATTR, fcntl.ioctl(fd, _FSGETXATTR, bytes(28)))
        fcntl.ioctl(fd, _FSSETXATTR, struct.pack(_FSXATTR, flags | _INHERIT, size, extents, project, cow, rest))
    finally:
        os.close(fd)


def read_limit(folder: str | Path, project: int) -> tuple[int, int]:
    """Of a project on a folder's file system: the most that it may hold (0 is no limit) and what it holds, in bytes.

    Raises OSError: ESRCH where project quotas are not on.
    """
    hard, _, used, *_ = struct.unpack(_DQBLK, _quotactl(folder, _GETQUOTA, project, bytes(struct.calcsize(_DQBLK))))
    return hard * _UNIT, used


def set_limit(folder: str | Path, project: int, size: int) -> None:
    """Bound a project, rounded up to whole KiB; 0 takes the bound away."""
    blocks = -(-size // _UNIT)
    _quotactl(folder, _SETQUOTA, project, struct.pack(_DQBLK, blocks, blocks, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS))


def _quotactl(folder: str | Path, command: int, project: int, data: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(data, len(data))
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _syscall(ctypes.c_long(_QUOTACTL_FD), fd, (command << 8) | _PROJECT, project, buffer) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(folder))
    finally:
        os.close(fd)
    return buffer.raw
