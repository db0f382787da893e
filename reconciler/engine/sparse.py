"""Turns the three ways in which tars write the holes of a file into one map. Feeds tarstream.py.

Sources: GNU tar's manual, "Sparse Formats" (old GNU, PAX 0.0 and 0.1, PAX 1.0). Raises ValueError saying what was found.
"""

import struct
from collections.abc import Callable

from msgspec import Struct

Take = Callable[[int], bytes]
"""Reads exactly that many bytes of the tar."""

_MOST = 1 << 16
_BLOCK = 512


class Map(Struct, frozen=True):
    """Where data lies in a file of `size` bytes: (offset, length), ascending, none overlapping."""

    size: int
    segments: tuple[tuple[int, int], ...]

    @property
    def stored(self) -> int:
        """Bytes of data that the tar has."""
        return sum(length for _, length in self.segments)


def check_map(size: int, numbers: list[int]) -> Map:
    """A map of alternating offsets and lengths, checked."""
    if len(numbers) % 2 or len(numbers) > 2 * _MOST:
        raise ValueError(f"{len(numbers)} numbers")
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in segments:
        if offset < end or length < 0 or offset + length > size:
            raise ValueError("segments that overlap or lie outside the file")
        end = offset + length
    return Map(size, segments)


def read_gnu(tail: tuple[bytes, ...], prefix: bytes, take: Take) -> Map:
    """Old GNU: four segments in the header (in what POSIX calls the prefix), more in blocks that follow it.

    `tail` is what follows the prefix in the header: with it, its bytes from 386 on are whole.
    """
    area = prefix[41:] + b"".join(tail)
    numbers: list[int] = []
    more = _read_segments(area[:96], numbers) and area[96] != 0
    size = _octal(area[97:109])
    while more:
        block = take(_BLOCK)
        more = _read_segments(block[:504], numbers) and block[504] != 0
        if len(numbers) > 2 * _MOST:
            raise ValueError("too many segments")
    return check_map(size, numbers)


def _read_segments(area: bytes, numbers: list[int]) -> bool:
    """Read segments of 24 bytes until an empty one; whether the area was full."""
    for (segment,) in struct.iter_unpack("24s", area):
        if not segment[0]:
            return False
        numbers += [_octal(segment[:12]), _octal(segment[12:])]
    return True


def _octal(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.partition(b"\0")[0].strip()
    if not text.isdigit():
        raise ValueError("a number that is none")
    return int(text, 8)


def read_pax(records: dict[bytes, bytes], take: Take, *, limit: int) -> tuple[Map, int]:
    """PAX 0.0 and 0.1 (the map in the records) and 1.0 (the map before the data): the map, and bytes of data it took."""
    size = _decimal(records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b"")
    if records.get(b"GNU.sparse.major", b"0") == b"0":
        text = records.get(b"GNU.sparse.map", b"")
        return check_map(size, [_decimal(part) for part in text.split(b",") if part]), 0
    if (records[b"GNU.sparse.major"], records.get(b"GNU.sparse.minor")) != (b"1", b"0"):
        raise ValueError("a version that is not 0.0, 0.1 or 1.0")
    lines: list[bytes] = []
    rest, used, wanted = b"", 0, 1
    while len(lines) < wanted:
        if used + _BLOCK > limit or len(rest) > 20:
            raise ValueError("a map that does not end, or more than its bounds")
        *new, rest = (rest + take(_BLOCK)).split(b"\n")
        used += _BLOCK
        lines += new
        if lines:
            wanted = 1 + 2 * min(_decimal(lines[0]), _MOST + 1)
    return check_map(size, [_decimal(line) for line in lines[1:wanted]]), used


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise ValueError("a number that is none")
    return int(text)
