"""How a bundle's own files were left, by which a look tells those that somebody changed: the part `bundle`.

left.json has, by name, what stat(2) said of each once it was written, and a digest. A look is one stat a file; only one
that is not as it was is read. writing.py calls `note` as its last step, under the container's lock; status.py reads the
part. What others do is found, not prevented: who may write here is root.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from reconciler.engine.native.runtime import bundle
from reconciler.engine.native.runtime.known import Read
from reconciler.model.observation import PRESENT, Part, altered
from reconciler.model.spec import ContainerSpec

LIST = "left.json"
ETC = {"hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf", "hostname": "/etc/hostname"}
"""Bound over the container's own, file by file."""

_OWN = (bundle.CONFIG, bundle.MONITOR, bundle.CONTAINER)


class Left(Struct, frozen=True, array_like=True):
    """A file as it was left."""

    inode: int
    size: int
    changed_at: int
    """Nanoseconds: st_ctime."""
    digest: str


def choose_bound(spec: ContainerSpec) -> tuple[str, ...]:
    """The files of ETC that a container sees: where the manifest mounts nothing else."""
    taken = spec.mounts | spec.configs | spec.secrets
    return tuple(name for name, target in ETC.items() if target not in taken)


def note(path: str) -> None:
    """Keep how all files are now."""
    found = {name: left for name in (*_OWN, *ETC) if (left := _look(f"{path}/{name}")) is not None}
    bundle.write_text(path, LIST, msgspec.json.encode(found).decode())


def read_part(path: str, *, bound: Collection[str], read: Read = bundle.read_json) -> Part:
    """Whether all files are as they were left, and those that a container may write are there.

    `bound` are those that a process sees over its own: it goes on seeing the file that was bound, whatever takes its name,
    and only a start shows it another one.
    """
    listed = _read_list(read(path, LIST))
    if not listed:
        return altered(LIST, "as written", "missing")
    for name in (*_OWN, *ETC):
        there = listed.get(name)
        found = _look(f"{path}/{name}", known=there)
        torn = name in bound and there is not None and (found is None or found.inode != there.inode)
        # What is in those of ETC is the container's to change, as in Docker: a VPN client writes its own resolv.conf.
        written = found is not None and there is not None and name in _OWN and found.digest != there.digest
        if found is None or there is None or written or torn:
            how = "missing" if found is None else "another file" if torn else "changed by others"
            return altered(name, "as written", how, "restart" if torn else "in-place")
    return PRESENT


def _look(file: str, known: Left | None = None) -> Left | None:
    """A file as it is, not read again where it is the `known` one still. None where it is no file."""
    try:
        found = os.lstat(file)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    seen = (found.st_ino, found.st_size, found.st_ctime_ns)
    if known is not None and seen == (known.inode, known.size, known.changed_at):
        return known
    with suppress(OSError):
        number = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(number, "rb", buffering=0) as opened:  # noqa: PTH123 - a descriptor
            return Left(*seen, hashlib.file_digest(opened, "sha256").hexdigest())
    return None


def _read_list(listed: dict[str, Any]) -> Mapping[str, Left]:
    try:
        return msgspec.convert(listed, dict[str, Left])
    except msgspec.ValidationError:  # Somebody wrote something else there: nothing is known.
        return {}
