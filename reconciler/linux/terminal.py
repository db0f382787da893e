"""Terminals: raw mode for the time of a `with`, their size, and signals. What is no terminal is left as it is."""

import os
import signal
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager

PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a program that stands for another passes on to it."""


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


@contextmanager
def listen(*, passed_on: bool, sizes: bool) -> Iterator[int]:
    """A descriptor on which the numbers of signals come, one a byte: those of PASSED_ON, SIGWINCH where `sizes` count; -1
    outside the main thread, which alone has them."""
    numbers = [*(PASSED_ON if passed_on else ()), *((signal.SIGWINCH,) if sizes else ())]
    if not numbers or threading.current_thread() is not threading.main_thread():
        yield -1
        return
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.getsignal(number) for number in numbers}
    wakeup = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    try:
        yield read_end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(read_end)
        os.close(write_end)
