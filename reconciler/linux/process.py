"""Processes: started with nothing of ours, named beyond doubt (pid and start time), waited for with a deadline.

Used by the engine from many threads and by the exit command, so it imports little. Raises OSError only.
"""

import os
import select
import time

from reconciler.linux import failpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""What a child gets that must not depend on who called us."""

_ENV_PROGRAM = "/usr/bin/env"
_OUTPUT_LIMIT = 65_536
_SIGKILL, _IGNORED_BY_PYTHON = 9, (13, 25)
"""By number (signal(7): SIGPIPE and SIGXFSZ), for importing `signal` costs more than the rest of this module."""


def read_start_time(pid: int) -> int:
    """When a process began: field 22 of /proc/PID/stat (proc(5)), clock ticks since boot; 0 for none and for a zombie."""
    try:
        number = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    try:
        # The name in parentheses may hold spaces and parentheses itself: everything after the last one is fields.
        fields = os.read(number, 4096).rpartition(b")")[2].split(None, 20)
    except ProcessLookupError:
        return 0
    finally:
        os.close(number)
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def read_uptime() -> float:
    """Seconds since the boot, those of a suspension too: whoever sets the clock does not change it (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def read_age(start_time: int) -> float:
    """Seconds since a process with this start time began, whatever the clock says."""
    return max(0.0, read_uptime() - start_time / os.sysconf("SC_CLK_TCK"))


def is_alive(pid: int, start_time: int) -> bool:
    """Whether the very process that had this pid and start time still lives; a zombie does not."""
    return pid > 0 and start_time > 0 and read_start_time(pid) == start_time


_boot_id = ""


def read_boot_id() -> str:
    """The id of this boot, a UUID (random(4)): for a process there is but one."""
    global _boot_id
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            _boot_id = file.read().strip()
    return _boot_id


def open_pidfd(pid: int, start_time: int) -> int:
    """A pidfd of exactly this process, -1 when it has gone; the caller closes it."""
    try:
        pidfd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return -1
    # Race: the pid may have been reused before the open; after it, the start time can't change beneath us.
    if is_alive(pid, start_time):
        return pidfd
    os.close(pidfd)
    return -1


def send_signal(pid: int, start_time: int, number: int) -> bool:
    """Signal exactly this process; False when it has gone."""
    import signal

    pidfd = open_pidfd(pid, start_time)
    if pidfd < 0:
        return False
    try:
        with failpoint.change("signal"):
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def raise_descriptors(most: int) -> None:
    """Let this process have so many descriptors open, or as many as it may: what it starts may too (getrlimit(2))."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def kill_tree(pid: int) -> None:
    """Kill a process and what descends from it, whatever signals they ignore. What left its parents lives on."""
    for one in [pid, *_read_descendants(pid)]:  # Order: looked for before any is killed, for then they have other parents.
        send_signal(one, read_start_time(one), _SIGKILL)


def _read_descendants(pid: int) -> "list[int]":
    """By /proc/PID/task/TID/children (proc(5))."""
    found, left = [], [pid]
    while left:
        parent = left.pop()
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children", "rb", buffering=0) as file:
                    children = [int(word) for word in file.read(1 << 20).split()]
                found += children
                left += children
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_gone(pid: int, start_time: int, *, seconds: float) -> bool:
    """Wait until exactly this process has ended (as a zombie at least): True when it has within `seconds`."""
    pidfd = open_pidfd(pid, start_time)
    if pidfd < 0:
        return True
    try:
        return wait_readable(pidfd, seconds=seconds)
    finally:
        os.close(pidfd)


def wait_readable(fd: int, *, seconds: float) -> bool:
    """Wait until a descriptor is readable or at its end; False after `seconds`."""
    return wait_any(fd, seconds=seconds)


def wait_any(*fds: int, seconds: float) -> bool:
    """Wait until one of the descriptors is readable or at its end; False after `seconds`."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def spawn(
    argv: "Sequence[str]",
    *,
    env: "Mapping[str, str]",
    cwd: str,
    fds: "Mapping[int, int] | None" = None,
    group: bool = False,
) -> int:
    """Start `argv` (an absolute program) with exactly this environment and folder, and return its pid; the caller reaps it.

    `fds` says which descriptors it gets, its number to ours; 0, 1 and 2 are /dev/null unless named. With `group` it leads a
    process group of its own, so that what it starts can be ended with it.
    """
    given = {0: -1, 1: -1, 2: -1, **(fds or {})}
    # The clones keep a source from being overwritten by the dup2 of another number.
    clones = {number: os.dup(fd) for number, fd in given.items() if fd >= 0}
    high = {number: _above(clone, max(given) + 1) for number, clone in clones.items()}
    actions: list[tuple[int, int, str, int, int] | tuple[int, int, int]] = [
        (os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number, fd in given.items() if fd < 0
    ]
    actions += [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items()]
    # Kernel: posix_spawn knows no chdir in Python, and the process's own folder belongs to all threads; env(1) has both.
    words = [_ENV_PROGRAM, "-C", cwd, "--", *argv]
    try:
        with failpoint.change("spawn"):
            how: Any = {"setpgroup": 0} if group else {}
            return os.posix_spawn(
                _ENV_PROGRAM, words, dict(env), file_actions=actions, setsigmask=(), setsigdef=_IGNORED_BY_PYTHON, **how
            )
    finally:
        for fd in high.values():
            os.close(fd)


def _above(fd: int, least: int) -> int:
    """The descriptor moved to a number of at least `least`, closed on exec; `fd` is consumed."""
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
    finally:
        os.close(fd)


def work_apart(work: "Callable[[], bytes]", *, patience: float, longest: int) -> bytes:
    """What `work` gives within `patience` seconds; empty where it takes longer, or raises. It goes on in a process and
    session of its own, without our streams, for `longest` seconds at most. For a process of one thread."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        if os.fork() == 0:
            _work_on(work, write_end, longest)
        os.close(write_end)
        answer, deadline = b"", time.monotonic() + patience
        while wait_readable(read_end, seconds=deadline - time.monotonic()):
            piece = os.read(read_end, 65_536)
            if not piece:
                return answer
            answer += piece
        return b""
    finally:
        os.close(read_end)


def _work_on(work: "Callable[[], bytes]", write_end: int, longest: int) -> "NoReturn":
    import signal

    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(longest)
        left = memoryview(work())
        while left:
            left = left[os.write(write_end, left) :]
    finally:
        os._exit(0)


def run(argv: "Sequence[str]", *, seconds: float, env: "Mapping[str, str]" = CLEAN_ENV, cwd: str = "/") -> tuple[int, str]:
    """Run a program to its end: its exit code (negative: the signal) and the first 64 KiB of what it printed.

    After `seconds` it is killed and TimeoutError is raised.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = spawn(argv, env=env, cwd=cwd, fds={1: write_end, 2: write_end})
        finally:
            os.close(write_end)
        return _collect(pid, argv[0], read_end, seconds=seconds)
    finally:
        os.close(read_end)


def reap(pid: int, *, seconds: float) -> int:
    """Wait for the end of a child: its exit code, negative for the signal that ended it. Where it has not ended after
    `seconds`, or can't be waited for, it is killed; raises TimeoutError."""
    ended = False
    try:
        pidfd = os.pidfd_open(pid)
        try:
            ended = wait_readable(pidfd, seconds=seconds)
        finally:
            os.close(pidfd)
    finally:
        if not ended:
            os.kill(pid, _SIGKILL)
        status = os.waitpid(pid, 0)[1]
    if not ended:
        raise TimeoutError(f"it did not end within {seconds:g} s")
    return os.waitstatus_to_exitcode(status)


def describe_end(code: int) -> str:
    """An exit code in words: `it ended with 3`, `it was killed by SIGSEGV`."""
    if code >= 0:
        return f"it ended with {code}"
    import signal

    names = {number.value: number.name for number in signal.Signals}
    return f"it was killed by {names.get(-code, f'signal {-code}')}"


def _collect(pid: int, program: str, read_end: int, *, seconds: float) -> tuple[int, str]:
    deadline = time.monotonic() + seconds
    output = b""
    while wait_readable(read_end, seconds=deadline - time.monotonic()):
        chunk = os.read(read_end, 65_536)
        if not chunk:
            # Order: whoever closes what he prints into may go on all the same.
            return reap(pid, seconds=max(0.0, deadline - time.monotonic())), output.decode("utf-8", "replace")
        output = (output + chunk)[:_OUTPUT_LIMIT]
    os.kill(pid, _SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"{program} did not end within {seconds:g} s")
