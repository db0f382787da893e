"""Writes files whole or not at all, holds locks that say who has them, and removes trees without leaving them.

Staging names begin with `new-`, which whoever lists a folder of ours skips. Raises OSError only.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from reconciler.linux import paths

STAGING = "new-"
"""What the name of everything half-made begins with."""


def staging_name(name: str) -> str:
    """A fresh name to make something under before it is renamed to `name`."""
    return f"{STAGING}{name}-{secrets.token_hex(6)}"


def write_atomic(path: str | Path, data: bytes, mode: int = 0o600, *, durable: bool = False) -> None:
    """Put `data` at `path` whole: readers see the old file or the new. `durable` waits until the disk has both."""
    final = os.fspath(path)
    folder, name = os.path.split(final)
    staged = os.path.join(folder, staging_name(name))  # noqa: PTH118 - called for each container
    number = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            os.fchmod(number, mode)  # The umask is somebody else's.
            write_all(number, data)
            if durable:
                os.fsync(number)
        finally:
            os.close(number)
        os.rename(staged, final)  # noqa: PTH104
    except BaseException:
        with suppress(OSError):
            os.unlink(staged)  # noqa: PTH108
        raise
    if durable:
        sync_directory(folder or ".")


def write_all(number: int, data: bytes | memoryview) -> None:
    """Write everything, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


@contextmanager
def staged_directory(final: str | Path, mode: int = 0o700) -> Iterator[Path]:
    """A folder to fill, renamed to `final` when the block ends well and removed when it does not.

    Raises FileExistsError (or ENOTEMPTY) where `final` has come to be meanwhile.
    """
    final = Path(final)
    staged = final.with_name(staging_name(final.name))
    staged.mkdir(mode=mode)
    try:
        staged.chmod(mode)
        yield staged
        staged.rename(final)
    except BaseException:
        with suppress(OSError):
            remove_tree(staged)
        raise


def make_folders(path: str | Path) -> None:
    """A folder for its owner alone, and so are those on the way that were missing. One that is there is left as it is."""
    try:
        os.mkdir(path, 0o700)  # noqa: PTH102 - called for each layer of each container
    except FileExistsError:
        return
    except FileNotFoundError:
        make_folders(os.path.dirname(path))  # noqa: PTH120
        with suppress(FileExistsError):  # Race: another has just made it.
            os.mkdir(path, 0o700)  # noqa: PTH102


def sync_directory(path: str | Path) -> None:
    """Wait until the disk has the names of a folder."""
    sync_file(path, os.O_DIRECTORY)


def sync_file(path: str | Path, flags: int = 0) -> None:
    """Wait until the disk has the content of a file."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# ---------------------------------------------------------------- locks


class LockHeld(TimeoutError):
    """A lock was not had in time; its text says which process holds it, since when, doing what."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"locked by {holder}", path)
        self.holder = holder
        """`pid 4121 since 14:03:22 (apply blog)`"""


class Lock:
    """An flock that is held until `release` or the end of its `with` block, or of the process."""

    def __init__(self, path: str, number: int) -> None:
        self.path = path
        self._number = number

    def describe(self, doing: str) -> None:
        """Write into the lock's file who holds it and what for."""
        data = f"{os.getpid()} {time.time():.3f} {doing}\n".encode()
        os.pwrite(self._number, data, 0)
        os.ftruncate(self._number, len(data))

    def release(self) -> None:
        """Let it go; again changes nothing."""
        number, self._number = self._number, -1
        if number >= 0:
            # Race: a child that was forked meanwhile has a copy of the descriptor, and a close here would not end its hold.
            with suppress(OSError):  # Some network file system has none left; the close ends it then.
                fcntl.flock(number, fcntl.LOCK_UN)
            os.close(number)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def lock(path: str | Path, timeout: float = 30.0, *, doing: str = "") -> Lock:
    """Hold the exclusive lock of a file, which is made where it is missing; 0 tries once. `timeout` in seconds.

    It holds against other threads of this process too. Raises LockHeld (a TimeoutError) naming the holder.
    """
    name = os.fspath(path)
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while True:
        number = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(number)
            os.close(number)
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockHeld(name, holder) from None
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.02)
            continue
        except BaseException:
            os.close(number)
            raise
        if not _is_still(number, name):  # Race: whoever held it removed the file; this is no longer the lock.
            os.close(number)
            continue
        held = Lock(name, number)
        try:
            held.describe(doing)
        except BaseException:
            held.release()
            raise
        return held


