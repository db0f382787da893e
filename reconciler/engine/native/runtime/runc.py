"""The OCI runtime's command line, and its state folder where reading it is cheaper than asking.

conmon.py calls `create` through conmon; here are the other verbs. Used by the driver and the exit command, so it imports
the standard library and `linux` only. Never decides anything.
"""

import os

from reconciler.linux import cgroups, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS = 30.0
"""More than any verb takes on a machine that works; a runtime that hangs is an error with this in it."""

RUNTIME_ENV = {**process.CLEAN_ENV, "GOMAXPROCS": "1", "GOGC": "off"}
"""The runtime lives for milliseconds: garbage collected and threads started cost more than they bring."""


class RuntimeFailed(Exception):
    """A verb of the runtime failed: `tried` is the verb, `words` what the runtime said."""

    def __init__(self, tried: str, words: str) -> None:
        super().__init__(f"{tried}: {words}")
        self.tried = tried
        self.words = words


def call(program: str, root: str, verb: str, arguments: "Sequence[str]" = ()) -> None:
    """Run one verb to its end. Raises RuntimeFailed."""
    try:
        code, output = process.run([program, "--root", root, verb, *arguments], seconds=_SECONDS, env=RUNTIME_ENV)
    except OSError as error:
        raise RuntimeFailed(f"{program} {verb}", words_of(error)) from error
    if code != 0:
        raise RuntimeFailed(f"{program} {verb}", choose_words(output) or process.describe_end(code))


def start(program: str, root: str, container_id: str, init: "tuple[int, int]") -> None:
    """Let a created container run; `init` is the pid and the start time of its first process. Raises RuntimeFailed.

    runc's init waits until somebody opens the fifo that it writes to; opening it is all that `runc start` does, after it
    has started a Go program. A runtime that has no such fifo is asked by its verb.
    """
    # Order: before the fifo is opened, for what is let go may have ended a moment later.
    pidfd = process.open_pidfd(*init)
    if pidfd < 0:
        raise RuntimeFailed("start", "the container's first process ended before it was let go")
    try:
        fd = os.open(f"{root}/{container_id}/exec.fifo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        os.close(pidfd)
        call(program, root, "start", [container_id])
        return
    try:
        # Race: whoever kills it now kills the one that was to write.
        if not process.wait_any(fd, pidfd, seconds=_SECONDS):
            raise RuntimeFailed("start", "the container's first process did not answer")
        if not _read_byte(fd):
            raise RuntimeFailed("start", "the container's first process ended before it was let go")
    finally:
        os.close(fd)
        os.close(pidfd)
    os.unlink(f"{root}/{container_id}/exec.fifo")


def _read_byte(fd: int) -> bytes:
    try:
        return os.read(fd, 1)
    except BlockingIOError:
        return b""


def forget(root: str, container_id: str, cgroup: str) -> None:
    """Remove what the runtime keeps of a container that has ended, and its cgroup with whatever is still in it.

    What `delete` of runc does, without starting it: this is done once for each restart and each removal.
    """
    if not cgroups.remove(cgroup, seconds=0.02):
        cgroups.kill(cgroup, seconds=2.0)
        cgroups.remove(cgroup, seconds=2.0)
    folder = f"{root}/{container_id}"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)


def is_waiting(root: str, container_id: str) -> bool:
    """Whether a container was created and never started: runc's fifo for the start is still there."""
    return os.path.exists(f"{root}/{container_id}/exec.fifo")


def choose_words(output: str) -> str:
    """The runtime's own words out of its output: the last line, without the log's dressing."""
    lines = [line for line in output.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    words = lines[-1]
    if 'msg="' in words:
        words = words.split('msg="', 1)[1].rsplit('"', 1)[0].replace('\\"', '"')
    return words.strip()


def words_of(error: Exception) -> str:
    """What a failed launch said: the runtime's words or the kernel's."""
    if isinstance(error, RuntimeFailed):
        return error.words
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename2 or error.filename}" if error.filename else error.strerror
    return str(error)


def exit_code_of(words: str) -> int:
    """The exit code that shells and Docker give for a command that can't be run: 127 not found, 126 not executable, 125
    for everything else."""
    if "executable file not found" in words or "no such file or directory" in words:
        return 127
    if "permission denied" in words or "exec format error" in words or "is a directory" in words:
        return 126
    return 125
