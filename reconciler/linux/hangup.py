"""A process that is sent SIGHUP when ours is gone, by the end of a pipe that only we hold (fcntl(2), O_ASYNC).

Unlike PR_SET_PDEATHSIG (prctl(2)) it needs no program in between to ask for it, and looks at our process, not at the thread
that started the other.
"""

import fcntl
import os
import signal
from typing import Self


class HangUp:
    """Use as a context manager around the other's life. It inherits `read_end`, which tells it nothing by itself."""

    def __enter__(self) -> Self:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        return self

    def send_to(self, pid: int) -> None:
        """Have this process, a child that was not waited for yet, get the signal."""
        fcntl.fcntl(self.read_end, fcntl.F_SETOWN, pid)
        fcntl.fcntl(self.read_end, fcntl.F_SETSIG, signal.SIGHUP)
        fcntl.fcntl(self.read_end, fcntl.F_SETFL, os.O_ASYNC)

    def __exit__(self, *_: object) -> None:
        """Order: the other has ended, or is to end."""
        os.close(self.read_end)
        os.close(self._write_end)
