"""What the small files of bundles say, read again only where one is not the file that it was.

A controller looks at the same bundles again and again, and hardly any of their files has changed: stat(2) says so, for one
call in place of three and without parsing. Files that are renamed into place have another inode; one that somebody wrote
into has another st_ctime, which nobody can set. Not for what must be right under the container's lock: that reads.
"""

import os
import time
from collections.abc import Callable, Collection
from typing import Any

from reconciler.engine.native.runtime import bundle

_YOUNG = 100_000_000
"""Nanoseconds. Kernel: st_ctime is of a clock that ticks every few milliseconds, so that two changes may bear one time; a
file that changed so lately is read again with the next look."""

Read = Callable[[str, str], dict[str, Any]]
"""As `bundle.read_json`: a bundle, and the name of a file in it. What is returned is not to be changed."""


class Known:
    """Files of bundles. Threads may share it: what one of them misses it reads."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, tuple[tuple[int, int, int], dict[str, Any]]]] = {}

    def read(self, path: str, name: str) -> dict[str, Any]:
        """What a file says, as bundle.read_json."""
        try:
            found = os.lstat(f"{path}/{name}")
        except (FileNotFoundError, NotADirectoryError):
            return {}
        sign = (found.st_ino, found.st_size, found.st_ctime_ns)
        files = self._files.setdefault(path, {})
        known = files.get(name)
        if known is not None and known[0] == sign:
            return known[1]
        # Order: stat before read; what is put in its place meanwhile has another sign, and is read with the next look.
        value = bundle.read_json(path, name)
        if time.time_ns() - found.st_ctime_ns > _YOUNG:
            files[name] = (sign, value)
        return value

    def forget_others(self, incarnations: Collection[str]) -> None:
        """Forget all bundles but those of these."""
        for gone in [path for path in list(self._files) if path.rpartition("/")[2] not in incarnations]:
            self._files.pop(gone, None)
