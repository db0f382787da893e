"""The streams of a call at the other end of a socket: passed on both ways, with signals and the size of a terminal.

One thread copies, bounded both ways, between the frames of the call and pipes; what is at the other end of the pipes (a
command, a container, a tar) is the business of the thread that answers.
"""

import asyncio
import os
import selectors
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from reconciler.api import frames
from reconciler.api.frames import AnyInput, Input, Output, Resize, Signal
from reconciler.api.sessions import Session, Terminal
from reconciler.engine.protocol import LET_GO, Begun, Streams

MOST_LINE = 1 << 20
"""Bytes of one line of a body that comes in lines."""
_LARGEST = 65_536
_MOST_INPUT = 1 << 20
"""Bytes of input that wait until they are read."""
_GRACE = 5.0
"""Seconds that a command has to end by SIGHUP once nobody is there any more."""
_decode = msgspec.json.Decoder(AnyInput).decode


class Pump:
    """The streams of one call. Made on the event loop, which feeds it."""

    def __init__(self, ask: Session, put: Callable[[frames.AnyFrame], None]) -> None:
        self._put = put
        self._size = (ask.rows, ask.columns) if isinstance(ask, Terminal) else (0, 0)
        self._hears = isinstance(ask, Terminal)
        """Whether the bell is heard where there is no command to send a signal to."""
        self._loop = asyncio.get_running_loop()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._lock = threading.Lock()
        self._input: deque[bytes] = deque()
        self._waiting = 0
        self._no_more = False
        self._over = False
        self._leaving = False
        """Nobody is there any more, or is about to be."""
        self._ringing = threading.Lock()
        """Held while a descriptor is written to that another thread may close."""
        self._send_signal: Callable[[int], None] | None = None
        self._theirs: tuple[int, ...] = ()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._heard, self._bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="streams", daemon=True)

    # --- from the loop ---

    def take(self, line: bytes) -> bool:
        """One line: input, a signal, a size. False for what is none of these."""
        try:
            found = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return not line
        if isinstance(found, Signal):
            if 0 < found.number < 65:
                self._signal(found.number)
        elif isinstance(found, Resize):
            self._size = (found.rows, found.columns)
            self._signal(signal.SIGWINCH)
        else:
            self._take_input(found)
        return True

    def _take_input(self, found: Input) -> None:
        if not found.data:
            self.end_input()
            return
        with self._lock:
            self._input.append(found.data)
            self._waiting += len(found.data)
            if self._waiting > _MOST_INPUT:
                self._roomy.clear()
        self._ring()

    async def feed(self, receive: Callable[[], Awaitable[Any]], rest: bytes | None) -> bool:
        """Pass on what the body of a request brings (ASGI), a line each, no faster than it is read; `rest` is what came of
        it already, None: all. False where nobody is there any more."""
        more, rest = rest is not None, rest or b""
        while more:
            *lines, rest = rest.split(b"\n")
            if len(rest) > MOST_LINE or not all(self.take(line) for line in lines if line):
                break
            await self._roomy.wait()
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            rest += message.get("body", b"")
            more = message.get("more_body", False)
        self.take(rest)
        self.end_input()
        return True

    def end_input(self) -> None:
        """There is no more."""
        self._no_more = True
        self._ring()

    def let_go(self) -> None:
        """Whoever is there lets go: a command ends, a container goes on."""
        self._signal(LET_GO)
        self._leave()

    def hang_up(self) -> None:
        """Nobody is there any more: as let_go, but a container that is to be removed ends."""
        self._roomy.set()
        with self._ringing:
            if self._bell >= 0:
                os.close(self._bell)
            self._bell = -1
        self._leave()

    def _leave(self) -> None:
        self._leaving = True
        if not self._hears:
            self.end_input()
        if self._send_signal is not None:
            self._end_command()

    def _end_command(self) -> None:
        """As a terminal that closes ends it; what does not listen to that is killed."""
        self.end_input()
        self._signal(signal.SIGHUP)
        timer = threading.Timer(_GRACE, self._signal, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()

    def _signal(self, number: int) -> None:
        send = self._send_signal
        with suppress(OSError):
            if send is not None:
                if number != LET_GO:
                    send(number)
                return
            with self._ringing:
                if self._bell >= 0:
                    os.write(self._bell, bytes([number]))

    def _ring(self) -> None:
        """Have the thread look. Race: once it has closed this descriptor, the number may be of another file."""
        with suppress(BlockingIOError), self._ringing:
            if self._wake >= 0:
                os.write(self._wake, b"x")

    def _close_wake(self) -> None:
        with self._ringing:
            os.close(self._wake)
            self._wake = -1

    # --- from the thread that asked ---

    def run(self, work: Callable[[Streams], Any]) -> Any:
        """What `work` gives that is done with these streams, once all that was written to them was passed on."""
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (theirs_in, self._in), (self._out, theirs_out), (self._err, theirs_err) = ends
        self._theirs = (theirs_in, theirs_out, theirs_err)
        os.set_blocking(self._in, False)
        self._thread.start()
        try:
            return work(
                Streams(
                    stdin=theirs_in, stdout=theirs_out, stderr=theirs_err, bell=self._heard,
                    size=self._read_size, begun=self._begin,
                )
            )  # fmt: skip
        finally:
            self._close_theirs()
            self._send_signal = None
            self._over = True
            self._ring()
            self._thread.join()
            self.close()

    def close(self) -> None:
        """Drop what is open; what was never run has no thread to do it."""
        if not self._over and self._thread.ident is None:
            self._over = True
            os.close(self._woken)
            self._close_wake()
        self.hang_up()
        if self._heard >= 0:
            os.close(self._heard)
            self._heard = -1

    def _read_size(self) -> tuple[int, int] | None:
        return self._size if all(self._size) else None

    def _begin(self, begun: Begun) -> None:
        if begun.send_signal is not None:
            self._close_theirs()  # Order: once only the command has them, their ends mean its end.
            self._send_signal = begun.send_signal
            if self._leaving:
                self._end_command()
        self._put(frames.Begun(tty=begun.tty, stdin=begun.stdin))

    def _close_theirs(self) -> None:
        for number in self._theirs:
            os.close(number)
        self._theirs = ()

    # --- the thread that copies ---

    def _run(self) -> None:
        names = {self._out: "stdout", self._err: "stderr"}
        with selectors.DefaultSelector() as selector:
            for number in (*names, self._woken):
                selector.register(number, selectors.EVENT_READ)
            while names and not self._over:
                for found, _ in selector.select():
                    if found.fd in names:
                        if not self._pass_on(found.fd, names[found.fd]):
                            selector.unregister(found.fd)
                            del names[found.fd]
                    else:
                        self._give(selector)
            for number, name in names.items():  # The command has ended: what it left behind may hold its streams for ever.
                os.set_blocking(number, False)
                while self._pass_on(number, name):
                    pass
        self._close_wake()
        for number in (self._out, self._err, self._woken):
            os.close(number)
        if self._in >= 0:
            os.close(self._in)

    def _pass_on(self, number: int, name: str) -> bool:
        try:
            data = os.read(number, _LARGEST)
        except BlockingIOError:
            return False
        if data:
            self._put(Output(stream=name, data=data))
        return bool(data)

    def _give(self, selector: selectors.BaseSelector) -> None:
        """Write what the command takes of its input; it is watched while it takes no more."""
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)
        if self._in < 0:
            return
        blocked = not self._write()
        watched = self._in in selector.get_map()
        if blocked and not watched:
            selector.register(self._in, selectors.EVENT_WRITE)
        elif not blocked and watched:
            selector.unregister(self._in)
        if not blocked and self._no_more and not self._input:
            os.close(self._in)
            self._in = -1

    def _write(self) -> bool:
        """Whether all of it was taken; what nobody will ever read is dropped."""
        while self._input:
            try:
                count = os.write(self._in, self._input[0])
            except BlockingIOError:
                return False
            except BrokenPipeError:
                count = len(self._input[0])
            with self._lock:
                self._waiting -= count
                rest = self._input.popleft()[count:]
                if rest:
                    self._input.appendleft(rest)
            if self._waiting < _MOST_INPUT // 2 and not self._roomy.is_set():
                self._loop.call_soon_threadsafe(self._roomy.set)
        return True
