"""A command that runs in a container for somebody at the other end of a socket: its streams, passed on both ways.

One thread copies, bounded both ways; the command itself is waited for by the thread that asked for it.
"""

import asyncio
import os
import selectors
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from reconciler.api.answers import Opener
from reconciler.api.asks import Exec
from reconciler.api.frames import AnyInput, Output, Signal
from reconciler.engine.protocol import Streams
from reconciler.verbs import containers

_LARGEST = 65_536
_MOST_INPUT = 1 << 20
"""Bytes of input that wait until the command reads."""
_decode = msgspec.json.Decoder(AnyInput).decode


class Pump:
    """The streams of one command. Made on the event loop, which feeds it."""

    def __init__(self, put: Callable[[Output], None]) -> None:
        self._put = put
        self._loop = asyncio.get_running_loop()
        self._roomy = asyncio.Event()
        self._roomy.set()
        self._lock = threading.Lock()
        self._input: deque[bytes] = deque()
        self._waiting = 0
        self._no_more = False
        self._over = False
        self._send_signal: Callable[[int], None] | None = None
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="exec", daemon=True)

    # --- from the loop ---

    def take(self, line: bytes) -> bool:
        """One line of input: bytes for the command, or a signal. False for what is neither."""
        try:
            found = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return not line
        if isinstance(found, Signal):
            self._signal(found.number)
            return True
        if not found.data:
            self.end_input()
            return True
        with self._lock:
            self._input.append(found.data)
            self._waiting += len(found.data)
            if self._waiting > _MOST_INPUT:
                self._roomy.clear()
        self._ring()
        return True

    async def room(self) -> None:
        """Wait until the command has read most of what came."""
        await self._roomy.wait()

    def end_input(self) -> None:
        """There is no more."""
        self._no_more = True
        self._ring()

    def hang_up(self) -> None:
        """Nobody is there any more: the command is told, as by a terminal that closes."""
        self.end_input()
        self._roomy.set()
        self._signal(signal.SIGHUP)

    def _signal(self, number: int) -> None:
        if self._send_signal is not None and 0 < number < 65:
            with suppress(OSError):
                self._send_signal(number)

    def _ring(self) -> None:
        with suppress(OSError):
            os.write(self._wake, b"x")

    # --- from the thread that asked ---

    def run(self, work: Callable[[Streams], int]) -> int:
        """Have `work` run the command; its exit code, once all that it wrote was passed on."""
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (theirs_in, self._in), (self._out, theirs_out), (self._err, theirs_err) = ends
        theirs = (theirs_in, theirs_out, theirs_err)

        def begun(send_signal: Callable[[int], None]) -> None:
            self._send_signal = send_signal
            for number in theirs:  # Order: once only the command has them, their ends mean its end.
                os.close(number)

        os.set_blocking(self._in, False)
        self._thread.start()
        try:
            return work(Streams(stdin=theirs_in, stdout=theirs_out, stderr=theirs_err, begun=begun))
        finally:
            if self._send_signal is None:
                for number in theirs:
                    os.close(number)
            self._send_signal = None
            self._over = True
            self._ring()
            self._thread.join()

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
        for number in (self._out, self._err, self._woken, self._wake):
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


def run_command(opened: Opener, ask: Exec, pump: Pump) -> Any:
    """The exit code of a command. Raises what `exec` raises."""

    def work(streams: Streams) -> int:
        with opened() as root:
            return containers.exec_(
                root, ask.name, ask.command, tty=False, stdin=ask.stdin, user=ask.user, workdir=ask.workdir,
                env=ask.env, streams=streams,
            ).exit_code  # fmt: skip

    return {"exit_code": pump.run(work)}
