"""Manifests as whoever asks names them -> stacks: read from where he stands, and called as he calls them."""

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import structs

from reconciler.api.asks import Manifests
from reconciler.model.errors import BadManifest
from reconciler.model.record import Stack
from reconciler.verbs import plan


def resolve_path(manifests: Manifests, name: str) -> Path:
    """Where a path that was given leads to on this machine."""
    return Path(os.path.join(manifests.folder, name))  # noqa: PTH118 no link is followed, nothing is taken away


def load(manifests: Manifests) -> tuple[Stack, ...]:
    """Read them. Raises BadManifest, in which files bear the names that they were given by."""
    here = manifests.folder == os.getcwd()  # noqa: PTH109 then names lead where they are to without us
    paths = [Path(name) if name == "-" or here else resolve_path(manifests, name) for name in manifests.paths]
    given = {str(path): name for path, name in zip(paths, manifests.paths, strict=True)}
    try:
        stacks = plan.load(paths, variables=manifests.variables, environment=manifests.environment, stdin=manifests.stdin)
    except BadManifest as error:
        problems = [structs.replace(one, file=_call(one.file, given)) for one in error.problems]
        raise BadManifest(problems) from error
    return tuple(_renamed(stack, given) for stack in stacks)


def _renamed(stack: Stack, given: dict[str, str]) -> Stack:
    lock = stack.lock and structs.replace(stack.lock, file=_call(stack.lock.file, given))
    return structs.replace(stack, source=_call(stack.source, given), lock=lock)


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
