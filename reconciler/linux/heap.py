"""The C library's heap, told how this process lives (mallopt(3))."""

import ctypes
from contextlib import suppress

_ARENA_MAX = -8
"""M_ARENA_MAX of glibc."""


def share_heap() -> None:
    """Have all threads that begin from now on allocate from one heap. Each would get one of its own, and what it once used
    stays in it; but where Python is at work one thread allocates at a time."""
    with suppress(AttributeError):  # musl has one heap anyway.
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
