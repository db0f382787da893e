"""Answers GET of a few paths over HTTP/1.1 on a loopback address, for Prometheus can't scrape a UNIX socket; and POST of
those that are given, for who pushes to a repository can't reach one either.

One thread, no other request. Bounded in all directions: bytes of a request, seconds of a connection, connections at once
(the oldest goes). A name that resolves to loopback is not enough to read: `Host` must be one of a loopback address, so no
page of the web reads it through a browser (DNS rebinding). A POST comes through a proxy and proves itself by what it bears.
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Struct

MOST_HEAD = 8192
"""Bytes of a request's line and headers."""
MOST_CONNECTIONS = 64
MOST_BODY = 1024 * 1024
"""Bytes of what is posted."""
LONGEST = 10.0
"""Seconds from the beginning of a connection to its end."""
_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_WORDS = {200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
          411: "Length Required", 413: "Content Too Large", 421: "Misdirected Request",
          431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable"}  # fmt: skip
TEXT = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """What a path answers."""

    status: int
    body: bytes
    kind: str = TEXT


Post = Callable[[Mapping[str, str], bytes], Answer]
"""Answers what was posted: its headers, by lower-case names, and its body."""


class _Connection(Struct, eq=False):
    opened: socket.socket
    until: float
    """Of the monotonic clock."""
    read: bytearray = msgspec.field(default_factory=bytearray)
    left: memoryview | None = None
    """What is to be sent; None while the request is being read."""


_NONE: Mapping[str, Post] = MappingProxyType({})


class ScrapeServer:
    """The listener and its thread. `address` is bound when it is made: raises OSError."""

    def __init__(
        self, address: tuple[str, int], paths: Mapping[str, Callable[[], Answer]], posts: Mapping[str, Post] = _NONE
    ) -> None:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.create_server(address, family=family, backlog=MOST_CONNECTIONS)
        self._listener.settimeout(0)
        self._paths = paths
        self._posts = posts
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
        data = one.opened.recv(65_536)
        one.read += data
        end = one.read.find(b"\r\n\r\n")
        if end < 0 and not data:
            return True
        if end < 0 and len(one.read) <= MOST_HEAD:
            return False
        head = bytes(one.read[: end if end >= 0 else MOST_HEAD + 1])
        answer = Answer(431, b"the request is too large\n") if len(head) > MOST_HEAD else self._answer(head, one, end + 4)
        if answer is None:
            return not data
        one.left = memoryview(_render(answer, body=not head.startswith(b"HEAD ")))
        self._selector.modify(one.opened, selectors.EVENT_WRITE)
        return _send(one)

    def _answer(self, head: bytes, one: _Connection, begin: int) -> Answer | None:
        """What a request is answered; None while its body, which begins at `begin`, is not there yet."""
        line, *rest = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Answer(400, b"this is no request of HTTP/1.1\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in rest)]
        path = words[1].partition("?")[0]
        if words[0] == "POST" and path in self._posts:
            return self._take_post(self._posts[path], dict(headers), one, begin)
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or _name_of(hosts[0]) not in _HOSTS:
            return Answer(421, b"Host must be localhost or a loopback address\n")
        if words[0] not in ("GET", "HEAD"):
            return Answer(405, b"only GET\n")
        if path not in self._paths:
            return Answer(404, f"only {', '.join(sorted(self._paths))}\n".encode())
        return _guarded(self._paths[path])

    def _take_post(self, post: Post, headers: Mapping[str, str], one: _Connection, begin: int) -> Answer | None:
        written = headers.get("content-length", "")
        if not written.isdigit() or "transfer-encoding" in headers:
            return Answer(411, b"say how long it is\n")
        if int(written) > MOST_BODY:
            return Answer(413, f"more than {MOST_BODY} bytes\n".encode())
        if len(one.read) < begin + int(written):
            return None
        return _guarded(lambda: post(headers, bytes(one.read[begin : begin + int(written)])))


def _guarded(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except Exception:  # noqa: BLE001 whoever asks sees that it failed; the controller goes on
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
