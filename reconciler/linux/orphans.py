"""Children of our children, left behind: ours to reap while we say so."""

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36


class AdoptingOrphans:
    """Within a `with`, what our children leave behind when they end is ours to reap (prctl(2), PR_SET_CHILD_SUBREAPER)."""

    def __enter__(self) -> None:
        self._set(1)

    def __exit__(self, *_: object) -> None:
        self._set(0)

    def _set(self, value: int) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
