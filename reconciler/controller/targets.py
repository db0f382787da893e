"""Whom to tell, and of what: plain values. `notifications.py` does it."""

import ipaddress
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from reconciler.model.errors import Failed

MOST_URL = 4096
"""Characters of a URL."""

KINDS = ("failed", "rolled-back", "drifted", "recovered", "waiting")
_KIND_OF = {"back": "rolled-back", "drift": "drifted", "approval": "waiting"}
_SILENT = frozenset(("gone", "unserved", "notify", "polled"))
"""What is said and sent to nobody."""


class Target(Struct, frozen=True, kw_only=True):
    """A place to tell."""

    name: str
    form: str = "json"
    """json | slack"""
    url_file: Path
    on: frozenset[str] = frozenset(KINDS)
    stacks: frozenset[str] = frozenset()
    """Only those; all where empty."""


def name_kind(about: str, *, over: bool) -> str:
    """What kind of notification something is that is told; "" for what is none. `about` is as of `Keeper.say`."""
    word = about.partition(" ")[0]
    if word in _SILENT or (over and word == "approval"):
        return ""
    return "recovered" if over else _KIND_OF.get(word, "failed")


def read_url(path: Path) -> str:
    """The URL in a file that nobody else may read. Raises Failed, in words without it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST_URL + 1).decode("ascii").strip()
    except OSError as error:
        raise Failed(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed(f"{path} holds no URL") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Failed(f"{path}: others may read it (mode {stat.S_IMODE(mode):04o})", hint=f"chmod 600 {path}")
    _check_url(text, path)
    return text


def _check_url(text: str, path: Path) -> None:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port  # Reading the port checks it.
    except ValueError:
        raise Failed(f"{path} holds no URL") from None
    if len(text) > MOST_URL or any(character <= " " for character in text) or parts.scheme not in ("https", "http"):
        raise Failed(f"{path} holds no URL of https", hint="one line: https://hooks.example/…")
    if not host or parts.username is not None:
        raise Failed(f"{path}: its URL has no host, or a user and password", hint="one line: https://hooks.example/…")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Failed(f"{path}: http:// is open to everybody on the way", hint="use https://")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
