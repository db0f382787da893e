"""Configs, secrets and small bound files of a container: copies in its bundle, on tmpfs, which are bound into it read-only.

Each file's name is a digest of its target, so that no path is made of a user's words and a target keeps its inode for as
long as the bundle stays: a bind mount shows what was written in place, not what was renamed over it. What each file was
given, and what stat(2) said of it then, stands in contents.json: a look is one stat a file, and the kernel's change time
can't be set back. Called under the container's lock, but for looking.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct, structs

from reconciler.engine.native.runtime import bundle
from reconciler.engine.protocol import ReadContent
from reconciler.linux import files, paths
from reconciler.model.content import kept_files, pack
from reconciler.model.errors import Failed
from reconciler.model.observation import PRESENT, Part, altered, missing
from reconciler.model.record import Made
from reconciler.model.signals import parse_signal
from reconciler.model.spec import ContainerSpec, FileMount, Sensitive

FOLDER, LIST = "contents", "contents.json"


class Written(Struct, frozen=True, omit_defaults=True):
    """A file as it was left."""

    digest: str
    uid: int
    gid: int
    mode: int
    inode: int = 0
    size: int = 0
    changed_at: int = 0
    """Nanoseconds: st_ctime."""


def file_paths(path: str, spec: ContainerSpec) -> dict[str, str]:
    """Where the copy of each file lies, by target."""
    return {target: f"{path}/{FOLDER}/{_name(target)}" for target, _ in kept_files(spec)}


def check_targets(path: str, made: Made) -> None:
    """Raise Failed where a file would be mounted over a folder of the image: the runtime would say so after the old
    container was stopped, and in the kernel's words."""
    assert isinstance(made.spec, ContainerSpec)
    mounted = made.spec.mounts.keys()
    for target, file in kept_files(made.spec):
        if any(target.startswith(f"{above}/") for above in mounted):
            continue
        with suppress(OSError):
            os.close(paths.open_in_root(f"{path}/{bundle.ROOTFS}", target.lstrip("/"), os.O_PATH | os.O_DIRECTORY))
            raise Failed(
                f"{made.key}: {file.source} can't be mounted at {target}: the image has a folder there",
                hint="give it another `target`, a file's path",
            )


def write_files(path: str, made: Made, read_content: ReadContent) -> set[str]:
    """Bring all copies to the spec, in place, and remove those that it has no more: the targets of which a copy changed.

    One that is as it was left is not read. Raises Failed.
    """
    assert isinstance(made.spec, ContainerSpec)
    wanted = dict(kept_files(made.spec))
    before = _read_list(path)
    if not wanted and not before:
        return set()
    after: dict[str, Written] = {}
    changed = set()
    try:
        os.makedirs(f"{path}/{FOLDER}", mode=0o700, exist_ok=True)  # noqa: PTH103 - as all paths here
        for target, file in wanted.items():
            name = _name(target)
            if (there := before.get(name)) is not None and _is_left(path, name, there) and _fits(there, file):
                after[name] = there
                continue
            after[name] = _write(f"{path}/{FOLDER}/{name}", read_content(file.digest), file)
            changed.add(target)
    except OSError as error:
        raise Failed(f"{made.key}: write the files that it sees: {error.strerror}", hint="see `df /run`") from error
    bundle.write_text(path, LIST, msgspec.json.encode(after).decode())
    # Order: the list first; a secret that nobody lists any more may go at any time.
    bundle.remove(f"{path}/{FOLDER}", *(before.keys() - after.keys()))
    return changed


def choose_signals(old: Made, new: Made, changed: Collection[str]) -> set[int]:
    """What a container is sent: for files that were written anew, or that an update which died had written already."""
    assert isinstance(old.spec, ContainerSpec)
    assert isinstance(new.spec, ContainerSpec)
    before = dict(kept_files(old.spec))
    return {
        parse_signal(file.signal)
        for target, file in kept_files(new.spec)
        if file.signal and (target in changed or (target in before and before[target].digest != file.digest))
    }


def read_part(path: str, spec: ContainerSpec) -> dict[str, Part]:
    """The part `contents`, where there are files: whether each is as it was left, and as the spec wants it."""
    wanted = dict(kept_files(spec))
    if not wanted:
        return {}
    listed = _read_list(path)
    for target, file in sorted(wanted.items()):
        name = _name(target)
        there = listed.get(name)
        inode = _read_inode(path, name)
        if not inode:
            # What is bound in the container is a file without a name: only a start shows it another one.
            return {"contents": missing("restart")}
        if there is None:
            return {"contents": altered(target, "as written", "not listed")}
        if inode != there.inode:
            return {"contents": altered(target, "as written", "another file", "restart")}
        if not _fits(there, file):
            return {"contents": altered(target, "as wanted", "another one")}
        if not _is_left(path, name, there):
            return {"contents": altered(target, "as written", "changed by others")}
    return {"contents": PRESENT}


def read_copies(path: str, spec: ContainerSpec) -> dict[str, Sensitive]:
    """What the copies of a bundle hold, by the digest that they should have: for a store that was lost."""
    found = {}
    for target, file in kept_files(spec):
        with suppress(OSError), open(f"{path}/{FOLDER}/{_name(target)}", "rb") as copy:  # noqa: PTH123
            found[file.digest] = pack(copy.read())
    return found


def _name(target: str) -> str:
    return hashlib.sha256(target.encode(errors="surrogateescape")).hexdigest()[:16]


def _read_list(path: str) -> Mapping[str, Written]:
    try:
        return msgspec.convert(bundle.read_json(path, LIST), dict[str, Written])
    except msgspec.ValidationError:  # Somebody wrote something else there: nothing is known, and all is written anew.
        return {}


def _read_inode(path: str, name: str) -> int:
    """0 where there is none of this name."""
    try:
        return os.lstat(f"{path}/{FOLDER}/{name}").st_ino
    except OSError:
        return 0


def _fits(there: Written, file: FileMount) -> bool:
    return (there.digest, there.uid, there.gid, there.mode) == (file.digest, file.uid, file.gid, file.mode)


def _is_left(path: str, name: str, there: Written) -> bool:
    try:
        found = os.lstat(f"{path}/{FOLDER}/{name}")
    except OSError:
        return False
    return (found.st_ino, found.st_size, found.st_ctime_ns) == (there.inode, there.size, there.changed_at)


def _write(place: str, data: bytes, file: FileMount) -> Written:
    """Write one in place. Nobody else opens it before its owner and mode are right, nor sees more than it may after."""
    number = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        # Order: owner before mode, for a chown takes setuid bits; both before the bytes.
        os.fchown(number, file.uid, file.gid)
        os.fchmod(number, file.mode)
        # Race: who reads meanwhile may see a part of each; there is no other way to change a file that is bound.
        files.write_all(number, data)
        os.ftruncate(number, len(data))
        found = os.fstat(number)
    finally:
        os.close(number)
    left = Written(digest=file.digest, uid=file.uid, gid=file.gid, mode=file.mode)
    return structs.replace(left, inode=found.st_ino, size=found.st_size, changed_at=found.st_ctime_ns)
