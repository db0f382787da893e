"""Digests that are used -> everything else gone: images, blobs and layers. What the next pull would fetch again.

`drivers/image.py` calls it; who uses what is rows, which the caller has read. It removes no layer that a used image has.
"""

from collections.abc import Sequence

from reconciler.engine.native.content import blobs, images
from reconciler.engine.native.layers import layer as layers
from reconciler.engine.native.layout import Layout
from reconciler.linux import mounts
from reconciler.model.errors import ContentError


def prune_content(layout: Layout, used: Sequence[str], *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove what no image of `used` needs: its name or digest, and bytes, for each. Raises LockTimeout.

    An image's bytes are those of its layers that no other keeps; blobs that belong to no image are listed by themselves.
    """
    if not layout.blobs.is_dir():
        return []
    with blobs.keeping_pulls_away(layout):
        kept_blobs, kept_layers = _needed(layout, used)
        gone = [_remove_image(layout, names, kept_blobs, kept_layers, dry_run=dry_run) for names in _unused(layout, used)]
        for digest, size in [*blobs.list_blobs(layout)]:
            if digest not in kept_blobs and (not dry_run or not any(digest in listed for _, _, listed in gone)):
                gone.append((digest, size if dry_run else blobs.remove_blob(layout, digest), frozenset()))
        gone += [(name, size, frozenset()) for name, size in blobs.remove_stale(layout, dry_run=dry_run)]
        for diff_id in layers.list_layers(layout):
            if diff_id not in kept_layers and (not dry_run or not any(diff_id in listed for _, _, listed in gone)):
                size = layers.layer_size(layout, diff_id) if dry_run else _remove_layer(layout, diff_id)
                gone.append((diff_id, size, frozenset()))
        return [(name, size) for name, size, _ in gone]


def _unused(layout: Layout, used: Sequence[str]) -> list[images.Names]:
    return [names for names in images.list_names(layout) if names.digest not in used]


def _needed(layout: Layout, used: Sequence[str]) -> tuple[set[str], set[str]]:
    """Blobs and diff ids of the used images, and the indexes that their names lead through."""
    kept_blobs: set[str] = set()
    kept_layers: set[str] = set()
    for digest in used:
        if not digest.startswith("sha256:"):
            continue  # an image that was never known
        kept_blobs |= {digest, *images.read_names(layout, digest).targets.values()}
        found, ids = _content(layout, digest)
        kept_blobs |= found
        kept_layers |= ids
    return kept_blobs, kept_layers


def _content(layout: Layout, digest: str) -> tuple[set[str], set[str]]:
    try:
        content = images.read_content(layout, digest)
    except ContentError:
        content = None
    if content is None:
        return set(), set()
    blobs_ = {content.manifest.config.digest, *(layer.digest for layer in content.manifest.layers)}
    return blobs_, set(content.diff_ids)


def _remove_image(
    layout: Layout, names: images.Names, kept_blobs: set[str], kept_layers: set[str], *, dry_run: bool
) -> tuple[str, int, frozenset[str]]:
    """Remove one image with what only it and others that are unused have; what it is called, bytes, and what went."""
    found, ids = _content(layout, names.digest)
    going = ({names.digest, *names.targets.values()} | found) - kept_blobs
    layers_going = ids - kept_layers
    size = 0
    if not dry_run:
        images.forget_image(layout, names.digest)
    for digest in going:
        size += _blob_size(layout, digest) if dry_run else blobs.remove_blob(layout, digest)
    for diff_id in layers_going:
        size += layers.layer_size(layout, diff_id) if dry_run else _remove_layer(layout, diff_id)
    called = ", ".join(names.references) or names.digest
    return called, size, frozenset(going | layers_going)


def _remove_layer(layout: Layout, diff_id: str) -> int:
    """Remove a layer; it may be mounted still, for containers that are gone."""
    point = layout.layer_mounts / diff_id[7:]
    if mounts.is_mount_point(point):
        mounts.unmount(point)
    return layers.remove_layer(layout, diff_id)


def _blob_size(layout: Layout, digest: str) -> int:
    try:
        return blobs.blob_path(layout, digest).stat().st_size
    except FileNotFoundError:
        return 0
