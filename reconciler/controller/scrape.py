"""Answers GET of a few paths over HTTP/1.1 on a loopback address, for Prometheus can't scrape a UNIX socket.

One thread, no other request, nothing that changes anything. Bounded in all directions: bytes of a request, seconds of a
connection, connections at once (the oldest goes). A name that resolves to loopback is not enough: `Host` must be one of a
loopback address, so no page of the web reads it through a browser (DNS rebinding).
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec import Struct

MOST_HEAD = 8192
"""Bytes of a request's line and headers."""
MOST_CONNECTIONS = 64
LONGEST = 10.0
"""Seconds from the beginning of a connection to its end."""
_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_WORDS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 421: "Misdirected Request",
          431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    body: bytes
    kind: str = TEXT


class _Connection(Struct, eq=False):
    opened: socket.socket
    until: float
    """Of the monotonic clock."""
    read: bytes = b""
    left: memoryview | None = None
    """What is to be sent; None while the request is being read."""


class ScrapeServer:
    """The listener and its thread. `address` is bound when it is made: raises OSError."""

    def __init__(self, address: tuple[str, int], paths: Mapping[str, Callable[[], Answer]]) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=MOST_CONNECTIONS)
        self._listener.settimeout(0)
        self._paths = paths
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, self._wake = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._open: dict[socket.socket, _Connection] = {}
        self._thread = threading.Thread(target=self._run, name="scrape", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port, *_ = self._listener.getsockname()
        return host, port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._wake.send(b"x")
        self._thread.join(5)
        for opened in (*self._open, self._listener, self._woken, self._wake):
            opened.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            soonest = min((one.until for one in self._open.values()), default=None)
            pause = None if soonest is None else max(soonest - time.monotonic(), 0.0)
            for found, _ in self._selector.select(pause):
                opened = found.fileobj
                if opened is self._woken:
                    return
                if opened is self._listener:
                    self._accept()
                elif isinstance(opened, socket.socket) and opened in self._open:
                    self._go_on(self._open[opened])
            now = time.monotonic()
            for late in [one for one in self._open.values() if one.until <= now]:
                self._close(late)

    def _accept(self) -> None:
        try:
            opened, _ = self._listener.accept()
        except OSError:  # It went, or we have no descriptor for it: the next one may.
            return
        if len(self._open) >= MOST_CONNECTIONS:
            self._close(min(self._open.values(), key=lambda one: one.until))
        opened.settimeout(0)
        self._open[opened] = _Connection(opened=opened, until=time.monotonic() + LONGEST)
        self._selector.register(opened, selectors.EVENT_READ)

    def _close(self, one: _Connection) -> None:
        del self._open[one.opened]
        self._selector.unregister(one.opened)
        one.opened.close()

    def _go_on(self, one: _Connection) -> None:
        try:
            done = self._read(one) if one.left is None else _send(one)
        except OSError:
            done = True
        if done:
            self._close(one)

    def _read(self, one: _Connection) -> bool:
        """Take what there is of a request, and answer it once it is whole; True where nothing follows."""
        data = one.opened.recv(4096)
        one.read += data
        head, end, _ = one.read.partition(b"\r\n\r\n")
        if not end and data and len(one.read) <= MOST_HEAD:
            return False
        if not end and not data:
            return True
        answer = self._answer(head) if end and len(head) <= MOST_HEAD else Answer(431, b"the request is too large\n")
        one.left = memoryview(_render(answer, body=not head.startswith(b"HEAD ")))
        self._selector.modify(one.opened, selectors.EVENT_WRITE)
        return _send(one)

    def _answer(self, head: bytes) -> Answer:
        line, *headers = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Answer(400, b"this is no request of HTTP/1.1\n")
        hosts = [value.strip() for name, _, value in (one.partition(":") for one in headers) if name.lower() == "host"]
        if len(hosts) != 1 or _name_of(hosts[0]) not in _HOSTS:
            return Answer(421, b"Host must be localhost or a loopback address\n")
        if words[0] not in ("GET", "HEAD"):
            return Answer(405, b"only GET\n")
        wanted = self._paths.get(words[1].partition("?")[0])
        if wanted is None:
            return Answer(404, f"only {', '.join(sorted(self._paths))}\n".encode())
        try:
            return wanted()
        except Exception:  # noqa: BLE001 whoever scrapes sees that it failed; the controller goes on
            return Answer(500, b"a mistake of reconcile\n")


def _name_of(host: str) -> str:
    """`localhost:9323` and `[::1]:9323` without their port, in small letters."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and not name.endswith(":") else host).lower()


def _send(one: _Connection) -> bool:
    """Send what the other side takes; True when that is all."""
    assert one.left is not None
    with suppress(BlockingIOError):
        one.left = one.left[one.opened.send(one.left) :]
    return not one.left


def _render(answer: Answer, *, body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_WORDS[answer.status]}\r\nContent-Type: {answer.kind}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        f"Connection: close\r\n\r\n"
    )
    return head.encode() + (answer.body if body else b"")
