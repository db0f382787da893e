"""Turns entries and data into a plain tar on the standard input of a program that makes a file system image of it.

squashfs.py and erofs.py say which program. It runs as nobody in a folder that holds nothing but its output, so that what
a hostile layer may do to it stays there. Raises ProgramFailed with the program's own words.
"""

import fcntl
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.engine.native.layers.rewrite import render_header
from reconciler.engine.tarentry import Entry
from reconciler.linux import process
from reconciler.model.errors import ProgramFailed

OUTPUT = "image"
"""The name under which the program writes, in its own folder."""

_NOBODY = 65534
_BATCH = 512 << 10
_FULL = 4 << 20
_ZEROS = bytes(1024)
_PATIENCE = 60.0
"""Seconds in which a program that works takes some of its input, or writes, or computes."""


class PipedMaker:
    """One image being made."""

    def __init__(self, folder: Path, arguments: Sequence[str], *, what: str, nanoseconds: bool) -> None:
        self._folder = folder
        self._what = what
        self._program = os.path.basename(arguments[0])  # noqa: PTH119
        self._nanoseconds = nanoseconds
        self._buffers: list[bytes | memoryview] = []
        self._size = 0
        self._pad = 0
        self._said = os.memfd_create("said", os.MFD_CLOEXEC)
        as_nobody = os.geteuid() == 0
        if as_nobody:
            os.chown(folder, _NOBODY, _NOBODY)
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=self._said,
            cwd=folder,
            env={"TMPDIR": "."},  # mkfs.erofs puts all data into a file there first
            user=_NOBODY if as_nobody else None,
            group=_NOBODY if as_nobody else None,
            extra_groups=[] if as_nobody else None,
            bufsize=0,
        )
        assert self._process.stdin is not None
        self._pipe = self._process.stdin.fileno()
        os.set_blocking(self._pipe, False)
        with suppress(OSError):  # Only a matter of speed: users other than root have a limit.
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 1 << 20)

    def begin(self, entry: Entry) -> None:
        """The next entry; `entry.size` bytes of data follow by `write`."""
        header = render_header(entry, nanoseconds=self._nanoseconds)
        self._add(_ZEROS[: self._pad] + header if self._pad else header)
        self._pad = -entry.size % 512

    def write(self, piece: memoryview) -> None:
        """A piece of the current entry's data; it must not change until the image is finished."""
        self._add(piece)

    def finish(self) -> Path:
        """End the tar, wait for the program, and return its image: a file of root's, readable by nobody else."""
        self._add(_ZEROS[: self._pad] + _ZEROS)
        self._flush()
        self._close()
        image = self._folder / OUTPUT
        self._await_end()
        if self._process.wait():
            raise self._failed()
        if os.geteuid() == 0:
            os.chown(image, 0, 0, follow_symlinks=False)
        image.chmod(0o600)
        return image

    def close(self) -> None:
        """Kill the program if it still runs, and let go of everything; again changes nothing."""
        self._buffers.clear()
        if self._process.poll() is None:
            self._process.kill()
        self._close()
        self._process.wait()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1

    def _add(self, piece: bytes | memoryview) -> None:
        self._buffers.append(piece)
        self._size += len(piece)
        if self._size >= _BATCH or len(self._buffers) >= 1000:  # Kernel: writev takes 1,024 pieces.
            self._flush()

    def _flush(self) -> None:
        buffers, self._buffers, left = self._buffers, [], self._size
        self._size = 0
        try:
            while left:
                try:
                    done = os.writev(self._pipe, buffers)
                except BlockingIOError:
                    self._await_reading()
                    continue
                left -= done
                if left:
                    buffers = _drop(buffers, done)
        except BrokenPipeError:
            raise self._failed() from None

    def _await_reading(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLOUT)
        if not poll.poll(_PATIENCE * 1000):
            raise self._hung()

    def _await_end(self) -> None:
        """Wait for the program, for as long as it works."""
        pidfd = os.pidfd_open(self._process.pid)
        try:
            seen = self._read_progress()
            while not process.wait_readable(pidfd, seconds=_PATIENCE):
                last, seen = seen, self._read_progress()
                if seen == last:
                    raise self._hung()
        finally:
            os.close(pidfd)

    def _read_progress(self) -> tuple[object, ...]:
        """What changes while it works: the processor time that it had (proc(5), stat, utime and stime), its file's size."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        try:
            size = (self._folder / OUTPUT).stat().st_size
        except FileNotFoundError:
            size = 0
        return *stat[11:13], size

    def _hung(self) -> ProgramFailed:
        self._process.kill()
        self._process.wait()
        return ProgramFailed(
            self._what,
            self._program,
            f"it did nothing for {_PATIENCE:g} s and was killed",
            hint="look at the disk (dmesg) and, with `reconcile doctor`, at the program; then apply again",
        )

    def _close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def _failed(self) -> ProgramFailed:
        code = self._process.wait()
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        size = os.fstat(self._said).st_size
        words = os.pread(self._said, 2000, max(size - 2000, 0)).decode(errors="replace")
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < _FULL:  # mkfs.erofs 1.8 does not say it.
            words += "\nNo space left on device"
        return ProgramFailed(
            self._what,
            f"{self._program} ({how})",
            words,
            hint="free space, if the disk is full; otherwise the layer is one that this program can't write",
        )


def _drop(buffers: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """The buffers without their first `count` bytes."""
    for index, buffer in enumerate(buffers):
        if count < len(buffer):
            return [memoryview(buffer)[count:], *buffers[index + 1 :]]
        count -= len(buffer)
    return []
