"""One netlink socket: frames messages, sends many in one call, reads answers and the kernel's own words (RFC 3549).

`netlink.py` (links, addresses, routes), `nft.py` and `conntrack.py` (netfilter) build on it. A socket belongs to the
network namespace of the thread that opened it, for as long as it lives. Raises OSError only.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from reconciler.linux import failpoint

ROUTE, NETFILTER = 0, 12
"""Netlink families (linux/netlink.h)."""
SO_NETNS_COOKIE = 71
"""Of the level SOL_SOCKET (linux ≥ 5.14)."""

REQUEST, MULTI, ACK, DUMP = 0x1, 0x2, 0x4, 0x300
EXCLUSIVE, CREATE, REPLACE = 0x200, 0x400, 0x100
_DUMP_INTERRUPTED = 0x10
_CAPPED, _HAS_WORDS = 0x100, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHECK = 270, 10, 11, 12
_ATTR_WORDS = 1
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_BATCH_BEGIN, _BATCH_END, _BATCH_GENERATION = 0x10, 0x11, 1
_BUFFER = 1 << 16
_PATIENCE = 20
"""How often a dump that a change of the machine interrupted is begun anew."""

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_I32 = struct.Struct("=i")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


class Change(NamedTuple):
    """One message that changes something. `what` names it in an error."""

    kind: int
    flags: int
    body: bytes
    what: str
    ignore: tuple[int, ...] = ()
    """Errors (errno) that mean that it is so already."""


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute: length, type, data, padding to four bytes."""
    return _ATTR.pack(len(data) + 4, kind) + data + _PADDING[len(data) & 3]


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """An attribute that holds a NUL-terminated text."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that holds 32 bits in the machine's order."""
    return attribute(kind, struct.pack("=I", value))


def parse_attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Attributes by type; of a type that comes twice the last. Broken lengths end the walk."""
    found: dict[int, bytes] = {}
    end = len(data)
    while start + 4 <= end:
        length, kind = _ATTR.unpack_from(data, start)
        if length < 4 or start + length > end:
            break
        found[kind & _TYPE_MASK] = data[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def walk_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Attributes in their order: for lists, where each has the same type."""
    start, end = 0, len(data)
    while start + 4 <= end:
        length, kind = _ATTR.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & _TYPE_MASK, data[start + 4 : start + length]
        start += (length + 3) & ~3


