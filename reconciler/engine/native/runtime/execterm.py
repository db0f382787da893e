"""Runs a command with a terminal in a container that runs: we hold the terminal's other end and pass everything through.

inside.py calls it. The runtime makes the terminal and hands its master over a socket (`--console-socket`); it does not copy
itself, for runc's copying (1.1.5) keeps the end of an output that nothing follows: a prompt that comes with the next key.
"""

import errno
import os
import select
import socket
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from reconciler.engine.native.runtime import exec as execution
from reconciler.engine.native.runtime import runc
from reconciler.engine.native.runtime.attach import own_streams, read_own_size, write_all
from reconciler.engine.protocol import LET_GO, Begun, Streams
from reconciler.linux import process, terminal
from reconciler.linux.orphans import AdoptingOrphans

_LARGEST = 65_536
_END = b"\x04"
"""What a terminal takes for the end of the input (termios(3), VEOF)."""


def run_on_terminal(
    path: str, monitor: Mapping[str, Any], wanted: Mapping[str, Any], *, stdin: bool, streams: Streams | None = None
) -> int:
    """Run it with our stdin (if asked) and stdout behind its terminal, which has the size of ours; or with other `streams`.
    Its exit code, or 127, 126, 125 as `exec.run_attached` gives them."""
    with ExitStack() as held, execution.Files(path, wanted) as given:
        with AdoptingOrphans() as orphans:
            command = [monitor["runtime"], "--root", monitor["runtime_root"], "--log", given.log, "exec", "--detach"]
            command += ["--process", given.process, "--pid-file", given.pid]
            with _console_socket(path) as (listening, name):
                runtime = process.spawn([*command, "--console-socket", name, monitor["id"]], env=runc.RUNTIME_ENV, cwd="/")
                master = _receive_master(listening, runtime, streams.size() if streams else read_own_size())
            if master >= 0:
                held.callback(os.close, master)
            code = os.waitstatus_to_exitcode(os.waitpid(runtime, 0)[1])
            if code or master < 0:
                return execution.choose_code(code or 1, given.read_log())
            # Order: it is ours to reap, so that the pid is its own until it is.
            pid = int(Path(given.pid).read_text(encoding="ascii"))
            orphans.keep(pid)
        pidfd = os.pidfd_open(pid)
        held.callback(os.close, pidfd)
        there = False
        try:
            there = _pass_through(master, pidfd, stdin=stdin, streams=streams)
        finally:
            if not there:
                _end(master, pid, pidfd)
            code = orphans.reap(pid)
        return 128 - code if code < 0 else code


def _end(master: int, pid: int, pidfd: int) -> None:
    """Nobody is there any more: its terminal hangs up, and what does not end by that is killed."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), master, inheritable=False)
    if not process.wait_readable(pidfd, seconds=execution.HANG_UP_SECONDS):
        process.kill_tree(pid)  # ours to reap still, so the pid is its own


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


def _receive_master(listening: socket.socket, runtime: int, size: tuple[int, int] | None) -> int:
    """The terminal's master, with this size; -1 where the runtime ended without giving one."""
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
        # Race: not socket.recv_fds, which drops its flags: what another thread starts would keep the terminal open.
        _, ancillary, _, _ = given.recvmsg(4096, socket.CMSG_LEN(array("i").itemsize), socket.MSG_CMSG_CLOEXEC)
    for _, _, data in ancillary:
        [master] = array("i", data)
        os.set_blocking(master, False)
        # Order: before the command begins, for it may ask for the size at once.
        terminal.write_size(master, size)
        return master
    return -1


def _pass_through(master: int, pidfd: int, *, stdin: bool, streams: Streams | None) -> bool:
    """Everything between our ends and the terminal, until the command has ended and all that it wrote is read; False where
    nobody is there any more."""
    with ExitStack() as held:
        if streams is None:
            streams = held.enter_context(own_streams(passed_on=False, tty=True, raw=True))
        terminal.write_size(master, streams.size())
        streams.begun(Begun(tty=True, stdin=stdin))
        pump = _Pump(master, pidfd, streams, stdin=stdin)
        while pump.turn():
            continue
        return not pump.let_go


class _Pump:
    def __init__(self, master: int, pidfd: int, streams: Streams, *, stdin: bool) -> None:
        self._master = master
        self._pidfd = pidfd
        self._streams = streams
        self._typing = stdin
        self._pending = b""
        self.let_go = False
        """Whether nobody is there any more."""

    def turn(self) -> bool:
        """Wait for something and pass it through; False when it is over."""
        poll = select.poll()
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._pending else 0))
        poll.register(self._pidfd, select.POLLIN)
        if self._typing and not self._pending:
            poll.register(self._streams.stdin, select.POLLIN)
        if self._streams.bell >= 0:
            poll.register(self._streams.bell, select.POLLIN)
        ready = dict(poll.poll())
        if self._streams.bell in ready:
            numbers = os.read(self._streams.bell, 4096)
            if not numbers or LET_GO in numbers:
                self.let_go = True
                return False
            terminal.write_size(self._master, self._streams.size())
        if self._streams.stdin in ready:
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
        write_all(self._streams.stdout, data)
        return True

    def _read_keys(self) -> None:
        try:
            data = os.read(self._streams.stdin, _LARGEST)
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
