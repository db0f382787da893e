"""Image references: text as people write it -> the one canonical form that specs, records and registries use.

`redis` becomes `docker.io/library/redis:latest`, `host:5000/a/b@sha256:…` stays. Feeds `manifest/` (specs) and the native
engine's `registry/` (where to ask for what). Never asks anybody.

Source: the grammar of github.com/distribution/reference, which Docker, containerd and podman share.
"""

import re
from functools import lru_cache

from msgspec import Struct

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"

_HOST = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
    r"|\[[0-9a-fA-F:]{2,45}\])(?::([0-9]{1,5}))?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 255
"""Host and repository together, as Docker's parser has it."""
_LONGEST_TEXT = 600


class Reference(Struct, frozen=True):
    """A reference taken apart. With a digest the tag is for people only; without one there is always a tag."""

    host: str
    """Registry, with its port where one is written: `docker.io`, `localhost:5000`, `[::1]:5000`."""
    repository: str
    """`library/redis`"""
    tag: str = ""
    digest: str = ""
    """`sha256:…`"""

    @property
    def name(self) -> str:
        """Host and repository, without tag and digest."""
        return f"{self.host}/{self.repository}"

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest, or else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def canonical_reference(text: str) -> str:
    """The canonical text of a reference. Raises ValueError that says what is wrong with it."""
    return str(parse_reference(text))


@lru_cache(maxsize=4096)
def parse_reference(text: str) -> Reference:
    """Take a reference apart, with Docker's defaults filled in. Raises ValueError that says what is wrong with it."""
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"an image reference of {len(text)} characters is too long")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is no digest: expected sha256: and 64 hex digits in small letters")
    host, path = _split_host(rest)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise ValueError(f"{tag!r} is no tag: expected up to 128 letters, digits, _, . and -, not beginning with . or -")
    _check_repository(path, text)
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    if len(host) + len(path) + 1 > _LONGEST_NAME:
        raise ValueError(
            f"the name of an image may have {_LONGEST_NAME} characters, this one has {len(host) + len(path) + 1}"
        )
    return Reference(host, path, tag or ("" if digest else DEFAULT_TAG), digest)


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not _is_host(first):
        return DEFAULT_HOST, text
    found = _HOST.fullmatch(first)
    if not found:
        raise ValueError(f"{first!r} is no host of a registry")
    if found[1] and not 0 < int(found[1]) < 65536:
        raise ValueError(f"{found[1]} is no port: expected 1 to 65535")
    # Compat: capitals alone make `Example/app` a host; in small letters the same text is a repository of docker.io.
    host = first.lower() if _is_host(first.lower()) else first
    return (DEFAULT_HOST if host in ("index.docker.io", "registry-1.docker.io") else host), rest


def _is_host(first: str) -> bool:
    # Compat: this is how Docker tells `example/app` (a repository of docker.io) from `example.com/app`.
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _check_repository(path: str, text: str) -> None:
    if not path:
        raise ValueError(f"{text!r} names no image" if text else "an empty text names no image")
    for piece in path.split("/"):
        if not _PATH.fullmatch(piece):
            small = ": repositories have small letters only" if piece != piece.lower() else ""
            raise ValueError(f"{piece!r} can't be part of an image's name{small}")
    if _BARE_ID.fullmatch(path):
        raise ValueError(f"{path!r} is an id, not a name: write it as NAME@sha256:{path[:4]}…")
