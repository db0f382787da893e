"""Runs a command with a terminal in a container that runs: we hold the terminal's other end and pass everything through.

inside.py calls it. The runtime makes the terminal and hands its master over a socket (`--console-socket`); it does not copy
itself, for runc's copying (1.1.5) keeps the end of an output that nothing follows: a prompt that comes with the next key.
"""

import errno
import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from reconciler.engine.native.runtime import exec as execution
from reconciler.engine.native.runtime import runc
from reconciler.engine.native.runtime.attach import listen, write_all
from reconciler.linux import process, terminal
from reconciler.linux.orphans import AdoptingOrphans

_LARGEST = 65_536
_END = b"\x04"
"""What a terminal takes for the end of the input (termios(3), VEOF)."""


def run_on_terminal(path: str, monitor: Mapping[str, Any], wanted: Mapping[str, Any]) -> int:
    """Run it with our stdin and stdout behind its terminal, which has the size of ours. Its exit code, or 127, 126, 125 as
    `exec.run_attached` gives them."""
    with execution.Files(path, wanted) as given, AdoptingOrphans():
        command = [monitor["runtime"], "--root", monitor["runtime_root"], "--log", given.log, "exec", "--detach"]
        command += ["--process", given.process, "--pid-file", given.pid]
        with _console_socket(path) as (listening, name):
            runtime = process.spawn([*command, "--console-socket", name, monitor["id"]], env=runc.RUNTIME_ENV, cwd="/")
            master = _receive_master(listening, runtime)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(runtime, 0)[1])
            if code or master < 0:
                return execution.choose_code(code or 1, given.read_log())
            # Order: it is ours to reap, so that the pid is its own until then.
            pid = int(Path(given.pid).read_text(encoding="ascii"))
            _pass_through(master, pid)
        finally:
            if master >= 0:
                os.close(master)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 128 - code if code < 0 else code


@contextmanager
def _console_socket(path: str) -> Iterator[tuple[socket.socket, str]]:
    """A socket in the bundle, by a name that is short enough for any bundle (unix(7): 108 bytes)."""
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    name = f"/proc/{os.getpid()}/fd/{folder}/new-console-{os.urandom(6).hex()}.sock"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listening:
            listening.bind(name)
            listening.listen(1)
            yield listening, name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        os.close(folder)


def _receive_master(listening: socket.socket, runtime: int) -> int:
    """The terminal's master, with the size of our own; -1 where the runtime ended without giving one."""
    pidfd = os.pidfd_open(runtime)  # ours to reap still, so the pid is its own
    try:
        poll = select.poll()
        poll.register(listening, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        if all(fd != listening.fileno() for fd, _ in poll.poll()):
            return -1
    finally:
        os.close(pidfd)
    with listening.accept()[0] as given:
        _, descriptors, _, _ = socket.recv_fds(given, 4096, 1)
    for master in descriptors[:1]:
        os.set_blocking(master, False)
        # Order: before the command begins, for it may ask for the size at once.
        terminal.write_size(master, terminal.read_size(0, 1, 2))
        return master
    return -1


def _pass_through(master: int, pid: int) -> None:
    """Everything between our ends and the terminal, until the command has ended and all that it wrote is read."""
    with ExitStack() as held:
        bell = held.enter_context(listen(passed_on=False, sizes=True))
        if os.isatty(0):
            held.enter_context(terminal.raw(0))
        pidfd = os.pidfd_open(pid)
        held.callback(os.close, pidfd)
        pump = _Pump(master, pidfd, bell)
        while pump.turn():
            continue


class _Pump:
    def __init__(self, master: int, pidfd: int, bell: int) -> None:
        self._master = master
        self._pidfd = pidfd
        self._bell = bell
        self._typing = True
        self._pending = b""

    def turn(self) -> bool:
        """Wait for something and pass it through; False when it is over."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._pending else 0))
        poll.register(self._pidfd, select.POLLIN)
        if self._typing and not self._pending:
            poll.register(0, select.POLLIN)
        if self._bell >= 0:
            poll.register(self._bell, select.POLLIN)
        ready = dict(poll.poll())
        if self._bell in ready:
            os.read(self._bell, 4096)
            terminal.write_size(self._master, terminal.read_size(0, 1, 2))
        if 0 in ready:
            self._read_keys()
        if ready.get(self._master, 0) & select.POLLOUT:
            self._write_keys()
        # What is left in the terminal is read before the end counts; who keeps it open in the background is not waited for.
        more = self._master in ready and self._show()
        return more or self._pidfd not in ready

    def _show(self) -> bool:
        """Pass on what was written; False where there is nothing just now."""
        try:
            data = os.read(self._master, _LARGEST)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # Kernel: nobody has the other end open any more. The command is about to end, or runs without its terminal.
            _wait(self._pidfd)
            return False
        write_all(1, data)
        return True

    def _read_keys(self) -> None:
        try:
            data = os.read(0, _LARGEST)
        except OSError:  # Our own terminal has gone.
            data = b""
        self._typing = bool(data)
        self._pending = data or _END
        self._write_keys()

    def _write_keys(self) -> None:
        try:
            self._pending = self._pending[os.write(self._master, self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""


def _wait(pidfd: int) -> None:
    select.select([pidfd], [], [])
