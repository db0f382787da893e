"""A manifest's path → whose it is: the repository's URL and path inside it in a git work tree, else the real path."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import structs

from reconciler.model.record import Stack, StackRecord

STDIN = Path("-")


def origin_of(path: Path, named: str | None = None) -> str:
    """`name:…` where the manifest names its origin, `stdin` for what was piped in, `git:URL:PATH` in a work tree with a
    remote, else `file:REALPATH`.

    Reads `.git/config` as text: no program of a repository runs.
    """
    if named:
        return f"name:{named}"
    if path == STDIN:
        return "stdin"
    real = Path(os.path.realpath(path))
    for folder in real.parents:
        url = _remote(folder / ".git")
        if url:
            return f"git:{url}:{real.relative_to(folder)}"
    return f"file:{real}"


def as_recorded(stack: Stack, recorded: StackRecord | None) -> Stack:
    """The stack by the origin on record, where that is the same file from before its work tree got a remote."""
    same = recorded is not None and stack.former and recorded.origin == stack.former
    return structs.replace(stack, origin=stack.former) if same else stack


def gone_origins(stacks: Mapping[str, StackRecord], names: Sequence[str]) -> frozenset[str]:
    """The origins of some stacks on record whose file is not there any more."""
    origins = {stacks[name].origin for name in names if name in stacks}
    files = {origin for origin in origins if origin.startswith("file:/")}  # Of another machine nobody knows.
    return frozenset(origin for origin in files if not Path(origin.removeprefix("file:")).exists())


def _remote(git: Path) -> str:
    """The URL of the remote `origin` without its credentials, "" where there is none."""
    if not git.exists():
        return ""
    from configparser import ConfigParser, Error

    parser = ConfigParser(strict=False, interpolation=None)
    try:
        if git.is_file():  # a worktree or a submodule: the file names the folder
            git = Path(git.parent / git.read_text().removeprefix("gitdir:").strip())
            common = git / "commondir"
            git = git / common.read_text().strip() if common.is_file() else git
        parser.read_string((git / "config").read_text(errors="replace"))
    except (OSError, Error):
        return ""
    url = parser.get('remote "origin"', "url", fallback="")
    scheme, slashes, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if slashes else url
