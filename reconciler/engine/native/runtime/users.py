"""Turns a user as manifests and images write it into numbers, by the image's own passwd and group.

Feeds spec.py and exec. The two files are hostile: read inside the image's root, regular files of a bounded size only, and
a line that is not as passwd(5) says is no line. Never makes anybody root by accident.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from reconciler.linux import paths

_MOST_BYTES = 1 << 20
_MOST_GROUPS = 1024
_LARGEST_ID = 2**31 - 1
"""Compat: Docker's bound. 2**32 - 1 means `no id` to the kernel, and numbers above wrap to root's (CVE-2024-40635)."""

_NUMBER = re.compile(r"[0-9]+")
_NAME = re.compile(r"[^\s:\x00-\x1f\x7f]{1,256}")


class Identity(Struct, frozen=True):
    """Who a process runs as; `groups` are the supplementary ones, sorted."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class BadUser(ValueError):
    """The user can't be resolved; the text says why."""


def resolve_user(text: str, *, root: str | Path) -> Identity:
    """The identity for `USER`, `USER:GROUP` (names or numbers) or "" (root). `root` is the container's root on the host.

    A number is always an id, whatever passwd calls its users. A name's first line counts, as getpwnam(3) has it. Raises
    BadUser for a form that is none, a number out of range, and a name that is not there.
    """
    user, colon, group = text.partition(":")
    if (colon and not (user and group)) or not all(_NAME.fullmatch(part) for part in (user, group) if part) or ":" in group:
        raise BadUser(f"{text!r} is no user: expected USER or USER:GROUP")
    identity = _find_user(user or "0", root)
    if group:
        # Compat: a group that is named replaces the supplementary ones, as in Docker.
        return Identity(identity.uid, _find_group(group, root), (), identity.home)
    return identity


def _find_user(user: str, root: str | Path) -> Identity:
    number = _parse_id(user)
    for fields in _read_lines(root, "etc/passwd", count=7):
        uid, gid = _parse_id(fields[2]), _parse_id(fields[3])
        if uid is None or gid is None or not (uid == number if number is not None else fields[0] == user):
            continue
        home = fields[5] if fields[5].startswith("/") else "/"
        return Identity(uid, gid, _find_memberships(fields[0], root), home)
    if number is None:
        raise BadUser(f"the image's /etc/passwd has no user {user!r}")
    return Identity(number)


def _find_group(group: str, root: str | Path) -> int:
    number = _parse_id(group)
    if number is not None:
        return number
    for fields in _read_lines(root, "etc/group", count=4):
        gid = _parse_id(fields[2])
        if fields[0] == group and gid is not None:
            return gid
    raise BadUser(f"the image's /etc/group has no group {group!r}")


def _find_memberships(user: str, root: str | Path) -> tuple[int, ...]:
    found: set[int] = set()
    for fields in _read_lines(root, "etc/group", count=4):
        gid = _parse_id(fields[2])
        if gid is not None and user in fields[3].split(",") and len(found) < _MOST_GROUPS:
            found.add(gid)
    return tuple(sorted(found))


def _parse_id(text: str) -> int | None:
    """The number that a text is, None where it is none. Raises BadUser where it can't be an id."""
    if not _NUMBER.fullmatch(text):
        if text[:1] in ("-", "+") and text[1:].isdigit():
            raise BadUser(f"{text} is no id: it is below 0 or has a sign")
        return None
    if len(text) > 10 or int(text) > _LARGEST_ID:
        raise BadUser(f"{text} is no id: the largest is {_LARGEST_ID}")
    return int(text)


def _read_lines(root: str | Path, path: str, *, count: int) -> Iterator[list[str]]:
    """The lines that have exactly `count` fields. A file that is not there has none; one that can't be read as the small
    regular file it should be raises BadUser."""
    try:
        data = paths.read_in_root(root, path, limit=_MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BadUser(f"the image's /{path} can't be read: {error.strerror}") from error
    for line in data.decode("utf-8", "replace").split("\n"):
        fields = line.split(":")
        if len(fields) == count:
            yield fields
