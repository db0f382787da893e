"""Runs a program that is not trusted with time, disk or memory: all it starts ends with it, and with us.

prlimit(1) and setpriv(1) are of Debian's essential util-linux; each becomes the next by exec, so that the pid stays. Raises
OSError only.
"""

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from reconciler.linux.process import spawn, wait_readable

_PRLIMIT, _SETPRIV = "/usr/bin/prlimit", "/usr/bin/setpriv"
_CHUNK = 65_536
_ERRORS = 65_536
"""Bytes of the standard error that are kept."""
_LAST = 5.0
"""Seconds that it has to end once it has closed what it prints into."""


_running: set[int] = set()
_lock = threading.Lock()


class Ended(NamedTuple):
    """How it ended."""

    code: int
    """Its exit code, negative for a signal."""
    out: bytes
    """Its standard output, where the caller gave no descriptor for that."""
    err: bytes
    """The first 64 KiB of its standard error."""


def run_bounded(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    seconds: float,
    file_size: int,
    memory: int,
    out_size: int = _CHUNK,
    fds: Mapping[int, int] | None = None,
) -> Ended:
    """Run it to its end. No file that it or its children write grows beyond `file_size` bytes, no process of them has more
    than `memory` bytes of address space, and what is printed ends at `out_size`.

    Raises TimeoutError after `seconds`, and OSError EFBIG where it prints more; it is killed with its children then.
    """
    limited = [_PRLIMIT, f"--fsize={file_size}", f"--as={memory}", "--core=0", "--"]
    # Race: a controller that dies leaves nobody who would end it; its children end by their pipes.
    bound = [_SETPRIV, "--pdeathsig", "KILL", "--"]
    pipes = {number: os.pipe2(os.O_CLOEXEC) for number in (1, 2) if number not in (fds or {})}
    try:
        try:
            given = {**(fds or {}), **{number: ends[1] for number, ends in pipes.items()}}
            with _lock:
                pid = spawn([*limited, *bound, *argv], env=env, cwd=cwd, fds=given, group=True)
                _running.add(pid)
        finally:
            for _, write_end in pipes.values():
                os.close(write_end)
        patience = 0.0
        try:
            printed = _read_all({ends[0]: number for number, ends in pipes.items()}, seconds, out_size, argv[0])
            patience = _LAST
        finally:
            ended = _end(pid, seconds=patience)
    finally:
        for read_end, _ in pipes.values():
            os.close(read_end)
    return Ended(ended, printed.get(1, b""), printed.get(2, b""))


def end_all() -> None:
    """Kill all that run now, with what they started: whoever waits for them is told that they ended. From any thread."""
    with _lock:
        for pid in _running:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _read_all(ends: dict[int, int], seconds: float, out_size: int, program: str) -> dict[int, bytes]:
    """What comes through pipes until all are closed, by number."""
    deadline = time.monotonic() + seconds
    found = {number: bytearray() for number in ends.values()}
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    left = set(ends)
    while left:
        ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not ready:
            raise TimeoutError(f"{os.path.basename(program)} did not end within {seconds:g} s")  # noqa: PTH119
        for end, _ in ready:
            chunk = os.read(end, _CHUNK)
            if not chunk:
                poll.unregister(end)
                left.discard(end)
                continue
            number = ends[end]
            if number == 1 and len(found[1]) + len(chunk) > out_size:
                raise OSError(errno.EFBIG, f"it printed more than {out_size:,} bytes")
            found[number] += chunk if number == 1 else chunk[: _ERRORS - len(found[number])]
    return {number: bytes(data) for number, data in found.items()}


def _end(pid: int, *, seconds: float) -> int:
    """Its exit code; whatever of its group is there after `seconds` is killed, before the pid can be another's."""
    pidfd = os.pidfd_open(pid)
    try:
        wait_readable(pidfd, seconds=seconds)  # select(2) knows no descriptor above 1023
    finally:
        os.close(pidfd)
    with _lock:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        # Order: before it is reaped, for then its pid may be another's.
        _running.discard(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
