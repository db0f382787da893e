"""A command of a world on a terminal: what a person at it types and sees."""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Sequence

from lab.world import World, wait_until

RECONCILE = (sys.executable, "-m", "reconciler.cli.main")


class Terminal:
    """A command of the world on a terminal of its own."""

    def __init__(
        self, world: World, *arguments: str, size: tuple[int, int] = (24, 80), reconcile: Sequence[str] = RECONCILE
    ) -> None:
        self.shown = b""
        command = [*world.enter, *reconcile, *arguments]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGHUP, signal.SIGINT):  # nohup(1) and a background ignore them.
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], command, world.environment({"TERM": "xterm"}))
        self.resize(*size)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def expect(self, text: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while text.encode() not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} never came:\n{self.shown.decode(errors='replace')}"
            self._read()
        self.shown = self.shown.partition(text.encode())[2]

    def wait_attached(self) -> None:
        """Until every key goes on as it is typed."""
        wait_until(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, "the terminal is raw", seconds=30)

    def says(self, keys: str, text: str) -> bool:
        """Whether typing something is answered by this, at once or not at all."""
        self.type(keys)
        self._read()
        return text.encode() in self.shown

    def _read(self) -> bool:
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # Kernel: EIO once the other end is closed.
                return False
            self.shown += data
            return bool(data)
        return True

    def end(self, seconds: float = 30) -> int:
        """Its exit code."""
        deadline = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < deadline, f"it does not end:\n{self.shown.decode(errors='replace')}"
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code
