"""A line to a container's first process, over the attach socket of its conmon: streams, terminal, signals, the exit.

inside.py opens it. Each packet of the socket is a byte that says the stream and what was written there; what we send is its
standard input, and the end of our sending is the end of that. Source: conmon's conn_sock.c. Never starts or stops anything.
"""

import errno
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from reconciler.engine.native.runtime import bundle, status
from reconciler.engine.protocol import LET_GO, Attached, Begun, Streams
from reconciler.linux import process, terminal
from reconciler.model.errors import Failed
from reconciler.model.key import Key

_PACKET = 8192
"""Bytes that are sent at once; conmon takes 32 KiB."""
_LARGEST = 65_536
"""More than any packet of conmon's."""
_STDERR = 3
"""The first byte of what was written to standard error; everything else is standard output (or the terminal)."""
_SHORT, _LONG = 0.001, 0.02
"""Seconds between looks for the exit file, which conmon writes a moment after the end."""


class NativeLine:
    """An open line. What the container writes waits in the socket until `relay`."""

    def __init__(self, path: str, key: Key, monitor: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        self._path = path
        self._key = key
        self._monitor = monitor
        self._state = dict(state)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            _connect(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise Failed(
                f"{key}: attach: its monitor does not answer: {error.strerror}", hint=f"reconcile restart {key}"
            ) from error
        # Order: before it begins, for it may ask for the size at once.
        self.resize(read_own_size())

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def relay(self, *, stdin: bool, keys: bytes = b"", signals: bool = True, streams: Streams | None = None) -> Attached:
        """Pass everything through until it ends or is let go."""
        tty = bool(self._monitor["tty"])
        with ExitStack() as held:
            if streams is None:
                keys = keys if stdin and os.isatty(0) else b""
                streams = held.enter_context(own_streams(passed_on=signals, tty=tty, raw=stdin))
            pidfd = process.open_pidfd(self._state["pid"], self._state["start_time"])
            if pidfd >= 0:
                held.callback(os.close, pidfd)
            self.resize(streams.size())
            streams.begun(Begun(tty=tty, stdin=stdin))
            return _Pump(self, self._socket, streams, pidfd=pidfd, stdin=stdin, keys=keys if tty else b"").run()

    def resize(self, size: tuple[int, int] | None) -> None:
        """Give its terminal this size."""
        if size is None or not self._monitor["tty"]:
            return
        with suppress(OSError):  # no monitor reads any more
            fd = os.open(f"{self._path}/{bundle.CTL}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(fd, f"1 {size[0]} {size[1]}\n".encode())
            finally:
                os.close(fd)

    def pass_on(self, number: int) -> None:
        """Send it a signal."""
        process.send_signal(self._state["pid"], self._state["start_time"], number)

    def read_exit(self) -> int | None:
        """The exit code once it is written down. Raises Failed where it never will be."""
        ended = status.read_exit(self._path, self._monitor, self._state)
        if ended:
            return int(ended["code"])
        if not bundle.read_json(self._path, bundle.MONITOR):
            raise Failed(f"{self._key}: it was removed by somebody else", hint="`reconcile events` tells by whom")
        # Race: it may have written the code between the two looks.
        if not status.is_followed(self._state) and not status.read_exit(self._path, self._monitor, self._state):
            raise Failed(f"{self._key}: it ended, and its monitor too: nobody saw its exit code")
        return None


def _connect(sock: socket.socket, path: str) -> None:
    """By a name that is short enough for any bundle (unix(7): 108 bytes)."""
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{bundle.ATTACH}")
    finally:
        os.close(folder)


class _Pump:
    """Everything between our ends and the container's, until one is through."""

    def __init__(
        self, line: NativeLine, sock: socket.socket, streams: Streams, *, pidfd: int, stdin: bool, keys: bytes
    ) -> None:
        self._line = line
        self._socket = sock
        self._streams = streams
        self._pidfd = pidfd
        self._stdin = stdin
        self._keys = _Keys(keys)
        self._pending = b""
        self._listening = True
        self._alive = pidfd >= 0

    def run(self) -> Attached:
        """Until it ended, was let go, or nobody reads it."""
        pause = _SHORT
        try:
            while True:
                if not self._alive:
                    code = self._line.read_exit()
                    if code is not None:
                        self._drain()
                        return Attached(exit_code=code)
                if self._turn(None if self._alive else pause):
                    return Attached()
                pause = min(pause * 2, _LONG) if not self._alive else _SHORT
        except BrokenPipeError:
            return Attached(unread=True)

    def _turn(self, seconds: float | None) -> bool:
        """Wait for something and pass it through; True where it was let go."""
        poll = select.poll()
        if self._listening:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._pending else 0))
        if self._stdin and not self._pending:
            poll.register(self._streams.stdin, select.POLLIN)
        if self._alive:
            poll.register(self._pidfd, select.POLLIN)
        if self._streams.bell >= 0:
            poll.register(self._streams.bell, select.POLLIN)
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            if fd == self._socket.fileno():
                self._serve(events)
            elif fd == self._pidfd:
                self._alive = False
            elif fd == self._streams.bell:
                if self._hear_bell():
                    return True
            elif fd == self._streams.stdin and self._read_stdin():
                return True
        return False

    def _hear_bell(self) -> bool:
        """Whether it said that it is let go. Raises BrokenPipeError where nobody is there any more."""
        numbers = os.read(self._streams.bell, 4096)
        if not numbers:
            raise BrokenPipeError
        for number in numbers:
            if number == LET_GO:
                return True
            if number == signal.SIGWINCH:
                self._line.resize(self._streams.size())
            else:
                self._line.pass_on(number)
        return False

    def _serve(self, events: int) -> None:
        if events & select.POLLOUT:
            self._send()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._receive()

    def _receive(self) -> bool:
        """One packet, if there is one: True when there was."""
        try:
            packet = self._socket.recv(_LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            packet = b""
        if not packet:
            self._listening = False
            return False
        write_all(self._streams.stderr if packet[0] == _STDERR else self._streams.stdout, packet[1:])
        return True

    def _drain(self) -> None:
        """Order: conmon writes the exit file when it has passed on all that was written, so that nothing comes any more."""
        while self._listening and self._receive():
            continue

    def _read_stdin(self) -> bool:
        try:
            data = os.read(self._streams.stdin, _PACKET)
        except BlockingIOError:  # Somebody who shares it was faster.
            return False
        except OSError:  # The terminal has gone.
            data = b""
        if not data:
            self._stdin = False
            self._end_stdin()
            return False
        self._pending, let_go = self._keys.take(data)
        self._send()
        return let_go

    def _send(self) -> None:
        """As much of what was typed as the monitor takes now. Never waits: it may be waiting for us to read."""
        try:
            while self._pending:
                sent = self._socket.send(self._pending[:_PACKET], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                self._pending = self._pending[sent:]
        except BlockingIOError:
            return
        except OSError:  # It reads no more.
            self._pending = b""
            self._stdin = False

    def _end_stdin(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)


class _Keys:
    """Looks for the keys that let go in what is typed; what only begins like them is held back until the next key."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What is passed on, and whether the keys are complete."""
        if not self._keys:
            return data, False
        out = bytearray()
        for number in data:
            if number != self._keys[len(self._held)]:
                out += self._held
                self._held = b""
            if number != self._keys[len(self._held)]:
                out.append(number)
                continue
            self._held += bytes([number])
            if self._held == self._keys:
                return bytes(out), True
        return bytes(out), False


def write_all(fd: int, data: bytes) -> None:
    """All of it, also where somebody made our output non-blocking. Raises BrokenPipeError where nobody reads it, Failed for
    a disk that is full."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            if error.errno == errno.EIO:  # Kernel: of a terminal that hung up.
                raise BrokenPipeError from error
            raise Failed(f"write the output: {error.strerror}", hint="it goes on; its log has all of it") from error


@contextmanager
def own_streams(*, passed_on: bool, tty: bool, raw: bool) -> Iterator[Streams]:
    """Those of this process: `passed_on` says whether signals are, `tty` that there is a terminal at the other end, for
    which ours is raw (where keys go through it) and has its size followed."""
    with ExitStack() as held:
        bell = held.enter_context(terminal.listen(passed_on=passed_on, sizes=tty))
        if tty and raw:
            held.enter_context(terminal.raw(0))
        yield Streams(stdin=0, stdout=1, stderr=2, bell=bell, size=read_own_size, begun=lambda _: None)


def read_own_size() -> tuple[int, int] | None:
    """Rows and columns of our terminal, where we have one."""
    return terminal.read_size(0, 1, 2)
