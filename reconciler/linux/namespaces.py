"""Makes, keeps, enters and removes network namespaces. A namespace is kept by a bind mount of it on a file.

The namespace of the calling *thread* changes for a moment and always comes back, so a pool of threads may do this side
by side without a fork. Raises OSError only; knows no word of containers.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.linux import mounts

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"


def _checked(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def open_netns(path: str | Path) -> int:
    """A descriptor of a kept namespace, which the caller closes. Raises ENOENT where no namespace is mounted."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    # Kernel: a plain file lies there when the bind mount is gone; setns(2) would call it EINVAL.
    if os.fstat(number).st_dev != os.stat(_OWN).st_dev:  # noqa: PTH116 - one nsfs holds all namespaces
        os.close(number)
        raise OSError(errno.ENOENT, "no network namespace is mounted here", str(path))
    return number


def is_kept(path: str | Path) -> bool:
    """Whether a namespace is mounted at a path."""
    try:
        os.close(open_netns(path))
    except FileNotFoundError:
        return False
    return True


@contextmanager
def entered(netns: int) -> Iterator[None]:
    """Run a block in a network namespace (a descriptor); the thread's own one comes back afterwards."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(netns, _CLONE_NEWNET), "enter network namespace")
        try:
            yield
        finally:
            _checked(_libc.setns(own, _CLONE_NEWNET), "return to the own network namespace")
    finally:
        os.close(own)


@contextmanager
def created(path: str | Path) -> Iterator[None]:
    """Make a network namespace, run a block in it, and then keep it at `path` (a new file, or an empty one).

    The thread's own namespace comes back afterwards. When the block fails nothing is kept.
    """
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(_CLONE_NEWNET), "make network namespace")
        try:
            yield
            # Order: kept last, so that what is found at the path was set up whole, whenever we were killed.
            _keep(_OWN, path)
        finally:
            _checked(_libc.setns(own, _CLONE_NEWNET), "return to the own network namespace")
    finally:
        os.close(own)


def keep_netns(pid: int, path: str | Path) -> None:
    """Keep the network namespace of a process at `path`, where its mount was lost."""
    _keep(f"/proc/{pid}/ns/net", path)


def _keep(source: str, path: str | Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    try:
        mounts.bind(source, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108
        raise


def remove_netns(path: str | Path) -> None:
    """Let go of a kept namespace: it ends with its last process and its last descriptor. One that is gone is no error."""
    try:
        mounts.unmount(path, lazy=True)
    except OSError as failure:
        if failure.errno not in (errno.EINVAL, errno.ENOENT):
            raise
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
