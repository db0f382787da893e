"""Knocks at the doors with changed bytes, and keeps whatever gets a new answer to change it further.

Deterministic but for time: the same seed gives the same inputs in the same order. A finding is printed as base64, to be
made a test. `python -m tests.fuzz.fuzzer`, or scripts/fuzz.
"""

import argparse
import base64
import random
import resource
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from types import FrameType

from tests.fuzz.doors import DOORS, Door
from tests.layers.tars import padded, raw_header

_HANGS_SECONDS = 10.0
_LARGEST = 1 << 16
_NUMBERS = (
    b"00000000000\0",
    b"77777777777\0",
    b"\x80" + b"\xff" * 11,
    b"\xff" * 12,
    b"\x80" + bytes(10) + b"\1",
    b"9" * 12,
)
_WORDS = (
    b"../", b"/", b".wh.", b".wh..wh..opq", b"\0", b"\n", b"=", b"\xff", b"\x1b[2J", b"path=", b"size=", b"mtime=", b"uid=",
    b"linkpath=", b"GNU.sparse.map=", b"GNU.sparse.major=1", b"GNU.sparse.realsize=", b"SCHILY.xattr.", b"-1", b"0",
    b"4294967295", b"4294967296", b"9" * 19, b"1e400", b"NaN", b'"', b"{", b"[", b"]", b"}", b",", b":", b"@", b"<<: *a",
    b"\xc2\xb2", b"\xef\xbb\xbf", b"\x1f\x8b", b"0x0", b"null", b"true",
)  # fmt: skip
_KEYS = (
    b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"SCHILY.xattr.user.a", b"SCHILY.xattr.", b"GNU.sparse.map",
    b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.realsize", b"GNU.sparse.size", b"GNU.sparse.name",
    b"GNU.sparse.offset", b"GNU.sparse.numbytes",
)  # fmt: skip


class Hangs(BaseException):
    """One run took too long. No Exception: nothing in a door may catch it."""


@dataclass
class Tally:
    """What came out of one door."""

    runs: int = 0
    answers: set[str] = field(default_factory=set)
    crashes: dict[str, bytes] = field(default_factory=dict)
    """The first input of every kind, by the place where it broke."""
    hangs: list[bytes] = field(default_factory=list)


