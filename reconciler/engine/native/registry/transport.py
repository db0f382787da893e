"""One HTTP/1.1 request over a kept or new connection: where it may go, how long it may take, how it is encrypted.

`client.py` and `auth.py` ask through it. It knows no registry's API, follows no redirect and adds no credentials. Plain
HTTP goes to loopback only; every target's addresses are looked at before the connection is made, and the one that was
looked at is the one that is used. On `http.client`, see docs/decisions/0030.
"""

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from reconciler import __version__

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0
"""How long a peer may send nothing at all."""
HEADER_SECONDS = 60.0
"""How long headers, and bodies that are read at once, may take in all."""
SLOW_SECONDS = 60.0
SLOW_BYTES = 256 * 1024
"""A stream that brings less than SLOW_BYTES within SLOW_SECONDS is given up."""
CHUNK = 256 << 10
CERTS = Path("/etc/docker/certs.d")
_NOT_YET_VALID, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED (openssl, x509_vfy.h)."""


class TransportError(Exception):
    """A request that got no answer, in words for people.

    `retry` says whether another try may help some time, `at_once` whether it may within seconds.
    """

    def __init__(self, words: str, *, retry: bool, hint: str = "", at_once: bool = True) -> None:
        super().__init__(words)
        self.words = words
        self.hint = hint
        self.retry = retry
        self.at_once = retry and at_once


class WrongScheme(TransportError):
    """A loopback server was spoken to in the clear and wants TLS."""


class Origin(Struct, frozen=True):
    """Where a connection leads."""

    scheme: str
    """http | https"""
    host: str
    """Without brackets, in small letters."""
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == _PORTS[self.scheme]
        return f"{self.scheme}://{host}" + ("" if usual else f":{self.port}")


_PORTS = {"http": 80, "https": 443}
Reach = Callable[[str], bool]
"""Whether a target whose addresses are of that kind (`kind_of_address`) may be connected to."""


def parse_url(url: str, *, base: str = "") -> tuple[Origin, str]:
    """Origin and request target of a URL, which may be relative to `base`. Raises TransportError for all but plain http
    and https ones."""
    try:
        url = urllib.parse.urljoin(base, url)
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise TransportError("an address that can't be read", retry=False) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise TransportError(f"an address that is not https: {parts.scheme or 'no scheme'}", retry=False)
    if parts.username is not None or parts.password is not None:
        raise TransportError("an address with a name or password in it", retry=False)
    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url):
        raise TransportError("an address with control characters or spaces in it", retry=False)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Origin(parts.scheme, parts.hostname, port or _PORTS[parts.scheme]), target


def kind_of_address(text: str) -> str:
    """loopback | link-local | private | public, of an IP address; what is neither of the four counts as private."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "public" if address.is_global and not address.is_multicast else "private"


def is_loopback_name(host: str) -> bool:
    """Whether a host is 127/8, ::1 or localhost, by its name alone."""
    if host == "localhost":
        return True
    try:
        return kind_of_address(host) == "loopback"
    except ValueError:
        return False


class Answer:
    """A response whose body is still to be read; owned by whoever asked, who reads it to its end or closes it."""

    def __init__(self, connection: "_Connection", response: http.client.HTTPResponse, give_back: "_GiveBack") -> None:
        self.status = response.status
        self.headers = response.headers
        self.length = response.length
        """Bytes of the body, None where the server does not say."""
        self._connection: _Connection | None = connection
        self._response = response
        self._give_back = give_back

    def read_all(self, limit: int) -> bytes:
        """The whole body. Raises TransportError where it is longer than `limit` or too slow."""
        if self.length is not None and self.length > limit:
            self.close()
            raise TransportError(f"an answer of {self.length} bytes where at most {limit} are read", retry=False)
        assert self._connection is not None  # a body is read once
        with self._connection.deadline(HEADER_SECONDS), _words(self.close):
            data = self._response.read(limit + 1)
        if len(data) > limit:
            self.close()
            raise TransportError(f"an answer of more than {limit} bytes", retry=False)
        if self.length is not None and len(data) < self.length:
            self.close()
            raise TransportError("the connection ended in the middle of the answer", retry=True)
        self._finish()
        return data

    def chunks(self, clock: Callable[[], float]) -> Iterator[bytes]:
        """The body in pieces of up to CHUNK bytes. Raises TransportError where it ends early or is too slow."""
        got = since = 0
        mark = clock()
        try:
            with _words(self.close):
                while data := self._response.read1(CHUNK):
                    got += len(data)
                    if (now := clock()) - mark > SLOW_SECONDS:
                        if got - since < SLOW_BYTES:
                            raise TransportError(f"fewer than {SLOW_BYTES} bytes came in {SLOW_SECONDS:.0f} s", retry=True)
                        mark, since = now, got
                    yield data
            if self.length is not None and got < self.length:
                raise TransportError(f"the connection ended after {got} of {self.length} bytes", retry=True)
            self._finish()
        finally:
            self.close()

    def _finish(self) -> None:
        if not self._response.isclosed() or self._response.will_close:
            self.close()
        elif self._connection:
            self._give_back(self._connection)
            self._connection = None

    def close(self) -> None:
        """End it; the connection goes too, unless the body was read to its end."""
        if self._connection:
            self._connection.close()
            self._connection = None


