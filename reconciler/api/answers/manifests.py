"""Manifests as whoever asks names them -> stacks: read from where he stands or of what he sent, called as he calls them.

Only who has the rights of this process may have its files read: for anybody else all that there is was sent.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from reconciler.api.asks import Manifests
from reconciler.manifest.files import HERE, Files, SentFiles
from reconciler.model.errors import BadManifest, Usage
from reconciler.model.record import Stack
from reconciler.verbs import plan
from reconciler.verbs.audit import asking_uid
from reconciler.verbs.origin import STDIN, origin_of

LONGEST = 4096
"""Bytes of a path or an origin."""
_SENDER = re.compile(r"[\w.+-]{1,64}@[\w.-]{1,255}", re.ASCII)


def resolve_path(manifests: Manifests, name: str) -> Path:
    """Where a path that was given leads to."""
    return Path(os.path.join(manifests.folder, name))  # noqa: PTH118 no link is followed, nothing is taken away


def open_files(manifests: Manifests) -> Files:
    """What is read. Raises Usage for names that can't be those of files."""
    rights = asking_uid() in (0, os.geteuid())
    if manifests.files is None and rights:
        return HERE
    if manifests.sender and not _SENDER.fullmatch(manifests.sender):
        raise Usage("sender: expected USER@HOST")
    for path in (*(manifests.files or {}), *manifests.origins):
        if not path.startswith("/") or path != os.path.normpath(path) or "\0" in path or len(path) > LONGEST:
            raise Usage(f"files: {path[:200]!r}: expected an absolute path without `.` and `..`")
    return SentFiles(manifests.files or {}, sender=manifests.sender, host_paths=rights)


def load(manifests: Manifests, files: Files, *, pinned: bool = True) -> tuple[Stack, ...]:
    """Read them. Raises BadManifest, in which files bear the names that they were given by."""
    here = manifests.folder == os.getcwd() and files is HERE  # noqa: PTH109 then names lead where they are to without us
    paths = [Path(name) if name == "-" or here else resolve_path(manifests, name) for name in manifests.paths]
    given = {str(path): name for path, name in zip(paths, manifests.paths, strict=True)}
    origins = None if files is HERE else _Origins(manifests)
    try:
        stacks = plan.load(
            paths, variables=manifests.variables, environment=manifests.environment, stdin=manifests.stdin, pinned=pinned,
            files=files, folder=Path(manifests.folder), origin_of=origins,
        )  # fmt: skip
    except BadManifest as error:
        problems = [structs.replace(one, file=_call(one.file, given)) for one in error.problems]
        raise BadManifest(problems) from error
    formers = [_find_former(stack, origins) for stack in stacks]
    return tuple(_renamed(stack, given, former) for stack, former in zip(stacks, formers, strict=True))


class _Origins:
    """Whose a manifest is that was sent: who sends it knows its repository, and nobody else."""

    def __init__(self, manifests: Manifests) -> None:
        self._said = manifests.origins
        self._machine = f"{manifests.sender}:" if manifests.sender else ""

    def __call__(self, path: Path, named: str | None) -> str:
        if named or path == STDIN:
            return origin_of(path, named)
        return self.all_of(path)[0]

    def all_of(self, path: Path) -> tuple[str, ...]:
        """Its origin, and what it was before. Raises Usage."""
        return tuple(map(self._check, self._said.get(os.path.normpath(path)) or (f"file:{path}",)))

    def _check(self, said: str) -> str:
        kind, _, rest = said.partition(":")
        if kind not in ("git", "file") or (kind == "file" and not rest.startswith("/")) or not said.isprintable():
            raise Usage(f"origins: {said[:200]!r}: expected git:URL:PATH or file:PATH")
        return said if kind == "git" else f"file:{self._machine}{rest}"


def _find_former(stack: Stack, origins: _Origins | None) -> str:
    """What the origin of a manifest in a repository was before that had a remote."""
    if not stack.origin.startswith("git:"):
        return ""
    return f"file:{os.path.realpath(stack.source)}" if origins is None else origins.all_of(Path(stack.source))[-1]


def _renamed(stack: Stack, given: dict[str, str], former: str) -> Stack:
    lock = stack.lock and structs.replace(stack.lock, file=_call(stack.lock.file, given))
    return structs.replace(stack, source=_call(stack.source, given), lock=lock, former=former)


def _call(file: str, given: dict[str, str]) -> str:
    """What a file is called by who gave it, or the folder that it is in."""
    for path in _parents(file):
        if path in given:
            return given[path] + file[len(path) :]
    return file


def _parents(file: str) -> Iterable[str]:
    while file:
        yield file
        file, _, _ = file.rpartition("/")
