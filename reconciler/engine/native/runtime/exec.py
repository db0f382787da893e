"""Runs a command in a container that runs, by the runtime's exec: with our terminal, our streams, or bounded and captured.

inside.py calls it with the process object that `render_process` made. What runs inside joins the container's cgroup,
namespaces, capabilities and filter; the runtime's own program stays in ours.
"""

import os
import posixpath
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconciler.engine.native.runtime import runc
from reconciler.engine.native.runtime.spec import choose_workdir, render_capabilities, render_user
from reconciler.engine.native.runtime.users import Identity
from reconciler.engine.protocol import Begun, Streams
from reconciler.linux import cgroups, process
from reconciler.linux.hangup import HangUp

FILES = "new-exec-"
_KILL_SECONDS = 2.0
HANG_UP_SECONDS = 5.0
"""Within which a command ends by SIGHUP that nobody is there for any more; then it is killed."""
_CAPTURED = 4096
"""Bytes of a health check's output that are kept, as in Docker: the last ones."""


def render_process(
    config: Mapping[str, Any],
    command: Sequence[str],
    identity: Identity | None,
    *,
    tty: bool,
    workdir: str,
    env: Mapping[str, str],
) -> dict[str, Any]:
    """The OCI process of an exec: the container's own with another command, and what is given beside it. Pure.

    `config` is the container's config.json; `identity` None is the container's own user.
    """
    own = config["process"]
    variables = dict(entry.partition("=")[::2] for entry in own["env"])
    if tty:
        variables.setdefault("TERM", "xterm")
    if identity is not None:
        variables["HOME"] = identity.home
    variables |= env
    user = own["user"] if identity is None else render_user(identity)
    return {
        **own,
        "terminal": tty,
        "user": user,
        "capabilities": render_capabilities(own["capabilities"]["bounding"], uid=user["uid"]),
        "args": list(command),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": choose_workdir(posixpath.join(own["cwd"], workdir)) if workdir else own["cwd"],
    }


def run_attached(
    path: str, monitor: Mapping[str, Any], wanted: Mapping[str, Any], *, stdin: bool, streams: Streams | None = None
) -> int:
    """Run it with our stdout, stderr and, if asked, stdin, or with other `streams`; without a terminal (`execterm.py`).

    The exit code is the command's own; 127 and 126 where it can't be found or executed, 125 for the runtime's failures.
    """
    # Where we are killed the runtime's program gets SIGHUP, which it passes on.
    with Files(path, wanted) as given, HangUp() as hang_up:
        command = [monitor["runtime"], "--root", monitor["runtime_root"], "--log", given.log, "exec"]
        command += ["--process", given.process, "--pid-file", given.pid, monitor["id"]]
        reads = subprocess.DEVNULL if not stdin else streams.stdin if streams else None
        out, err = (streams.stdout, streams.stderr) if streams else (None, None)
        child = subprocess.Popen(
            command, stdin=reads, stdout=out, stderr=err, env=runc.RUNTIME_ENV, cwd="/", pass_fds=(hang_up.read_end,)
        )
        hang_up.send_to(child.pid)

        def send_signal(number: int) -> None:
            if number != signal.SIGKILL:
                child.send_signal(number)
            elif child.poll() is None:
                _kill_command(child.pid, given.pid)

        if streams is not None:
            streams.begun(Begun(stdin=stdin, send_signal=send_signal))
        code = _wait_through_interrupts(child)
        return choose_code(code, given.read_log())


def _wait_through_interrupts(child: "subprocess.Popen[bytes]") -> int:
    """Ctrl-C reaches the command by itself (the terminal's process group); we go on waiting for how it takes it."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)


def choose_code(code: int, words: str) -> int:
    """The exit code of an exec from that of the runtime's program and what it said: its own, 127, 126 or 125."""
    if words and code in (1, 255, -1):
        return runc.exit_code_of(words)
    return 128 - code if code < 0 else code


def run_captured(
    path: str, monitor: Mapping[str, Any], wanted: Mapping[str, Any], *, timeout: float
) -> tuple[int | None, str]:
    """Run it with nothing to read: its exit code and the end of what it printed. None when it took longer than `timeout`
    seconds. Whatever it started is killed when it ends."""
    with Files(path, wanted) as given, _Fence(monitor) as fence:
        command = [monitor["runtime"], "--root", monitor["runtime_root"], "--log", given.log, "exec", *fence.words]
        command += ["--process", given.process, "--pid-file", given.pid, monitor["id"]]
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                pid = process.spawn(command, env=runc.RUNTIME_ENV, cwd="/", fds={1: write_end, 2: write_end})
            finally:
                os.close(write_end)
            done, output = _read_until(read_end, pid, deadline=time.monotonic() + timeout)
            if not done:
                _kill_command(pid, given.pid)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        finally:
            os.close(read_end)
        if not done:
            return None, output
        words = given.read_log()
        return choose_code(code, words), output or words