class Transport:
    """Kept connections by origin. Safe for threads: one connection serves one request at a time."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[_Connection]] = {}
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}

    def ask(
        self,
        method: str,
        origin: Origin,
        target: str,
        *,
        headers: Mapping[str, str],
        reach: Reach,
        body: bytes | None = None,
    ) -> Answer:
        """Send one request and read the answer's headers. Raises TransportError."""
        if origin.scheme == "http" and not is_loopback_name(origin.host):
            raise TransportError(f"{origin} is not encrypted; plain HTTP is only for loopback", retry=False)
        kept = self._take(origin)
        if kept:
            try:
                return self._exchange(kept, method, target, headers=headers, body=body)
            except TransportError as error:
                # Race: a server may close a kept connection just as we send. All that is asked here can be asked twice.
                if not error.retry:
                    raise
        return self._exchange(self._connect(origin, reach), method, target, headers=headers, body=body)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle = [connection for kept in self._idle.values() for connection in kept]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _exchange(
        self, connection: "_Connection", method: str, target: str, *, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        sent = {"User-Agent": f"reconcile/{__version__}", "Accept-Encoding": "identity", **headers}
        with connection.deadline(HEADER_SECONDS), _words(connection.close, clear=connection.clear):
            connection.http.request(method, target, body=body, headers=sent)
            response = connection.http.getresponse()
        return Answer(connection, response, self._keep)

    def _take(self, origin: Origin) -> "_Connection | None":
        with self._lock:
            kept = self._idle.get(origin)
            return kept.pop() if kept else None

    def _keep(self, connection: "_Connection") -> None:
        with self._lock:
            self._idle.setdefault(connection.origin, []).append(connection)

    def _connect(self, origin: Origin, reach: Reach) -> "_Connection":
        words: Exception | None = None
        for family, address in _look_up(origin, reach):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(CONNECT_SECONDS)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if origin.scheme == "https":
                    sock = self._context(origin).wrap_socket(sock, server_hostname=origin.host)
                sock.settimeout(SILENT_SECONDS)
            except (OSError, ValueError) as error:  # ValueError: a host that can be in no certificate
                sock.close()
                words = error
                continue
            return _Connection(origin, sock)
        raise _explain(words or OSError("no address"), f"connect to {origin}") from words

    def _context(self, origin: Origin) -> ssl.SSLContext:
        name = f"{origin.host}:{origin.port}" if origin.port != 443 else origin.host
        with self._lock:
            if name not in self._contexts:
                context = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                for certificate in sorted((CERTS / name).glob("*.crt")):
                    context.load_verify_locations(certificate)
                self._contexts[name] = context
            return self._contexts[name]


class _Connection:
    """A socket with http.client upon it."""

    def __init__(self, origin: Origin, sock: socket.socket) -> None:
        self.origin = origin
        self.sock = sock
        self.clear = origin.scheme == "http"
        self.http = http.client.HTTPConnection(origin.host, origin.port)
        self.http.default_port = _PORTS[origin.scheme]  # so that the Host header bears no port that goes without saying
        self.http.auto_open = 0
        self.http.sock = sock

    def deadline(self, seconds: float) -> "_Deadline":
        return _Deadline(self, seconds)

    def close(self) -> None:
        self.http.close()
        self.sock.close()


_GiveBack = Callable[[_Connection], None]


class _Deadline:
    """Ends a connection from another thread when time is up: a peer that sends a byte now and then meets no time-out."""

    def __init__(self, connection: _Connection, seconds: float) -> None:
        self._connection = connection
        self._expired = False
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._expired:  # also where what came until then looks like a whole answer
            self._connection.close()
            raise TransportError("no whole answer in time", retry=True)

    def _end(self) -> None:
        self._expired = True
        # Kernel: shutdown wakes a recv that another thread is in; close would not.
        with suppress(OSError):
            socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)


class _words:
    """Maps what http.client, ssl and sockets raise to TransportError, after closing."""

    def __init__(self, close: Callable[[], None], *, clear: bool = False) -> None:
        self._close = close
        self._clear = clear

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        self._close()
        if isinstance(error, http.client.BadStatusLine | ConnectionResetError) and self._clear:
            raise WrongScheme("no HTTP was spoken", retry=True) from error
        if isinstance(error, OSError | http.client.HTTPException | ValueError):
            raise _explain(error, "") from error


def _look_up(origin: Origin, reach: Reach) -> Iterator[tuple[socket.AddressFamily, tuple[str, int]]]:
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _explain(error, f"look up {origin.host}") from error
    for family, _, _, _, address in found:
        kind = kind_of_address(str(address[0]))
        if not reach(kind) or (origin.scheme == "http" and kind != "loopback"):
            raise TransportError(f"it leads to {origin.host}, a {kind} address, which is refused", retry=False)
        yield family, address  # type: ignore[misc] # four items for IPv6, which connect takes as they are


def _explain(error: BaseException, tried: str) -> TransportError:
    """What people are told of an exception of the network."""
    before = f"{tried}: " if tried else ""
    name = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = f"put its CA's certificate into {CERTS}/HOST[:PORT]/ca.crt, or name it in SSL_CERT_FILE"
        why = error.verify_message
        if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            hint = (
                f"this machine's clock says {now}: if that is wrong, set it; otherwise the registry needs a new certificate"
            )
        return TransportError(f"{before}its certificate is not trusted: {why}", retry=False, hint=hint)
    if isinstance(error, socket.gaierror):
        return TransportError(f"{before}{error.strerror}", retry=True, at_once=error.errno == socket.EAI_AGAIN)
    if isinstance(error, TimeoutError):
        return TransportError(f"{before}no answer in time", retry=True)
    if isinstance(error, http.client.HTTPException):
        return TransportError(f"{before}no proper HTTP answer ({name})", retry=True)
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or name
    nobody = isinstance(error, ConnectionRefusedError)  # there: whoever plans should not wait for it
    return TransportError(f"{before}{words}", retry=True, at_once=not nobody)
