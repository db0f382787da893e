"""Turns wishes for mounts into kernel calls, and /proc's mountinfo into values.

The new mount API (kernel >= 5.2: fsopen, fsconfig, fsmount, move_mount, open_tree, mount_setattr) is used where it is,
for it has no page of options to overflow and says in words what it did not like; mount(2) is the fall-back. Knows no
word of containers; raises OSError whose text carries the kernel's own words.
"""

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from reconciler.linux import failpoint

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

# These numbers are the same on every architecture: all came after the tables were joined (kernel 5.1).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_AT_EMPTY_PATH, _AT_RECURSIVE, _AT_SYMLINK_NOFOLLOW = 0x1000, 0x8000, 0x100
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 4, 0x40
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6

RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
"""Attributes of a mount; the same bits in mount_setattr(2) and in mount(2)."""
NOATIME, NODIRATIME = 0x10, 0x80
"""More of them, of mount_setattr(2) and fsmount(2) alone."""

_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SLAVE, _MS_SHARED = 0x20, 0x1000, 0x4000, 1 << 18, 1 << 19, 1 << 20
_STATX_ATTR_MOUNT_ROOT = 0x2000
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8

Option = tuple[str, str | None]
"""A file system's option: its name, and its value or None for a flag."""


class MountEntry(NamedTuple):
    """One line of mountinfo (proc(5))."""

    id: int
    parent: int
    device: str
    """`MAJOR:MINOR`"""
    root: str
    """The folder of the file system that is mounted."""
    point: str
    options: str
    """Of the mount, comma-separated: `ro,nosuid,nodev`."""
    propagation: str
    """`shared:7 master:3`, empty for private."""
    fstype: str
    source: str
    super_options: str
    """Of the file system."""

    @property
    def read_only(self) -> bool:
        """Whether the mount itself is read-only."""
        return self.options.startswith("ro")


def read_mountinfo(pid: int | str = "self") -> list[MountEntry]:
    """The mounts of a process's mount namespace, in the kernel's order: what is mounted over something follows it."""
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=1 << 16) as file:  # noqa: PTH123 - one read, no Path
        lines = file.read().decode(errors="surrogateescape").split("\n")
    return [_parse_line(line) for line in lines if line]


def _parse_line(line: str) -> MountEntry:
    mount, _, rest = line.partition(" - ")
    number, parent, device, root, point, options, *propagation = mount.split(" ")
    fstype, source, super_options = rest.split(" ", 2)
    if "\\" in line:
        root, point, source = _unescape(root), _unescape(point), _unescape(source)
    return MountEntry(
        int(number), int(parent), device, root, point, options, " ".join(propagation), fstype, source, super_options
    )


def _unescape(text: str) -> str:
    head, *parts = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)


# ---------------------------------------------------------------- the new API, one call a function


def _call(what: str, path: str, number: int, *args: object) -> int:
    result: int = _syscall(ctypes.c_long(number), *args)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}", path)
    return result


def create_filesystem(fstype: str, options: Iterable[Option], attributes: int = 0) -> int:
    """A new file system, mounted nowhere yet: the descriptor of its detached mount, which the caller closes.

    Kernel >= 5.2. Raises OSError with what the file system logged.
    """
    context = _call("fsopen", fstype, _FSOPEN, fstype.encode(), 1)
    try:
        for name, value in options:
            _configure(context, fstype, name, value)
        _create(context, fstype)
        return _call("fsmount", fstype, _FSMOUNT, context, 1, attributes)
    finally:
        os.close(context)


def _configure(context: int, fstype: str, name: str, value: str | None) -> None:
    command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
    text = None if value is None else os.fsencode(value)
    if _syscall(ctypes.c_long(_FSCONFIG), context, command, name.encode(), text, 0) < 0:
        raise _explain(context, f"{fstype} option {name}{'' if value is None else '=' + value}")


