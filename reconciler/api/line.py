"""One connection of a client to the API: the little of HTTP/1.1 (RFC 9112) that our server speaks, both ways at once.

client.py makes requests of it. Imports the standard library, msgspec and the model only.
"""

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from signal import SIGINT, SIGWINCH
from typing import Any

import msgspec

from reconciler.api import frames
from reconciler.model.errors import Failed

MOST_HEAD = 64 << 10
MOST_BODY = 512 << 20
"""Bytes of one answer, or of one line of it."""
_PIECE = 1 << 16
"""Bytes of input that are sent at once."""


class HungUp(Failed):
    """Whoever was to answer has hung up."""


def _no_size() -> tuple[int, int] | None:
    return None


def _no_bell(begun: frames.Begun) -> int:  # noqa: ARG001 the signature of `begun`
    return -1


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The streams of a call at this end: descriptors."""

    stdin: int = -1
    """What is passed on once somebody reads it; -1: nothing."""
    stdout: int = 1
    stderr: int = 2
    begun: Callable[[frames.Begun], int] = _no_bell
    """Called once it runs. Gives a descriptor on which the numbers of signals come, a byte each, that are passed on;
    SIGWINCH there says that the size of the terminal is another. -1 for none."""
    size: Callable[[], tuple[int, int] | None] = _no_size
    """Rows and columns of our terminal."""


class Line:
    """One connection, for one request."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.cancel: Callable[[], None] | None = None
        """What the first Ctrl-C does; the next one raises KeyboardInterrupt."""
        self._unsent = bytearray()
        self._input = -1
        """What is read of this descriptor is sent while we wait; -1: of none."""
        self._bell = -1
        """As that of `Ends`."""
        self._size = _no_size
        self._pressed = -1
        """A byte comes here at each Ctrl-C; -1: it raises KeyboardInterrupt wherever it comes."""
        self._patience: float | None = None
        """Seconds of silence that are waited."""

    def close(self) -> None:
        """Hang up."""
        self._sock.close()

    def send(self, *parts: bytes) -> None:
        """Send all of it. What nobody takes is no error: the answer says why."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._sock.sendall(b"".join(parts))

    def send_chunk(self, data: bytes) -> None:
        """Send a part of a body whose length nobody knows; nothing ends it."""
        self.send(_render_chunk(data))

    def begin(self, begun: frames.Begun, ends: Ends, *, interrupts: bool) -> None:
        """From now on pass on what comes at our ends; `interrupts` says that Ctrl-C is too."""
        self._bell, self._size = ends.begun(begun), ends.size
        self._input = ends.stdin if begun.stdin else -1
        if interrupts:
            self.cancel = Interrupted(self)
        if begun.tty:
            self._send_size()  # It may be another since we asked.

    def _send_size(self) -> None:
        size = self._size()
        if size is not None:
            self.send_later(frames.encode(frames.Resize(rows=size[0], columns=size[1])) + b"\n")

    def send_later(self, data: bytes) -> None:
        """The same, while we wait."""
        self._unsent += _render_chunk(data)

    def read_head(self, seconds: float) -> tuple[int, dict[str, str]]:
        """Status and headers, by small names. Raises TimeoutError, after which it may be called again."""
        self._sock.settimeout(None)
        self._patience = seconds
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MOST_HEAD:
                raise _garbled()
            self._more()
        self._patience = None
        text = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 4]
        first, *rest = text.split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise _garbled()
        pairs = (line.partition(":") for line in rest)
        return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    def read_body(self, headers: Mapping[str, str]) -> bytes:
        """All of the body."""
        return b"".join(self._read_pieces(headers))

    def read_lines(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        """The body's lines as they come."""
        rest = b""
        for piece in self._read_pieces(headers):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            if len(rest) > MOST_BODY:
                raise _garbled()

    def _read_pieces(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._read_chunks()
            return
        size = int(headers.get("content-length", "0"))
        if size > MOST_BODY:
            raise _garbled()
        yield self._take(size)

    def _read_chunks(self) -> Iterator[bytes]:
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._more()
            size = int(bytes(self._buffer[:end]).partition(b";")[0], 16)
            if size > MOST_BODY:
                raise _garbled()
            del self._buffer[: end + 2]
            data = self._take(size + 2)[:-2]
            if not size:
                return
            yield data

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _more(self) -> None:
        self._wait()
        try:
            data = self._sock.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        if not data:
            raise hung_up()
        self._buffer += data

    def _wait(self) -> None:
        """Until something is to be received. Meanwhile input is sent: whoever is slow to read us is read from all the same.
        Raises TimeoutError."""
        while True:
            reads: list[Any] = [self._sock, *(number for number in (self._pressed, self._bell) if number >= 0)]
            if self._input >= 0 and not self._unsent:
                reads.append(self._input)
            ready, able, _ = select.select(reads, [self._sock] if self._unsent else [], [], self._patience)
            if not (ready or able):
                raise TimeoutError
            if able:
                with suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                    del self._unsent[: self._sock.send(self._unsent, socket.MSG_DONTWAIT)]
            if self._pressed in ready:
                os.read(self._pressed, 1)
                self._interrupt()
            if self._bell in ready:
                self._hear_bell()
            if self._sock in ready:
                return
            if self._input in ready:
                self._read_input()

    def _read_input(self) -> None:
        try:
            data = os.read(self._input, _PIECE)
        except BlockingIOError:  # Somebody who shares it was faster.
            return
        except OSError:  # Our terminal has gone.
            data = b""
        self.send_later(frames.encode(frames.Input(data=data)) + b"\n")
        self._input = self._input if data else -1

    def _hear_bell(self) -> None:
        for number in os.read(self._bell, 4096):
            if number == SIGWINCH:
                self._send_size()
            else:
                self.send_later(frames.encode(frames.Signal(number=number)) + b"\n")

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Ctrl-C is heard while we wait, and not wherever it comes: an exception out of a read may lose what was read.

        Only where it would raise KeyboardInterrupt in this thread. So it does at the third all the same, and afterwards,
        where somebody has put our handler back.
        """
        usual = signal.getsignal(SIGINT) is signal.default_int_handler
        if not usual or threading.current_thread() is not threading.main_thread():
            yield
            return
        left = [b"x", b"x"]
        self._pressed, ring = os.pipe2(os.O_CLOEXEC)

        def press(*_: object) -> None:
            if not left:
                raise KeyboardInterrupt
            os.write(ring, left.pop())

        signal.signal(SIGINT, press)
        try:
            yield
        finally:
            left.clear()
            if signal.getsignal(SIGINT) is press:
                signal.signal(SIGINT, signal.default_int_handler)
            os.close(self._pressed)
            os.close(ring)
            self._pressed = -1

    def _interrupt(self) -> None:
        """Ctrl-C was pressed. Raises KeyboardInterrupt where that is to end us."""
        cancel = self.cancel
        if not isinstance(cancel, Interrupted):
            self.cancel = None
        if cancel is None:
            raise KeyboardInterrupt
        cancel()


class Interrupted:
    """What Ctrl-C does to a command: a signal, each time."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __call__(self) -> None:
        """Send SIGINT, behind what is to be sent yet."""
        self._line.send_later(frames.encode(frames.Signal(number=2)) + b"\n")


def _render_chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


def hung_up() -> HungUp:
    """What is said of it."""
    hint = "what was begun is taken up by the next apply; `reconcile status` says how it stands"
    return HungUp("the controller hung up", hint=hint)


def _garbled() -> Failed:
    return Failed("what answers at the socket does not speak HTTP as our controller does", hint="is it another program?")
