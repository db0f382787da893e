"""Turns a container's log files, as conmon writes and rotation.py sets aside, into lines; follows them as they grow.

A line of conmon's is `TIME stdout|stderr F|P TEXT`, P where the text goes on in the next one. Where conmon cut a file
(see rotation.py), the first line after the hole says so. Used by inside.py. Changes nothing.
"""

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import BinaryIO

from reconciler.engine.native.runtime import rotation
from reconciler.engine.protocol import LogLine

_CHUNK = 1 << 16
_LOOK_EVERY = 0.1
"""Seconds between looks at a log that is followed."""


def read_lines(log: str, *, tail: int | None, since: float) -> Iterator[LogLine]:
    """All lines over all files, oldest first; of these the last `tail`, and none before `since` (seconds, epoch).

    Only the files that are needed for `tail` lines are read.
    """
    paths = list_files(log) if tail is None else _choose_files(log, tail)
    lines = (line for path in paths for line in _read_file(path, lost=rotation.was_cut(path)))
    after = round(since * 1e9)
    chosen = (line for line in lines if line.at >= after)
    return chosen if tail is None else iter(_last(chosen, tail))


def list_files(log: str) -> list[str]:
    """The files of a log, oldest first."""
    found = []
    number = 1
    while os.path.exists(f"{log}.{number}"):  # noqa: PTH110
        found.append(f"{log}.{number}")
        number += 1
    found.reverse()
    return [*found, log] if os.path.exists(log) else found  # noqa: PTH110


def _choose_files(log: str, tail: int) -> list[str]:
    chosen: list[str] = []
    left = tail
    for path in reversed(list_files(log)):
        chosen.insert(0, path)
        left -= _count_lines(path)
        if left <= 0:
            break
    return chosen


def _count_lines(path: str) -> int:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK), b""))
    except FileNotFoundError:
        return 0


def _last(lines: Iterator[LogLine], count: int) -> list[LogLine]:
    from collections import deque

    return list(deque(lines, maxlen=max(0, count)))


def _read_file(path: str, *, lost: bool) -> Iterator[LogLine]:
    try:
        file = open(path, "rb")  # noqa: PTH123, SIM115 - closed below, after the last line
    except FileNotFoundError:  # Race: it was rotated away after the listing.
        return
    with file:
        for raw in file:
            line = parse_line(raw, lost=lost)
            if line is not None:
                lost = False
                yield line


def parse_line(raw: bytes, *, lost: bool = False) -> LogLine | None:
    """One line as conmon wrote it; None for one that is cut off or is not its form."""
    if not raw.endswith(b"\n"):
        return None
    words = raw[:-1].split(b" ", 3)
    if len(words) != 4 or words[1] not in (b"stdout", b"stderr"):
        return None
    at = parse_time(words[0])
    if at is None:
        return None
    return LogLine(at=at, stream=words[1].decode(), text=words[3], partial=words[2] == b"P", lost=lost)


def parse_time(text: bytes) -> int | None:
    """Nanoseconds since the epoch of `2024-05-01T10:00:00.123456789+00:00`; None for what is no such time."""
    try:
        head, _, rest = text.decode("ascii").partition(".")
        digits = rest[:9]
        zone = rest[9:].replace("Z", "+00:00")
        return int(datetime.fromisoformat(head + zone).timestamp()) * 10**9 + int(digits.ljust(9, "0"))
    except (ValueError, UnicodeDecodeError):
        return None


def follow_lines(
    log: str, *, tail: int | None, since: float, stop: Callable[[], bool], ended: Callable[[], bool]
) -> Iterator[LogLine]:
    """As read_lines, then every new line, until `stop()`, or `ended()` and nothing more is written.

    A file that is rotated or cut while it is read is read to its end: nothing is lost for who follows.
    """
    file = _open(log)
    yield from read_lines(log, tail=tail, since=since) if file is None else _read_before(log, file, tail=tail, since=since)
    while not stop():
        last = ended()
        if file is not None:
            yield from _read_grown(file)
        newer = _open_newer(log, file)
        if newer is not None:
            if file is not None:
                yield from _read_grown(file)
                file.close()
            file = newer
        elif last:
            break
        else:
            time.sleep(_LOOK_EVERY)
    if file is not None:
        file.close()


def _open(log: str) -> BinaryIO | None:
    try:
        return open(log, "rb")  # noqa: PTH123 - the caller closes
    except FileNotFoundError:
        return None


def _read_before(log: str, file: BinaryIO, *, tail: int | None, since: float) -> Iterator[LogLine]:
    """What the log has now; `file` is left at the end of its last whole line."""
    older = [path for path in list_files(log) if path != log]
    lost = rotation.was_cut(log)
    newest = list(_read_grown(file, lost=lost))
    if tail is not None and len(newest) >= tail:
        older = []
    lines = [line for path in older for line in _read_file(path, lost=rotation.was_cut(path))] + newest
    chosen = [line for line in lines if line.at >= round(since * 1e9)]
    return iter(chosen if tail is None else chosen[len(chosen) - min(tail, len(chosen)) :])


def _read_grown(file: BinaryIO, *, lost: bool = False) -> Iterator[LogLine]:
    while raw := file.readline():
        if not raw.endswith(b"\n"):  # conmon is still writing it.
            file.seek(-len(raw), os.SEEK_CUR)
            return
        line = parse_line(raw, lost=lost)
        if line is not None:
            lost = False
            yield line


def _open_newer(log: str, file: BinaryIO | None) -> BinaryIO | None:
    """The log anew when it is another file than the one that is read; conmon replaces it whole, rotation renames it."""
    newer = _open(log)
    if newer is None:
        return None
    if file is not None and os.path.samestat(os.fstat(newer.fileno()), os.fstat(file.fileno())):
        newer.close()
        return None
    return newer