def read_lock_holder(path: str | Path) -> str:
    """Who holds the lock of a file; empty where nobody does, or where there is no such file. Makes nothing."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        # Race: who tries at this very moment without waiting finds it taken; a shared hold lasts microseconds.
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(number)
    finally:
        os.close(number)
    return ""


def _is_still(number: int, name: str) -> bool:
    mine = os.fstat(number)
    try:
        there = os.stat(name, follow_symlinks=False)  # noqa: PTH116 - called for each container
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _read_holder(number: int) -> str:
    words = os.pread(number, 4096, 0).decode(errors="replace").strip().split(" ", 2)
    try:
        pid, since = int(words[0]), float(words[1])
    except (ValueError, IndexError):
        return "a process that has not said its name"
    doing = f" ({words[2]})" if len(words) > 2 else ""
    return f"pid {pid} since {time.strftime('%H:%M:%S', time.localtime(since))}{doing}"


# ---------------------------------------------------------------- removal

_DEPTH = 64
"""Open folders at a time. What lies deeper is first moved up, so no depth takes more descriptors or stack."""


def remove_tree(path: str | Path) -> None:
    """Remove a folder with all that is in it. What is gone already is no error.

    No link is followed and no mount is entered: OSError EXDEV names the mount met, and what lies beneath it is left.
    """
    name = os.fspath(path)
    folder, last = os.path.split(name)
    try:
        parent = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        top = _open_folder(parent, last, name)
        try:
            _empty(top, top, name, 0)
        finally:
            os.close(top)
        os.rmdir(last, dir_fd=parent)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def _open_folder(parent: int, name: str, path: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return paths.openat2(parent, name, flags, resolve=paths.NO_XDEV | paths.NO_SYMLINKS | paths.BENEATH)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EXDEV, "something is mounted here", path) from None
        raise


def _empty(top: int, folder: int, path: str, depth: int) -> None:
    """Remove everything in `folder`. Listing is repeated until nothing is found, for it runs beside the removal."""
    while True:
        with os.scandir(folder) as entries:
            found = 0
            for entry in entries:
                found += 1
                if entry.is_dir(follow_symlinks=False):
                    _remove_folder(top, folder, entry.name, f"{path}/{entry.name}", depth)
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=folder)
        if not found:
            return


def _remove_folder(top: int, parent: int, name: str, path: str, depth: int) -> None:
    if depth >= _DEPTH:
        os.rename(name, staging_name("deep"), src_dir_fd=parent, dst_dir_fd=top)
        return
    with suppress(FileNotFoundError):
        inner = _open_folder(parent, name, path)
        try:
            _empty(top, inner, path, depth + 1)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=parent)


def measure_tree(path: str | Path) -> int:
    """Bytes that a folder takes on disk, each inode once; without links followed or mounts entered. 0 if missing."""
    seen: set[int] = set()
    total = 0
    pending = [os.fspath(path)]
    try:
        device = os.stat(pending[0], follow_symlinks=False).st_dev  # noqa: PTH116
    except FileNotFoundError:
        return 0
    while pending:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if found.st_dev != device or found.st_ino in seen:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    pending.append(entry.path)
                elif found.st_nlink > 1:
                    seen.add(found.st_ino)
                total += found.st_blocks * 512
    return total
