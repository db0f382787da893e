"""What a registry is asked for -> checked bytes: manifests by tag or digest, small blobs, and streams of large ones.

Uses `auth.py` for 401s and `transport.py` for the wire; the image room parses what comes. Here every answer is bounded,
redirects lose credentials, what can be tried again is, and a small answer's digest is checked; a stream's is the reader's
to check. It stores nothing. Source: OCI distribution-spec 1.1.
"""

import hashlib
import json
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec import Struct

from reconciler.engine.native.registry import transport as wire
from reconciler.engine.native.registry.auth import HUB, HUB_HOST, Authorizer, parse_challenges
from reconciler.engine.native.registry.transport import Answer, Origin, Transport, TransportError
from reconciler.model.errors import ContentError, RegistryError
from reconciler.model.reference import Reference

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest, an index or a config: what the distribution project's registry takes, too."""
ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
_TRIES = 4
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_PATIENCE = 30.0
"""Seconds after which no answer is tried for again: a registry that hangs must not hold a plan for minutes."""
_HOPS = 5
_WORDS_LIMIT = 64 << 10
"""Bytes of an error's body."""
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


class Document(Struct, frozen=True):
    """A manifest or an index as it came: bytes that match their digest."""

    data: bytes
    media_type: str
    """Of the Content-Type header, "" where there was none."""
    digest: str


class _Request(Struct, frozen=True):
    reference: Reference
    tried: str
    method: str
    path: str
    headers: dict[str, str] = {}
    patient: bool = False
    """Whether a registry that is down for a moment is waited for: in the middle of a pull, not of a plan."""


class _Busy(TransportError):
    """An answer that says: not now."""

    def __init__(self, told: RegistryError, after: str) -> None:
        super().__init__(told.brief, retry=True)
        self.told = told
        self.after = after


_T = TypeVar("_T")


