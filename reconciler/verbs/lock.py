"""Manifests → their lock files: every tag with the digest that it names now. Asks registries, and no root."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from reconciler.engine.protocol import ImageDriver
from reconciler.linux import files
from reconciler.manifest.lockfile import SUFFIX, is_tag, lock_path, render_lock
from reconciler.model.errors import Failed, Usage
from reconciler.model.key import kind_of, split_key
from reconciler.model.record import Stack
from reconciler.model.reference import canonical_reference
from reconciler.model.spec import ImageSpec

ALL = "*"


class Entry(Struct, frozen=True, kw_only=True):
    """What became of one tag."""

    file: str
    """The lock file."""
    tag: str
    digest: str
    """"" for what was taken out."""
    was: str
    """What the lock file said before, "" where it said nothing."""

    @property
    def what(self) -> str:
        """`new`, `kept`, `moved` or `removed`."""
        if not self.digest or not self.was:
            return "new" if self.digest else "removed"
        return "kept" if self.digest == self.was else "moved"

    def json(self) -> dict[str, str]:
        """In the form of `lock -o json`."""
        return {"file": self.file, "tag": self.tag, "digest": self.digest, "was": self.was, "what": self.what}


def compare(stacks: Sequence[Stack], images: ImageDriver, *, update: str = "") -> list[Entry]:
    """What is to stand in the lock file of each manifest. What is locked stays as it is; with `update` the tag of that
    image is asked for anew, of every one where it is ALL. Writes nothing. Raises RegistryError, Usage.
    """
    for stack in stacks:
        if stack.source == "-":
            raise Usage("what is piped in has no place for a lock file", hint="give the path of the manifest")
    anew = _find_anew(stacks, update)
    wanted = sorted({tag for stack in stacks for tag in _tags(stack) if tag in anew or tag not in _known(stack)})
    with ThreadPoolExecutor(8, thread_name_prefix="lock") as executor:
        now = dict(zip(wanted, executor.map(images.read_tag, wanted), strict=True))
    return [entry for stack in stacks for entry in _compare(stack, now, anew)]


def write(entries: Sequence[Entry]) -> None:
    """Write each lock file that changes. Raises Failed."""
    for file in dict.fromkeys(entry.file for entry in entries):
        mine = [entry for entry in entries if entry.file == file]
        if any(entry.what != "kept" for entry in mine):
            _write(Path(file), {entry.tag: entry.digest for entry in mine if entry.digest})


def _tags(stack: Stack) -> list[str]:
    """The tags of a stack that can be locked: what is pinned by hand, or never asked for, is not."""
    specs = [spec for spec in stack.specs.values() if isinstance(spec, ImageSpec) and spec.pull != "never"]
    return sorted({spec.reference for spec in specs if spec.reference and is_tag(spec.reference)})


def _known(stack: Stack) -> dict[str, str]:
    return stack.lock.digests if stack.lock is not None else {}


def _find_anew(stacks: Sequence[Stack], update: str) -> set[str]:
    """The tags that are asked for though they are locked."""
    tags = {tag for stack in stacks for tag in _tags(stack)}
    if update in ("", ALL):
        return tags if update else set()
    named = {
        spec.reference
        for stack in stacks
        for key, spec in stack.specs.items()
        if isinstance(spec, ImageSpec) and update in (split_key(key).name, spec.reference)
    }
    with suppress(ValueError):
        named.add(canonical_reference(update))
    if not named & tags:
        names = sorted(split_key(key).name for stack in stacks for key in stack.specs if kind_of(key).value == "image")
        raise Usage(f"--update {update}: no image of the manifest that can be locked", hint=f"there are {', '.join(names)}")
    return named & tags


def _compare(stack: Stack, now: dict[str, str], anew: set[str]) -> list[Entry]:
    known, tags = _known(stack), _tags(stack)
    file = str(lock_path(stack.source))
    fresh = {tag: now[tag] if tag in anew or tag not in known else known[tag] for tag in tags}
    return [
        Entry(file=file, tag=tag, digest=fresh.get(tag, ""), was=known.get(tag, "")) for tag in sorted(fresh.keys() | known)
    ]


def _write(path: Path, digests: dict[str, str]) -> None:
    """Put the file beside its manifest, of the same owner: others commit what root wrote into a work tree."""
    try:
        files.write_atomic(path, render_lock(digests).encode(), 0o644, durable=True)
        owner = path.with_name(path.name.removesuffix(SUFFIX)).stat()
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    except OSError as error:
        hint = "the lock file stands beside the manifest: that folder must be writable"
        raise Failed(f"{path}: it can't be written: {error.strerror}", hint=hint) from error
