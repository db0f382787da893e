"""A repository's URL, and the names of branches and tags: what is accepted of them, and how people see them. Pure.

The URL decides which protocol git may speak, and nothing that it meets can widen that. What looks like an option is refused
here already, though every name reaches git as a full reference or behind `--`.
"""

import ipaddress
import posixpath
import re
from urllib.parse import urlsplit

from msgspec import Struct

from reconciler.model.errors import Usage

_SCHEMES = ("https", "http", "ssh", "file")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[^@/:\[\]]+|\[[^\]]+\]):(?P<path>(?!//).+)")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
"""git-check-ref-format(1)."""


class Place(Struct, frozen=True, kw_only=True):
    """Where a repository is."""

    url: str
    """As git gets it: without a password, for one in it is refused."""
    scheme: str
    """https | http | ssh | file"""
    host: str = ""

    @property
    def bare(self) -> str:
        """As a work tree's remote is known by: without a user."""
        scheme, slashes, rest = self.url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if slashes else self.url


def parse_place(text: str) -> Place:
    """Read a URL, an absolute path, or `user@host:path`. Raises Usage, which shows no password."""
    if any(character <= " " or character in '\x7f"\\' for character in text) or text.startswith("-"):
        raise Usage("--git: the URL holds spaces, quotes or control characters, or looks like an option")
    if text.startswith("/"):
        return Place(url=f"file://{text}", scheme="file")
    if "://" not in text:
        return _parse_short(text)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port  # Reading the port checks it.
    except ValueError as error:
        raise Usage(f"--git: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise Usage(f"--git: {parts.scheme}:// is not spoken", hint="https://, ssh://, user@host:path, or file:///path")
    if parts.password is not None or (parts.username and parts.scheme in ("https", "http")):
        raise Usage(
            f"--git: the URL of {host} holds a name or password", hint="take it out, and give --credentials FILE instead"
        )
    if parts.query or parts.fragment:
        raise Usage("--git: the URL holds a ? or #", hint="give --branch, --tag or --path instead")
    if parts.scheme == "file":
        if host or not parts.path.startswith("/"):
            raise Usage("--git: expected file:///absolute/path")
        return Place(url=text, scheme="file")
    _check_host(host, parts.netloc, parts.username or "")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Usage(f"--git: http:// to {host} is open to everybody on the way", hint="use https:// or ssh://")
    return Place(url=text.rstrip("/"), scheme=parts.scheme, host=host)


def _parse_short(text: str) -> Place:
    found = _SCP.fullmatch(text)
    if found is None or text.startswith(("ext::", "fd::")):
        raise Usage(f"--git {text}: no repository's URL", hint="https://, ssh://, user@host:path, or file:///path")
    _check_host(found["host"].strip("[]"), found["host"], found["user"] or "")
    return Place(url=text, scheme="ssh", host=found["host"].strip("[]"))


def _check_host(host: str, written: str, user: str) -> None:
    bare = f"[{host}]" if ":" in host else host
    if not _HOST.fullmatch(bare) or (user and not _USER.fullmatch(user)):
        raise Usage(f"--git: {written} is no host that can be reached", hint="letters, digits, dots and dashes")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_ref(name: str, flag: str) -> str:
    """The name of a branch or a tag. Raises Usage for one that git would not have, or that looks like an option."""
    bad = (
        not name
        or name.startswith(("-", "/", "."))
        or name.endswith(("/", ".", ".lock"))
        or _BAD_IN_REF.search(name)
        or "/." in name
        or name == "@"
    )
    if bad:
        raise Usage(f"{flag} {name!a}: no name that git allows", hint="git check-ref-format --help says which are")
    return name


def check_folder(path: str) -> str:
    """A folder in the repository, `""` for its top. Raises Usage for one that leads out."""
    found = posixpath.normpath(path.strip("/")) if path.strip("/") else ""
    if found == ".":
        return ""
    if found.startswith("..") or any(character < " " for character in found) or ".git" in found.lower().split("/"):
        raise Usage(f"--path {path!a}: expected a folder in the repository")
    return found


def check_file(path: str, flag: str) -> str:
    """A key or a list of keys that ssh is to read. Raises Usage for a path that its configuration can't say."""
    if any(character < " " or character in '"\\$' for character in path):
        raise Usage(f"{flag} {path!a}: ssh takes no path with quotes, backslashes or dollars", hint="rename it")
    return path


def name_source(place: Place, folder: str) -> str:
    """What a git source is called, everywhere: its branch is not part of it, so that another one takes over its stacks."""
    return f"{place.url}:{folder}" if folder else place.url
