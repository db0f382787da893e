"""Which layers are here: `ROOT/layers/HEX.{erofs,squashfs,tree}`, each with `HEX.json` beside it, which makes it be here.

`layer.py` makes and removes them; whoever only mounts or counts them needs this alone.

Durable without waiting: a layer is used before the disk has it. After a boot that was not the one that wrote it, one that
is not marked synced is compared with its recorded sha256 and is here only when that is right.
"""

import hashlib
import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import msgspec

from reconciler.engine.native.layout import Layout
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed

EROFS, SQUASHFS, TREE = "erofs", "squashfs", "tree"
"""The forms of a layer."""

_LOCK_SECONDS = 30.0


class RootEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer says of the root folder itself; it goes into the overlay's upper."""

    mode: int
    uid: int
    gid: int
    mtime: int = 0
    xattrs: dict[str, bytes] = {}


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The small file beside each layer image."""

    form: str
    """erofs | squashfs | tree"""
    size: int
    """Bytes on disk."""
    inode: int
    """Of the image: tells it from another that was renamed over it."""
    boot_id: str
    """The boot that wrote it."""
    synced: bool = False
    """The disk is known to have it."""
    sha256: str = ""
    """Of the image, hex; empty until it is computed, and for trees."""
    root: RootEntry | None = None
    opaque_root: bool = False
    """It hides everything below it."""


def layer_hex(diff_id: str) -> str:
    """The hex of a layer's digest, which is the only part of its name that becomes a path."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", diff_id):
        raise ContentError("a layer's diff_id", "sha256: and 64 hex digits", ascii(diff_id[:80]))
    return diff_id[7:]


def image_path(layout: Layout, diff_id: str, form: str) -> Path:
    """Where a layer's image is."""
    return layout.layers / f"{layer_hex(diff_id)}.{form}"


def read_facts(layout: Layout, diff_id: str) -> LayerFacts | None:
    """What is recorded of a layer, or None where it is not here. Does not look whether it is whole."""
    try:
        text = (layout.layers / f"{layer_hex(diff_id)}.json").read_bytes()
        return msgspec.json.decode(text, type=LayerFacts)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # A file that a power cut left empty is as good as none.


def has_layer(layout: Layout, diff_id: str) -> bool:
    """Whether a layer is here and whole. Reads only; may read all of an image once after an unclean boot."""
    facts = read_facts(layout, diff_id)
    if facts is None:
        return False
    path = image_path(layout, diff_id, facts.form)
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    if facts.form != TREE and (found.st_ino != facts.inode or found.st_size != facts.size):
        return False
    if facts.synced or facts.boot_id == read_boot_id():
        return True
    return facts.sha256 != "" and _hash_cached(str(path), found.st_ino, found.st_mtime_ns) == facts.sha256


def layer_size(layout: Layout, diff_id: str) -> int:
    """Bytes that a layer's image takes on disk, 0 where it is not here."""
    facts = read_facts(layout, diff_id)
    return facts.size if facts else 0


def list_layers(layout: Layout) -> list[str]:
    """The diff_ids of the layers that are here, sorted."""
    with suppress(FileNotFoundError):
        names = sorted(entry.name for entry in os.scandir(layout.layers))
        return [f"sha256:{name[:-5]}" for name in names if re.fullmatch(r"[0-9a-f]{64}\.json", name)]
    return []


@lru_cache(maxsize=1)
def read_boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@lru_cache(maxsize=1024)
def _hash_cached(path: str, inode: int, mtime: int) -> str:  # noqa: ARG001 - they tell one content from another
    return hash_image(path)


def hash_image(path: str | Path) -> str:
    """The sha256 of a layer's image, hex."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- on the disk


def lock_layers(layout: Layout) -> files.Lock:
    """Held while the folder of layers is changed."""
    return files.lock(layout.layers / "lock", _LOCK_SECONDS, doing="keep layers")


def write_facts(layout: Layout, diff_id: str, facts: LayerFacts, *, durable: bool = False) -> None:
    """Write the small file of a layer, under the lock."""
    path = layout.layers / f"{layer_hex(diff_id)}.json"
    files.write_atomic(path, msgspec.json.encode(facts), durable=durable)


def sync_layer(layout: Layout, diff_id: str) -> None:
    """Wait until the disk has a layer, and mark it: what can't be fetched again must not be lost. Raises Failed."""
    facts = read_facts(layout, diff_id)
    if facts is None or facts.synced:
        return
    path = image_path(layout, diff_id, facts.form)
    try:
        _sync_path(path, facts.form)
        with lock_layers(layout):
            now = read_facts(layout, diff_id)
            if now is not None and now.inode == facts.inode:
                write_facts(layout, diff_id, msgspec.structs.replace(now, synced=True), durable=True)
    except OSError as error:
        raise Failed(f"layer {diff_id}: sync it: {error.strerror or error}", hint="see the kernel's log") from error


def _sync_path(path: Path, form: str) -> None:
    if form == TREE:
        os.sync()  # A tree has thousands of files; the kernel's own order is the fastest.
    else:
        files.sync_file(path)
