"""Core dumps of this process: none, for it may hold secrets."""

import ctypes

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Let no core of this process be written, whatever its limit (prctl(2)).

    Kernel: an execve ends it, so that no child inherits it, as it would a core limit of 0.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