def _create(context: int, fstype: str) -> None:
    if _syscall(ctypes.c_long(_FSCONFIG), context, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        raise _explain(context, f"new {fstype}")


def _explain(context: int, what: str) -> OSError:
    code = ctypes.get_errno()
    words = []
    for _ in range(16):  # Kernel: the log keeps eight lines; ENODATA ends it.
        try:
            words.append(os.read(context, 4096).decode(errors="replace")[2:].strip())
        except OSError:
            break
    return OSError(code, f"{what}: {os.strerror(code)}" + (f" ({'; '.join(words)})" if words else ""))


def attach(mount: int, target: int | str | Path) -> None:
    """Put a detached mount onto a folder or file, by an open descriptor of it or a path of which the last component is
    followed by nobody."""
    if isinstance(target, int):
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        with failpoint.change("mount"):
            _call("move_mount", str(target), _MOVE_MOUNT, mount, b"", target, b"", flags)
        return
    path = os.fspath(target)
    with failpoint.change("mount"):
        _call("move_mount", path, _MOVE_MOUNT, mount, b"", -100, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)


def clone_tree(source: int | str | Path, *, recursive: bool = False) -> int:
    """A detached copy of a mount's subtree, as a bind mount is: a descriptor, which the caller closes."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return _call("open_tree", str(source), _OPEN_TREE, source, b"", flags | _AT_EMPTY_PATH)
    path = os.fspath(source)
    return _call("open_tree", path, _OPEN_TREE, -100, os.fsencode(path), flags)


def set_attributes(
    target: int | str | Path, *, add: int = 0, drop: int = 0, propagation: int = 0, recursive: bool = False
) -> None:
    """Change the attributes (RDONLY, NOSUID, NODEV, NOEXEC) or the propagation of a mount. Kernel >= 5.12."""
    attributes = struct.pack("=QQQQ", add, drop, propagation, 0)
    flags = _AT_RECURSIVE if recursive else 0
    if isinstance(target, int):
        _call("mount_setattr", str(target), _MOUNT_SETATTR, target, b"", flags | _AT_EMPTY_PATH, attributes, 32)
    else:
        path = os.fspath(target)
        _call("mount_setattr", path, _MOUNT_SETATTR, -100, os.fsencode(path), flags, attributes, 32)


# ---------------------------------------------------------------- what callers want


def _classic(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), os.fsencode(data))
    with failpoint.change("mount"):
        if _libc.mount(*arguments) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"mount {fstype or 'flags'}: {os.strerror(code)}", target)


def mount(
    fstype: str, target: str | Path, options: Sequence[Option] = (), *, source: str = "none", attributes: int = 0
) -> None:
    """Mount a new file system onto `target`."""
    try:
        made = create_filesystem(fstype, [("source", source), *options], attributes)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise OSError(error.errno, error.strerror, os.fspath(target)) from None
        data = ",".join(name if value is None else f"{name}={value}" for name, value in options)
        _classic(source, os.fspath(target), fstype, attributes, data)
        return
    with _closing(made):
        attach(made, target)


def mount_tmpfs(
    target: str | Path, *, size: int = 0, mode: int = 0o755, attributes: int = NOSUID | NODEV, secret: bool = False
) -> None:
    """Mount a new tmpfs; `size` in bytes, 0 for the kernel's default (half the memory). What is `secret` is never swapped
    out, where the kernel can do that."""
    options: list[Option] = [("mode", f"{mode:o}")]
    if size:
        options.append(("size", str(size)))
    if secret:
        try:
            mount("tmpfs", target, [*options, ("noswap", None)], source="tmpfs", attributes=attributes)
        except OSError as error:
            # Kernel: noswap since 6.4, and only for root of the first user namespace.
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
        else:
            return
    mount("tmpfs", target, options, source="tmpfs", attributes=attributes)


def bind(source: int | str | Path, target: str | Path, *, attributes: int = 0, recursive: bool = False) -> None:
    """Mount a folder, a file or an open descriptor onto `target` as well. With attributes, nobody sees it without."""
    tree = clone_tree(source, recursive=recursive)
    with _closing(tree):
        if attributes:
            set_attributes(tree, add=attributes, recursive=recursive)
        attach(tree, target)


def make_private(target: str | Path, *, recursive: bool = False) -> None:
    """Let mounts beneath `target` neither come in from other namespaces nor go out to them."""
    _classic("none", os.fspath(target), "", _MS_PRIVATE | (_MS_REC if recursive else 0), "")


def unmount(target: str | Path, *, lazy: bool = False) -> None:
    """Take the topmost mount off `target`. `lazy` hides it at once and ends it when its last user is gone.

    Raises OSError: EINVAL when nothing is mounted there, EBUSY when it is in use.
    """
    path = os.fspath(target)
    with failpoint.change("umount"):
        if _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"unmount: {os.strerror(code)}", path)


def is_mount_point(target: str | Path) -> bool:
    """Whether something is mounted exactly here, in this mount namespace. False for what does not exist."""
    found = ctypes.create_string_buffer(256)
    path = os.fspath(target)
    if _libc.statx(-100, os.fsencode(path), _AT_SYMLINK_NOFOLLOW, 0, found) < 0:
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise OSError(code, f"statx: {os.strerror(code)}", path)
    attributes: int = struct.unpack_from("=Q", found, 8)[0]
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT)


def mount_overlay(
    target: str | Path,
    *,
    lowers: Sequence[str | Path],
    upper: str | Path | None = None,
    work: str | Path | None = None,
    options: Sequence[Option] = (),
    source: str = "overlay",
    attributes: int = 0,
) -> None:
    """Mount an overlay; `lowers` topmost first, up to 500 of them. Without `upper` it is read-only."""
    uppers = [(name, os.fspath(path)) for name, path in (("upperdir", upper), ("workdir", work)) if path is not None]
    try:
        names: list[Option] = [("source", source)]
        names += [("lowerdir+", os.fspath(lower)) for lower in lowers]
        made = create_filesystem("overlay", [*names, *uppers, *options], attributes)
    except OSError as error:
        # Kernel: `lowerdir+` came with 6.8; before, EINVAL. An overlay that is wrong otherwise fails below as well.
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(error.errno, error.strerror, os.fspath(target)) from None
        try:
            return _mount_overlay_classic(os.fspath(target), lowers, [*uppers, *options], source, attributes)
        except OSError as second:
            raise OSError(second.errno, f"overlay: {second.strerror}", os.fspath(target)) from None
    with _closing(made):
        attach(made, target)


def _mount_overlay_classic(
    target: str, lowers: Sequence[str | Path], options: Sequence[Option], source: str, attributes: int
) -> None:
    """By mount(2), whose options fill one page at most: long lists of lowers go by descriptors' names."""
    rest = "".join(f",{name}" if value is None else f",{name}={_escape(value)}" for name, value in options)
    data = "lowerdir=" + ":".join(_escape(os.fspath(lower)) for lower in lowers) + rest
    if len(os.fsencode(data)) < 4000:
        return _classic(source, target, "overlay", attributes, data)
    opened = [os.open(lower, os.O_PATH | os.O_DIRECTORY) for lower in lowers]
    try:
        names = ":".join(f"/proc/self/fd/{number}" for number in opened)
        _classic(source, target, "overlay", attributes, "lowerdir=" + names + rest)
    finally:
        for number in opened:
            os.close(number)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@contextmanager
def _closing(number: int) -> Iterator[int]:
    try:
        yield number
    finally:
        os.close(number)


# ---------------------------------------------------------------- images in files

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_LO_FLAGS_READ_ONLY, _LO_FLAGS_AUTOCLEAR = 1, 4


def mount_image(image: str | Path, target: str | Path, fstype: str, *, attributes: int = RDONLY | NODEV) -> None:
    """Mount a file system image read-only: EROFS straight from its file (kernel >= 6.12), others by a loop device
    that goes away with the mount."""
    path = os.fspath(image)
    if fstype == "erofs":
        try:
            return mount(fstype, target, [("ro", None)], source=path, attributes=attributes | RDONLY)
        except OSError as error:
            if error.errno != errno.ENOTBLK:
                raise
    with open_loop(path) as device:
        mount(fstype, target, [("ro", None)], source=device, attributes=attributes | RDONLY)


@contextmanager
def open_loop(image: str | Path) -> Iterator[str]:
    """A read-only loop device over a file, `/dev/loopN`; it is freed once neither this block nor a mount holds it."""
    path = os.fspath(image)
    backing = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, name = _claim_loop(backing, path)
    finally:
        os.close(backing)
    with _closing(device):
        yield name


def _claim_loop(backing: int, path: str) -> tuple[int, str]:
    # loop_config: fd, block_size, then loop_info64 (linux/loop.h), of which only flags and name are filled.
    info = struct.pack(
        "=5Q4I64s112x", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR, os.fsencode(path)[-63:]
    )
    request = struct.pack("=II", backing, 0) + info + bytes(64)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    with _closing(control):
        for _ in range(256):
            name = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, request)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # Race: another took this number between the two calls.
                    raise
            else:
                return device, name
    raise OSError(errno.EBUSY, "no loop device is free", path)


def has_filesystem(fstype: str) -> bool:
    """Whether the kernel knows a file system, its module loaded if it has to be. Needs CAP_SYS_ADMIN to load it."""
    try:
        os.close(_call("fsopen", fstype, _FSOPEN, fstype.encode(), 1))
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        names = Path("/proc/filesystems").read_text().split()  # Kernel: before 5.2, or no right to ask.
        return fstype in names
    return True