class NetlinkSocket:
    """A socket of one netlink family in the calling thread's network namespace. Not shared between threads."""

    def __init__(self, family: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._serial = itertools.count(1)
        for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHECK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:  # Kernel: before 4.20 without strict checks; dumps are then filtered by who reads them.
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def read_namespace(self) -> bytes:
        """What tells its network namespace from any other that ever was; empty where the kernel does not say."""
        try:
            return self._socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:  # Kernel: before 5.14.
            return b""

    def dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """All answers to a dump request, as type and payload. Begun anew when a change interrupts it."""
        for _ in range(_PATIENCE):
            answers, whole = self._dump_once(kind, body)
            if whole:
                return answers
        raise OSError(errno.EBUSY, "netlink dump: the machine changes faster than it can be read")

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[tuple[int, bytes]], bool]:
        serial = next(self._serial)
        self._socket.send(_HEADER.pack(16 + len(body), kind, REQUEST | DUMP, serial, 0) + body)
        answers: list[tuple[int, bytes]] = []
        whole = True
        while True:
            data = self._socket.recv(_BUFFER)
            for answer, flags, number_, payload in _split(data):
                if number_ != serial:
                    continue
                whole = whole and not flags & _DUMP_INTERRUPTED
                if answer in (_DONE, _ERROR):
                    _raise_for(payload, flags, "netlink dump")
                    return answers, whole
                answers.append((answer, payload))

    def get(self, kind: int, body: bytes) -> tuple[int, bytes]:
        """The one answer to a request. Raises OSError with the kernel's errno."""
        serial = next(self._serial)
        self._socket.send(_HEADER.pack(16 + len(body), kind, REQUEST, serial, 0) + body)
        while True:
            for answer, flags, number_, payload in _split(self._socket.recv(_BUFFER)):
                if number_ != serial:
                    continue
                if answer == _ERROR:
                    _raise_for(payload, flags, "netlink request")
                return answer, payload

    def send(self, changes: Sequence[Change]) -> None:
        """Send changes in one call; the kernel works through them in order and does not stop at a failed one.

        Raises the first OSError that its change does not ignore, in the kernel's words, once all were answered.
        """
        for some in _batches(changes):
            with failpoint.change("netlink"):
                self._send_batch(some)

    def transact(self, subsystem: int, changes: Sequence[Change], *, generation: int) -> None:
        """Have all changes made or none, by a subsystem of netfilter whose rules are still of this generation
        (linux/netfilter/nfnetlink.h). Raises the first OSError; ERESTART where they are of another one."""
        edge = struct.pack("=BBH", 0, 0, socket.htons(subsystem))
        serial = next(self._serial)
        begin = edge + attribute(_BATCH_GENERATION, generation.to_bytes(4, "big"))
        parts = [_HEADER.pack(16 + len(begin), _BATCH_BEGIN, REQUEST, serial, 0) + begin]
        waiting = self._render(changes, parts)
        parts.append(_HEADER.pack(16 + len(edge), _BATCH_END, REQUEST, next(self._serial), 0) + edge)
        # What is wrong with the whole is answered to its beginning, before all else.
        known = {**waiting, serial: Change(_BATCH_BEGIN, 0, begin, "change the rules")}
        with failpoint.change("netlink"):
            self._socket.send(b"".join(parts))
            while waiting:
                for answer, flags, number_, payload in _split(self._socket.recv(_BUFFER)):
                    if answer == _ERROR and number_ in known:
                        _raise_for(payload, flags, known[number_].what)
                        waiting.pop(number_, None)

    def _render(self, changes: Sequence[Change], parts: list[bytes]) -> dict[int, Change]:
        """Add the messages of changes to `parts`; what is answered, by its serial."""
        waiting: dict[int, Change] = {}
        for change in changes:
            serial = next(self._serial)
            waiting[serial] = change
            parts.append(_HEADER.pack(16 + len(change.body), change.kind, REQUEST | ACK | change.flags, serial, 0))
            parts.append(change.body + _PADDING[len(change.body) & 3])
        return waiting

    def _send_batch(self, changes: Sequence[Change]) -> None:
        parts: list[bytes] = []
        waiting = self._render(changes, parts)
        self._socket.send(b"".join(parts))
        failure: OSError | None = None
        while waiting:
            for answer, flags, number_, payload in _split(self._socket.recv(_BUFFER)):
                if answer != _ERROR or number_ not in waiting:
                    continue
                done = waiting.pop(number_)
                code = -_I32.unpack_from(payload)[0]
                if code and code not in done.ignore and failure is None:
                    failure = _failure(code, payload, flags, done.what)
        if failure is not None:
            raise failure


def _batches(changes: Sequence[Change]) -> Iterable[Sequence[Change]]:
    # Kernel: one answer each must fit the receive buffer (208 KiB by default), the whole the send buffer.
    return (changes[at : at + 64] for at in range(0, len(changes), 64))


def _split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    start, end = 0, len(data)
    while start + 16 <= end:
        length, kind, flags, serial, _ = _HEADER.unpack_from(data, start)
        if length < 16:
            return
        yield kind, flags, serial, data[start + 16 : start + length]
        start += (length + 3) & ~3


def _raise_for(payload: bytes, flags: int, what: str) -> None:
    code = -_I32.unpack_from(payload)[0] if len(payload) >= 4 else 0
    if code > 0:
        raise _failure(code, payload, flags, what)


def _failure(code: int, payload: bytes, flags: int, what: str) -> OSError:
    words = ""
    if flags & _HAS_WORDS:
        # The request's header follows the code; its body only when the kernel did not cap it.
        start = 20 if flags & _CAPPED else 4 + _HEADER.unpack_from(payload, 4)[0]
        words = parse_attributes(payload, start).get(_ATTR_WORDS, b"").rstrip(b"\0").decode(errors="replace")
    return OSError(code, f"{what}: {os.strerror(code)}" + (f" ({words})" if words else ""))
