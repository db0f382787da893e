"""Manifests here → all that they name, read with our own rights: what is sent to a controller that can't read it."""

import getpass
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from reconciler.manifest.files import HERE, Found, is_file
from reconciler.model.content import ENCRYPTED_LIMIT, LIMIT
from reconciler.model.errors import BadManifest, Failed, Problem
from reconciler.model.key import split_key
from reconciler.model.record import Stack
from reconciler.model.sent import Sent
from reconciler.model.spec import UNREAD, ContainerSpec
from reconciler.verbs.origin import STDIN, origin_of
from reconciler.verbs.plan import load
from reconciler.verbs.resolve import ENV_FILE_LIMIT
from reconciler.verbs.saved import is_plan

MOST = 20 << 20
"""Bytes that are sent at once: in base64 they fit into the body of a request."""


class Gathered(Struct, frozen=True):
    """What is to be sent."""

    files: dict[str, Sent]
    origins: dict[str, tuple[str, ...]]
    """By path of a manifest: its origin, and the one that it had before that was a repository's."""


class _Gathering:
    """This machine's files; what is read of them is kept, and read once."""

    hint = ""

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.host_paths = bool(sender) or os.geteuid() == 0  # Who answers judges again.
        self.sent: dict[str, Sent] = {}

    def look(self, path: str) -> Found:
        return HERE.look(path)

    def read(self, path: str, most: int) -> bytes:
        known = self.sent.get(os.path.abspath(path))  # noqa: PTH100 no link is followed: it is called as it was
        if known is not None and known.data is not None:
            return known.data[: most + 1]
        data = HERE.read(path, most)
        if len(data) <= most:
            self.keep(path, HERE.look(path), data)
        return data

    def read_regular(self, path: str, most: int) -> tuple[bytes, Found]:
        data, found = HERE.read_regular(path, most)
        self.keep(path, found, data)
        return data, found

    def names(self, folder: str) -> list[str]:
        return HERE.names(folder)

    def keep(self, path: str, found: Found, data: bytes | None = None) -> None:
        """What it is, with what is in it. Another machine's owners mean nothing there: as a checkout of git has it."""
        size = 0 if data is not None or found.folder else found.size
        sent = Sent(data=data, size=size, uid=found.uid, gid=found.gid, mode=found.mode)
        if self.sender:
            shared = (0o755 if found.mode & 0o100 else 0o644) if found.mode & 0o077 else found.mode
            sent = Sent(data=data, size=size, mode=shared)
        self.sent[os.path.abspath(path)] = sent  # noqa: PTH100
        total = sum(len(one.data) for one in self.sent.values() if one.data is not None)
        if total > MOST:
            raise Failed(
                f"the manifests and what they name have more than {MOST >> 20} MiB, the most that is sent",
                hint="apply them in parts, or as root on the host itself",
            )


def read_sender() -> str:
    """Who we are, and on which machine: `ann@laptop`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # Compat: OSError from Python 3.13 on.
        user = f"{os.geteuid()}"
    return f"{user}@{os.uname().nodename}"


def gather(
    paths: Sequence[Path],
    *,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    stdin: str | None = None,
    sender: str = "",
    lenient: bool = False,
) -> Gathered:
    """Manifests with all that they name, or the one saved plan. `lenient` where who answers may need less of them than is
    wrong here. Raises BadManifest, Failed.
    """
    files = _Gathering(sender)
    if len(paths) == 1 and paths[0] != STDIN and is_plan(paths[0]):
        files.keep(str(paths[0]), HERE.look(str(paths[0])), HERE.read(str(paths[0]), MOST))
        return Gathered(files.sent, {})
    try:
        stacks = load(paths, variables=variables, environment=environment, stdin=stdin, files=files)
        _read_all(stacks, files)
    except BadManifest:
        if not lenient:
            raise
        stacks = ()
    return Gathered(files.sent, dict(_find_origins(one.source) for one in stacks if one.source != "-"))


def _find_origins(path: str) -> tuple[str, tuple[str, ...]]:
    found = dict.fromkeys((origin_of(Path(path)), f"file:{os.path.realpath(path)}"))
    return os.path.abspath(path), tuple(found)  # noqa: PTH100


def _read_all(stacks: Sequence[Stack], files: _Gathering) -> None:
    if problems := [problem for stack in stacks for problem in _read_named(stack, files)]:
        raise BadManifest(problems)


def _read_named(stack: Stack, files: _Gathering) -> Iterator[Problem]:
    """Have all that a stack names be kept; what can't be."""
    for path, most, place in _named(stack):
        try:
            if most or (is_file(HERE, path) and HERE.look(path).size <= LIMIT):
                files.read(path, most or LIMIT)
            else:
                files.keep(path, HERE.look(path))
        except OSError as error:
            yield Problem(file=stack.source, path=place, text=f"{path} can't be read: {error.strerror}")


def _named(stack: Stack) -> Iterator[tuple[str, int, str]]:
    """Configs, secrets, env files and what is bound: a path, the most that is read of it, and where the manifest names it.
    With 0 it is read where it is a small file, and else is only there."""
    for source in (stack.sources or {}).values():
        if source.file:
            yield source.file, ENCRYPTED_LIMIT if source.form else LIMIT, source.path
    for key, spec in stack.specs.items():
        if not isinstance(spec, ContainerSpec):
            continue
        place = f"containers.{split_key(key).name}"
        yield from ((name, ENV_FILE_LIMIT, f"{place}.env_file") for name in spec.env_file)
        yield from ((mount.source, 0, f"{place}.mounts") for mount in spec.mounts.values() if mount.digest == UNREAD)