class _Fence:
    """A cgroup of its own for one command, below the container's: what the command started ends with the block, whatever
    session or parent it has given itself.

    `words` are for the runtime. Empty for runtimes that can't be told; there only the command itself is killed.
    """

    def __init__(self, monitor: Mapping[str, Any]) -> None:
        self._cgroup: str = monitor["cgroup"]
        self._fences = posixpath.basename(monitor["runtime"]) == "runc"
        self._folder = ""
        self.words: tuple[str, ...] = ()

    def __enter__(self) -> "_Fence":
        if self._fences:
            name = f"exec-{secrets.token_hex(6)}"
            self._folder = cgroups.create_child(self._cgroup, name)
            self.words = ("--cgroup", name if cgroups.is_v2() else f"pids:{name}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            # What is paused just now can't die: it goes with the container's cgroup.
            cgroups.end_child(self._folder, seconds=_KILL_SECONDS)


def _read_until(read_end: int, pid: int, *, deadline: float) -> tuple[bool, str]:
    """Whether the runtime's program ended before the deadline, and the end of the output.

    A command may leave a child that keeps the pipe open: the end of the program counts, not that of the pipe.
    """
    pidfd = os.pidfd_open(pid)
    output = b""
    try:
        while (left := deadline - time.monotonic()) > 0:
            ended = process.wait_readable(pidfd, seconds=0)
            if process.wait_readable(read_end, seconds=0 if ended else min(left, 0.05)):
                chunk = os.read(read_end, 65_536)
                output = (output + chunk)[-_CAPTURED:]
                if chunk:
                    continue
                ended = process.wait_readable(pidfd, seconds=deadline - time.monotonic())
            if ended:
                return True, output.decode("utf-8", "replace")
    finally:
        os.close(pidfd)
    return False, output.decode("utf-8", "replace")


def _kill_command(runtime_pid: int, pid_file: str) -> None:
    """Kill the command inside with what it started, then the runtime's program. Order: the pid file is only true while that
    program waits."""
    try:
        inner = int(Path(pid_file).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        inner = 0
    if inner and _parent_of(inner) == runtime_pid:
        process.kill_tree(inner)
        # Its parent ends by itself then, unless the container is paused.
        pidfd = os.pidfd_open(runtime_pid)  # ours to reap still, so the pid is its own
        try:
            if process.wait_readable(pidfd, seconds=_KILL_SECONDS):
                return
        finally:
            os.close(pidfd)
    os.kill(runtime_pid, signal.SIGKILL)


def _parent_of(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(text.rpartition(b")")[2].split()[1])


def end_abandoned(path: str, monitor: Mapping[str, Any]) -> Iterator[int]:
    """Kill what was run in the container at `path` for processes that were killed, and remove the files of that. The pids
    of what still ran."""
    for file in sorted(Path(path).glob(f"{FILES}*.json")):
        words = file.stem.removeprefix(FILES).split("-")
        if len(words) != 3 or not (words[0] + words[1]).isdigit() or process.is_alive(int(words[0]), int(words[1])):
            continue
        if pid := _find_abandoned(file.with_suffix(".pid"), monitor):
            process.kill_tree(pid)
            yield pid
        for name in (".log", ".pid", ".json"):
            file.with_suffix(name).unlink(missing_ok=True)


def _find_abandoned(file: Path, monitor: Mapping[str, Any]) -> int:
    """The pid in a file that the runtime wrote, if it is that process still: in the container, and begun before the file;
    else 0."""
    try:
        pid, written = int(file.read_text(encoding="ascii")), file.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return 0
    started = time.time() - process.read_age(process.read_start_time(pid))
    within = monitor["cgroup"] in cgroups.parse_places(cgroups.read_places(pid))
    return pid if within and started <= written + _KILL_SECONDS else 0


class Files:
    """The three small files of one exec, in the bundle, for the time of a `with` block. Their names say whose they are."""

    def __init__(self, path: str, wanted: Mapping[str, Any]) -> None:
        ours = os.getpid()
        stem = f"{path}/{FILES}{ours}-{process.read_start_time(ours)}-{secrets.token_hex(6)}"
        self.process, self.log, self.pid = f"{stem}.json", f"{stem}.log", f"{stem}.pid"
        self._wanted = wanted

    def __enter__(self) -> "Files":
        fd = os.open(self.process, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(self._wanted))
        return self

    def __exit__(self, *_: object) -> None:
        for path in (self.process, self.log, self.pid):
            Path(path).unlink(missing_ok=True)

    def read_log(self) -> str:
        """What the runtime said went wrong."""
        try:
            return runc.choose_words(Path(self.log).read_text(errors="replace"))
        except FileNotFoundError:
            return ""
