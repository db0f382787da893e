"""Digests that are used -> everything else gone: images, blobs and layers. What the next pull would fetch again.

`drivers/image.py` calls it; who uses what is rows, which the caller has read. It removes nothing that a used image has.
"""

from collections.abc import Iterator, Sequence
from itertools import chain

from msgspec import Struct

from reconciler.engine.native.content import blobs, images
from reconciler.engine.native.layers import layer as layers
from reconciler.engine.native.layers import stored
from reconciler.engine.native.layout import Layout
from reconciler.linux import mounts
from reconciler.model.errors import ContentError


class Going(Struct, frozen=True):
    """Something to remove: an image with what only it has, or a blob or layer that belongs to none."""

    called: str
    image: str = ""
    """Its digest, where it is an image."""
    blobs: frozenset[str] = frozenset()
    layers: frozenset[str] = frozenset()


def prune_content(layout: Layout, used: Sequence[str], *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove what no image of `used` needs: what each was called, and its bytes. Raises LockTimeout.

    With `dry_run` it only says what would go. What two unused images share is counted with the first. A layer that is
    mounted stays. A used image of which neither record nor manifest is whole has nothing: it has to be fetched anew.
    """
    if not layout.blobs.is_dir() and not layout.layers.is_dir():
        return []
    with blobs.keeping_pulls_away(layout):
        going = [*_choose(layout, used)]
        gone = [(one.called, _measure(layout, one) if dry_run else _remove(layout, one)) for one in going]
        stale = [place.remove_stale(layout, dry_run=dry_run) for place in (blobs, images, layers)]
        return [*gone, *chain.from_iterable(stale)]


def _choose(layout: Layout, used: Sequence[str]) -> Iterator[Going]:
    kept_blobs: set[str] = set()
    kept_layers: set[str] = {diff_id for diff_id in stored.list_layers(layout) if _is_mounted(layout, diff_id)}
    for digest in used:
        if digest.startswith("sha256:"):  # else an image that was never known
            found, ids = _content(layout, images.read_kept(layout, digest))
            kept_blobs |= found
            kept_layers |= ids
    for kept in images.list_kept(layout):
        if kept.digest not in used:
            found, ids = _content(layout, kept)
            called = ", ".join(kept.references) or kept.digest
            yield Going(called, kept.digest, frozenset(found - kept_blobs), frozenset(ids - kept_layers))
            kept_blobs |= found
            kept_layers |= ids
    yield from (Going(one, blobs=frozenset({one})) for one, _ in blobs.list_blobs(layout) if one not in kept_blobs)
    yield from (Going(one, layers=frozenset({one})) for one in stored.list_layers(layout) if one not in kept_layers)


def _content(layout: Layout, kept: images.Kept) -> tuple[set[str], set[str]]:
    """Blobs of an image, with the indexes that its names lead through, and its layers."""
    found = {kept.digest, *kept.targets.values(), *kept.blobs}
    if kept.blobs:
        return found, set(kept.diff_ids)
    try:
        content = images.read_content(layout, kept.digest)
    except ContentError:  # A power cut spoils both. An error would end every prune until somebody pulls that image again.
        content = None
    if content is None:
        return found, set()
    found |= {content.manifest.config.digest, *(layer.digest for layer in content.manifest.layers)}
    return found, set(content.diff_ids)


def _is_mounted(layout: Layout, diff_id: str) -> bool:
    return mounts.is_mount_point(layout.layer_mounts / diff_id[7:])


def _measure(layout: Layout, going: Going) -> int:
    size = sum(blobs.blob_size(layout, digest) for digest in going.blobs)
    return size + sum(stored.layer_size(layout, diff_id) for diff_id in going.layers)


def _remove(layout: Layout, going: Going) -> int:
    if going.image:
        # Order: its record goes first, for that is what makes an image be here.
        images.forget_image(layout, going.image)
    size = sum(blobs.remove_blob(layout, digest) for digest in going.blobs)
    return size + sum(layers.remove_layer(layout, diff_id) for diff_id in going.layers)
