"""Terminals: raw mode for the time of a `with`, and their size. What is no terminal is left as it is."""

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every key as it is typed, nothing echoed, no key a signal (termios(3), cfmakeraw); as before afterwards."""
    try:
        before = termios.tcgetattr(fd)
        tty.setraw(fd, termios.TCSANOW)
    except termios.error:
        yield
        return
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


def read_size(*fds: int) -> tuple[int, int] | None:
    """Rows and columns of the first of these that is a terminal; None where none is, or its size is not known."""
    for fd in fds:
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return None


def write_size(fd: int, size: tuple[int, int] | None) -> None:
    """Give a terminal this size (ioctl_tty(2), TIOCSWINSZ); None leaves it as it is."""
    if size is not None:
        termios.tcsetwinsize(fd, size)
