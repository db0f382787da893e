"""A layer as it travels -> the bytes of its tar, checked on the way: form, size, end.

The image room puts it between a blob and the layers room. It keeps nothing and knows no tar. Bounded: a piece at a time,
and a layer that swells beyond all reason is refused (LEAST_LIMIT, MOST_RATIO).
"""

import zlib
from collections.abc import Iterable, Iterator

from reconciler.model.errors import ContentError

LEAST_LIMIT = 1 << 30
"""Bytes that any layer may unpack to."""
MOST_RATIO = 200
"""How many times its own size a larger one may unpack to; files of zeros make about 1,000, real layers 2 to 20."""
_PIECE = 512 << 10
_SLICE = 64 << 10
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}


def unpack_layer(pieces: Iterable[bytes], *, packing: str, what: str) -> Iterator[bytes]:
    """The tar of a layer. What its bytes are goes before what its media type says (`packing`, gzip or none).

    Raises ContentError for an empty layer, one that is no gzip though it should be, a truncated one, trailing garbage,
    zstd, and a bomb.
    """
    whole = iter(pieces)
    first = next(whole, b"")
    while 0 < len(first) < 2:
        more = next(whole, b"")
        first += more
        if not more:
            break
    # Compat: Docker and containerd look at the bytes too; some registries hold gzip under the type of plain tar.
    found = _MAGIC.get(first[:2], "none")
    if found == "zstd":
        raise ContentError(what, "gzip or no compression", "zstd layers are not built yet", "push it with gzip layers")
    if found == "none" and packing == "gzip":
        raise ContentError(what, "gzip", ascii(first[:40]) if first else "nothing")
    if not first:
        raise ContentError(what, "a tar", "nothing")
    return _gunzip(first, whole, what) if found == "gzip" else _passed(first, whole)


def _passed(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _gunzip(first: bytes, rest: Iterator[bytes], what: str) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    packed = unpacked = 0
    step = 0  # a whole piece at once, until a member ends within one
    for piece in _passed(first, rest):
        packed += len(piece)
        view = memoryview(piece)
        while view:
            if member.eof:
                # Many small members: slices, so that what is left over is never copied more than once.
                member, step = _next_member(view, what), _SLICE
            part = view[:step] if step else view
            for out in _inflate(member, part, what):
                unpacked += len(out)
                _check_bomb(packed, unpacked, what)
                yield out
            view = view[len(part) - len(member.unused_data) :]
    if not member.eof:
        raise ContentError(what, "gzip to its end", "a truncated one")


def _next_member(view: memoryview, what: str) -> "zlib._Decompress":
    if view[0] != 0x1F:
        raise ContentError(what, "nothing after the end of its gzip", "trailing garbage")
    return zlib.decompressobj(wbits=31)


def _inflate(member: "zlib._Decompress", part: memoryview, what: str) -> Iterator[bytes]:
    """What comes out of a part of a member, at most _PIECE at a time."""
    left: bytes | memoryview = part
    try:
        while True:
            out = member.decompress(left, _PIECE)
            if out:
                yield out
            left = member.unconsumed_tail
            # A full piece may leave output behind though all input is taken.
            if member.eof or (not left and len(out) < _PIECE):
                return
    except zlib.error as error:
        raise ContentError(what, "gzip to its end", f"{error}") from None


def _check_bomb(packed: int, unpacked: int, what: str) -> None:
    if unpacked > LEAST_LIMIT and unpacked > packed * MOST_RATIO:
        limit = f"at most {LEAST_LIMIT >> 30} GiB, or {MOST_RATIO} times the size that it travels in"
        raise ContentError(f"{what}: its unpacked size", limit, f"{unpacked} bytes out of {packed}")
