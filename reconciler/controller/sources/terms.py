"""What the manifests of a watched folder may ask for: all that those of root may, where only root can have written them.

Whoever may write to a manifest decides what runs, and so does who may write to the folder that it lies in. Where that is
somebody else, and nobody said what he may ask for, it is what a repository may: nothing that is the machine's. What lies
beside such a manifest is not taken either, for he could put a link to any file of the host in its place while it is read.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from reconciler.plan.allow import Allow


class Terms(Struct, frozen=True, kw_only=True):
    """What the manifests of one entry may ask for."""

    allow: Allow
    folder: str
    """Where what they name may lie; empty for nowhere."""
    others: str = ""
    """Who else may write them, in words; empty where nobody does."""


def choose_terms(allow: Allow | None, folder: Path, files: Iterable[Path]) -> Terms | None:
    """The terms of an entry of a watched folder, `allow` as its source says it; None: they may ask for everything."""
    others = next(
        (words for path in (folder, *{file.parent for file in files}, *files) if (words := _say_others(path))), ""
    )
    if allow is None and not others:
        return None
    chosen = allow or Allow()
    return None if chosen.everything else Terms(allow=chosen, folder="" if others else str(folder), others=others)


def _say_others(path: Path) -> str:
    """Who else than root, or the user that we are, may write to something."""
    try:
        found = os.stat(path)  # noqa: PTH116 links are followed: what is read counts
    except OSError:
        return ""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to uid {found.st_uid}"
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())):
        return f"others may write to {path} (mode {mode:04o})"
    return ""