def change(data: bytes, chance: random.Random, others: list[bytes], *, blocks: bool) -> bytes:
    """A few small changes. Of a tar, checksums are mended most times, so that it is read at all."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        _change_once(made, chance, others, blocks=blocks)
        del made[_LARGEST:]
    if blocks and chance.random() < 0.9:
        mend(made)
    return bytes(made)


def _change_once(made: bytearray, chance: random.Random, others: list[bytes], *, blocks: bool) -> None:
    kind = chance.randrange(10 if blocks else 6)
    at = chance.randrange(len(made) + 1)
    if kind == 0 and at < len(made):
        made[at] = chance.randrange(256)
    elif kind == 1 and at < len(made):
        made[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        word = chance.choice(_WORDS)
        made[at : at + chance.choice((0, len(word)))] = word
    elif kind == 3:
        del made[at : at + chance.choice((1, 2, 16, 512))]
    elif kind == 4:
        piece = made[at : at + chance.choice((1, 8, 64, 512, 1024))]
        made[at:at] = piece * chance.choice((1, 2, 20))
    elif kind == 5:
        other = chance.choice(others)
        made[at:] = other[chance.randrange(len(other) + 1) :]
    elif len(made) >= 512:
        _change_block(made, chance, others, kind)


def _change_block(made: bytearray, chance: random.Random, others: list[bytes], kind: int) -> None:
    """Changes that know what a header looks like, at its block."""
    at = 512 * chance.randrange(len(made) // 512)
    if kind == 6:
        made[at + 156] = chance.choice(b"01234567xgLKSVNXDM\0")
    elif kind == 7:
        start, size = chance.choice(((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (386, 12), (483, 12)))
        made[at + start : at + start + size] = chance.choice(_NUMBERS)[-size:]
    elif kind == 8:
        made[at:at] = _extension(chance)
    else:
        other = chance.choice(others)
        start = 512 * chance.randrange(len(other) // 512 + 1)
        made[at:at] = other[start : start + 512 * chance.randint(1, 3)]


def _extension(chance: random.Random) -> bytes:
    """A PAX header in good form, whatever it says."""
    text = b""
    for _ in range(chance.randint(1, 3)):
        key = chance.choice(_KEYS)
        if chance.random() < 0.2:
            key += chance.choice(_WORDS).replace(b"=", b"")
        value = chance.choice((*_WORDS, b"0", b"1", b"10,3", b"100", b"a/f", b"x" * 300, b"-1.5", b"9" * 18))
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        text += b"%d" % length + body
    return raw_header(b"p", type=b"x", size=len(text)) + padded(text)


def mend(made: bytearray) -> None:
    """Right checksums for all blocks that look like headers."""
    for at in range(0, len(made) - 511, 512):
        if made[at + 257 : at + 262] == b"ustar":
            made[at + 148 : at + 156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(made[at : at + 512])


def knock(door: Door, *, seed: int, seconds: float) -> Tally:
    """Try one door for so long."""
    chance, tally, kept = random.Random(seed), Tally(), list(door.seeds)
    for data in door.seeds:
        _try(door, data, tally, kept)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        base = chance.choice(kept) if chance.random() < 0.7 else chance.choice(kept[-20:])
        _try(door, change(base, chance, kept, blocks=door.blocks), tally, kept)
    return tally


def _try(door: Door, data: bytes, tally: Tally, kept: list[bytes]) -> None:
    tally.runs += 1
    signal.setitimer(signal.ITIMER_REAL, _HANGS_SECONDS)
    try:
        answer = door.call(data)
    except Hangs:
        tally.hangs.append(data)
        return
    except Exception as error:  # noqa: BLE001 - all that comes out is a finding
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} at {frame.filename.rpartition('/')[2]}:{frame.lineno}"
        tally.crashes.setdefault(where, data)
        return
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if answer not in tally.answers and len(tally.answers) < 5000:
        tally.answers.add(answer)
        kept.append(data)


def _ring(number: int, frame: FrameType | None) -> None:
    raise Hangs


def run(doors: list[str], *, seed: int, seconds: float) -> int:
    """Try some doors for so long in all; print what was found, and one line at the end."""
    before = signal.signal(signal.SIGALRM, _ring)
    tallies = {}
    try:
        for name in doors:
            tallies[name] = knock(DOORS[name], seed=seed, seconds=seconds / len(doors))
    finally:
        signal.signal(signal.SIGALRM, before)
    for name, tally in tallies.items():
        for where, data in tally.crashes.items():
            print(f"{name}: {where}\n  {base64.b64encode(data).decode()}")
        for data in tally.hangs:
            print(f"{name}: longer than {_HANGS_SECONDS:.0f} s\n  {base64.b64encode(data).decode()}")
    crashes = sum(len(tally.crashes) for tally in tallies.values())
    hangs = sum(len(tally.hangs) for tally in tallies.values())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"fuzz {','.join(doors)}: seed {seed}, {sum(tally.runs for tally in tallies.values())} executions, "
        f"{sum(len(tally.answers) for tally in tallies.values())} different answers, {crashes} crashes, {hangs} timeouts, "
        f"worst memory {memory:.0f} MiB",
        flush=True,
    )
    return 1 if crashes or hangs else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--door", action="append", choices=sorted(DOORS), help="only this one; all by default")
    given = parser.parse_args()
    return run(given.door or list(DOORS), seed=given.seed, seconds=given.minutes * 60)


if __name__ == "__main__":
    sys.exit(main())