class Client:
    """All that this process asks of one registry. Safe for threads."""

    def __init__(
        self, host: str, *, wait: Callable[[float], object] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._host = host
        self._wait = wait
        self._clock = clock
        self._transport = Transport()
        self._authorizer = Authorizer(self._transport, host, clock=clock)
        self._kinds: set[str] = set()
        self._origin = _first_origin(host)
        self._spoken = False

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    def read_manifest(self, reference: Reference, target: str) -> Document:
        """The manifest or index that a tag or digest means now. Raises RegistryError, ContentError."""
        request = _Request(reference, "read its manifest", "GET", f"manifests/{target}", {"Accept": ACCEPT})
        answer, data = self._read(request, MANIFEST_LIMIT)
        digest = _digest(data)
        promised = target if target.startswith("sha256:") else _digest_header(answer) or digest
        if digest != promised:
            raise ContentError(f"{reference}: its manifest", promised, digest)
        return Document(data, (answer.headers.get("Content-Type") or "").partition(";")[0].strip(), digest)

    def read_tag(self, reference: Reference) -> str:
        """The digest that a tag means now, "" where the registry does not say without sending the manifest."""
        request = _Request(reference, "ask for its digest", "HEAD", f"manifests/{reference.target}", {"Accept": ACCEPT})
        answer, _ = self._read(request, 0)
        return _digest_header(answer)

    def read_config(self, reference: Reference, digest: str, size: int) -> bytes:
        """A small blob, whole. Raises RegistryError, ContentError."""
        what = f"{reference}: its config {digest}"
        if size > MANIFEST_LIMIT:
            raise ContentError(what, f"at most {MANIFEST_LIMIT} bytes", f"{size}")
        _, data = self._read(_Request(reference, "read its config", "GET", f"blobs/{digest}"), MANIFEST_LIMIT)
        if len(data) != size:
            raise ContentError(what, f"{size} bytes", f"{len(data)}")
        if _digest(data) != digest:
            raise ContentError(what, digest, _digest(data))
        return data

    def read_blob(self, reference: Reference, digest: str, *, size: int, start: int = 0) -> Iterator[bytes]:
        """The bytes of a blob from `start` to `size`, exactly so many, in pieces of up to 256 KiB.

        What breaks off goes on where it stopped. The reader checks the digest, and closes the iterator if it ends early.
        Raises RegistryError, ContentError.
        """
        what = f"{reference}: layer {digest}"
        at, failures = start, 0
        while at < size:
            before = at
            try:
                for piece in self._blob_from(reference, digest, size=size, at=at):
                    at += len(piece)
                    if at > size:
                        raise ContentError(what, f"{size} bytes", "more")
                    yield piece
            except TransportError as error:
                failures = 1 if at - before >= wire.CHUNK else failures + 1
                if not error.retry or failures >= _TRIES:
                    raise _failed(reference, f"download layer {digest}", error) from error
                self._wait(_pause(failures, ""))

    def _blob_from(self, reference: Reference, digest: str, *, size: int, at: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={at}-"} if at else {}
        answer = self._ask(_Request(reference, f"download layer {digest}", "GET", f"blobs/{digest}", headers, patient=True))
        begins = _begin_of(answer)
        if begins not in (0, at):
            answer.close()
            raise TransportError("another range than was asked for", retry=True)
        if answer.length is not None and answer.length != size - begins:
            answer.close()
            raise ContentError(f"{reference}: layer {digest}", f"{size} bytes", f"{answer.length + begins}")
        skip = at - begins  # a server that ignores ranges sends the beginning again
        for piece in answer.chunks(self._clock):
            if skip >= len(piece):
                skip -= len(piece)
            else:
                piece = piece[skip:] if skip else piece
                skip = 0
                at += len(piece)
                yield piece
        if at < size:
            raise TransportError(f"the answer ended after {at} of {size} bytes", retry=True)

    def _read(self, request: _Request, limit: int) -> tuple[Answer, bytes]:
        def read() -> tuple[Answer, bytes]:
            answer = self._ask(request)
            return answer, answer.read_all(limit)

        return self._again(request, read)

    def _ask(self, request: _Request) -> Answer:
        """One answer with status 200 or 206, after as many tries as it is worth."""

        def ask() -> Answer:
            answer = self._authorized(request)
            if answer.status in (200, 206):
                return answer
            told = _explain(request, answer, host=self._host)
            if not told.retry:
                raise told
            raise _Busy(told, answer.headers.get("Retry-After") or "")

        return self._again(request, ask)

    def _again(self, request: _Request, act: Callable[[], _T]) -> _T:
        """Do it until it succeeds, or trying on is not worth it."""
        begun, failures = self._clock(), 0
        while True:
            try:
                return act()
            except TransportError as error:
                failures += 1
                again = error.retry and (error.at_once or request.patient)
                if not again or failures == _TRIES or self._clock() - begun > _PATIENCE:
                    raise _failed(request.reference, request.tried, error) from error
                self._wait(_pause(failures, error.after if isinstance(error, _Busy) else ""))

    def _authorized(self, request: _Request) -> Answer:
        scope = f"repository:{request.reference.repository}:pull"
        answer = self._followed(request, self._authorizer.header(scope))
        if answer.status != 401:
            return answer
        challenges = parse_challenges(", ".join(answer.headers.get_all("WWW-Authenticate") or []))
        try:
            header = self._authorizer.answer(challenges, scope, registry=self._origin, reach=self._reach_other)
        except ValueError as error:
            answer.close()
            raise TransportError(f"read the credentials for {self._host}: {error}", retry=False) from error
        except TransportError:
            answer.close()
            raise
        if not header:
            return answer
        answer.read_all(_WORDS_LIMIT)  # so that its connection serves again
        return self._followed(request, header)

    def _followed(self, request: _Request, authorization: str) -> Answer:
        """The answer behind redirects. Credentials go to the registry's own origin only."""
        target = f"/v2/{request.reference.repository}/{request.path}"
        answer = self._spoken_to(request, target, authorization)
        at = f"{self._origin}{target}"
        for _ in range(_HOPS):
            if answer.status not in (301, 302, 303, 307, 308):
                return answer
            answer.close()
            origin, target = wire.parse_url(answer.headers.get("Location") or "", base=at)
            at, own = f"{origin}{target}", origin == self._origin
            if origin.scheme == "http" and self._origin.scheme == "https":
                raise TransportError(f"it redirects to {origin}, which is not encrypted", retry=False)
            headers = {**request.headers, **({"Authorization": authorization} if own and authorization else {})}
            reach = self._reach_own if own else self._reach_other
            answer = self._transport.ask(request.method, origin, target, headers=headers, reach=reach)
        answer.close()
        raise TransportError(f"more than {_HOPS} redirects", retry=False)

    def _spoken_to(self, request: _Request, target: str, authorization: str) -> Answer:
        """Ask the registry itself; on loopback the first request finds out whether it speaks TLS."""
        headers = {**request.headers, **({"Authorization": authorization} if authorization else {})}
        origin = self._origin
        try:
            answer = self._transport.ask(request.method, origin, target, headers=headers, reach=self._reach_own)
        except wire.WrongScheme:
            if self._spoken:
                raise
        else:
            if self._spoken or origin.scheme == "https" or answer.status != 400 or not self._wants_tls():
                self._spoken = True
                return answer
            answer.close()
        # Nothing secret went out in the clear: credentials only follow a 401, and that would have been an answer.
        secure = Origin("https", origin.host, origin.port)
        answer = self._transport.ask(request.method, secure, target, headers=headers, reach=self._reach_own)
        self._origin, self._spoken = secure, True
        return answer

    def _wants_tls(self) -> bool:
        """Whether the 400 of a loopback server is that of one that speaks TLS: such servers say so."""
        try:
            answer = self._transport.ask("GET", self._origin, "/v2/", headers={}, reach=self._reach_own)
            return answer.status == 400 and b"HTTPS" in answer.read_all(_WORDS_LIMIT)
        except wire.WrongScheme:
            return True

    def _reach_own(self, kind: str) -> bool:
        self._kinds.add(kind)
        return True

    def _reach_other(self, kind: str) -> bool:
        """Others are on the public net, or where the registry itself is."""
        return kind == "public" or kind in self._kinds


def _first_origin(host: str) -> Origin:
    name = HUB_HOST if host == HUB else host
    parts = urllib.parse.urlsplit(f"//{name}")
    bare = parts.hostname or name
    secure = not wire.is_loopback_name(bare) or (wire.CERTS / name).is_dir()
    return Origin("https" if secure else "http", bare, parts.port or (443 if secure else 80))


def _digest_header(answer: Answer) -> str:
    """What the registry says the digest of a manifest is, "" where it says nothing that we can check."""
    digest = answer.headers.get("Docker-Content-Digest") or ""
    return digest if re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else ""


def _begin_of(answer: Answer) -> int:
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range") or "")
    return int(found[1]) if found else -1


def _pause(failures: int, retry_after: str) -> float:
    """Seconds to wait after so many failures; what the server asks for, within reason."""
    asked = float(retry_after) if re.fullmatch(r"[0-9]{1,5}", retry_after) else 0.0
    return float(min(max(_FIRST_PAUSE * 4 ** (failures - 1), asked), _LONGEST_PAUSE))


def _failed(reference: Reference, tried: str, error: TransportError) -> RegistryError:
    if isinstance(error, _Busy):
        return error.told
    return RegistryError(str(reference), tried, error.words, error.hint, retry=error.retry)


def _explain(request: _Request, answer: Answer, *, host: str) -> RegistryError:
    """The error of a status that is none of success."""
    status = answer.status
    try:
        words = _words_of(answer.read_all(_WORDS_LIMIT))
    except TransportError:
        words = ""
    name = str(request.reference)
    if status == 404:
        what = "no such image" if "manifests/" in request.path else "the registry lacks it"
        return RegistryError(name, request.tried, what + words, "check its name and tag")
    if status in (401, 403):
        hint = f"check the name; if it is not public, `docker login {host}` writes credentials that are used here"
        return RegistryError(name, request.tried, ("access denied" if status == 403 else "not authorized") + words, hint)
    hint = "the registry limits how often it may be asked; log in, or try later" if status == 429 else ""
    return RegistryError(name, request.tried, f"{host} said {status}{words}", hint, retry=status in _AGAIN)


def _words_of(body: bytes) -> str:
    """` (MESSAGE)` of a registry's error body, on one line and without anything that a terminal would obey."""
    try:
        first = json.loads(body)["errors"][0]
        text = str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    clean = "".join(c if c.isprintable() else " " for c in text[:200]).strip()
    return f" ({clean})" if clean else ""


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
