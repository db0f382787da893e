"""Images that are here: a manifest's digest -> its config, layers and names. Read by every room that uses an image.

`ROOT/images/HEX.json` says that an image was made whole once, and by which names it was pulled. The content is in blobs;
the image room puts both there. It reads no layer and asks no registry.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from reconciler.engine.native.content.blobs import blob_path, ensure_folder, read_blob
from reconciler.engine.native.content.config import config_platform, diff_ids, parse_config
from reconciler.engine.native.content.documents import Manifest, parse_document
from reconciler.engine.native.layout import Layout
from reconciler.engine.protocol import LocalImage
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed, LockTimeout, NotFound


class Names(Struct, frozen=True):
    """References that an image was pulled by, each with what it named: the digest of an index, or the image's own."""

    digest: str
    targets: Mapping[str, str]


class Content(Struct, frozen=True):
    """What an image consists of."""

    digest: str
    manifest: Manifest
    config: dict[str, Any]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Of its layers, oldest first; as many as the manifest has layers."""
        return diff_ids(self.config)


def read_image(layout: Layout, digest: str) -> LocalImage:
    """An image that is here, by its manifest's digest. Raises NotFound, or ContentError where its bytes were altered.

    `size` is that of its layer blobs as they travelled; the image driver's `list_images` gives that of the layers stored.
    """
    content = read_content(layout, digest)
    if content is None:
        raise NotFound("image in the root", digest)
    created = content.config.get("created")
    return LocalImage(
        digest=digest,
        names=tuple(sorted(read_names(layout, digest).targets)),
        config=content.config,
        layers=tuple(layer.digest for layer in content.manifest.layers),
        size=sum(layer.size for layer in content.manifest.layers),
        platform=str(config_platform(content.config)),
        created=created if isinstance(created, str) else "",
    )


def read_content(layout: Layout, digest: str) -> Content | None:
    """Manifest and config of an image; None where one of them is missing. Raises ContentError where one was altered."""
    manifest_data = read_blob(layout, digest, what="the manifest")
    if manifest_data is None:
        return None
    manifest = _parse_manifest(manifest_data, digest)
    config_data = read_blob(layout, manifest.config.digest, what="the config")
    if config_data is None:
        return None
    return join_content(digest, manifest, _parse_config(config_data, digest), what=f"image {digest}")


def join_content(digest: str, manifest: Manifest, config: dict[str, Any], *, what: str) -> Content:
    """Manifest and config as one. Raises ContentError where they do not speak of the same number of layers."""
    ids = diff_ids(config)
    if len(ids) != len(manifest.layers):
        raise ContentError(what, f"{len(manifest.layers)} layers in its config", f"{len(ids)}")
    return Content(digest, manifest, config)


@lru_cache(maxsize=256)
def _parse_manifest(data: bytes, digest: str) -> Manifest:
    document = parse_document(data, media_type="", what=f"image {digest}")
    if not isinstance(document, Manifest):
        raise ContentError(f"image {digest}", "a manifest", "an index")
    return document


@lru_cache(maxsize=256)
def _parse_config(data: bytes, digest: str) -> dict[str, Any]:
    return parse_config(data, what=f"image {digest}")


# --- names ---


def read_names(layout: Layout, digest: str) -> Names:
    """The names of one image, none where it is not here."""
    try:
        data = json.loads((layout.images / f"{blob_path(layout, digest).name}.json").read_bytes())
        return Names(digest, {str(name): str(target) for name, target in data["names"].items()})
    except FileNotFoundError:
        return Names(digest, {})
    except (ValueError, KeyError, AttributeError):
        return Names(digest, {})  # names are for convenience: a spoilt file is as good as none


def list_names(layout: Layout) -> Iterator[Names]:
    """The names of every image here, in the order of their digests."""
    for path in sorted(layout.images.glob("*.json")):
        if len(path.stem) == 64:
            yield read_names(layout, f"sha256:{path.stem}")


def find_by_name(layout: Layout, name: str) -> tuple[str, str] | None:
    """The image that a canonical reference names here, and what it named at its registry; None where there is none."""
    for names in list_names(layout):
        if name in names.targets:
            return names.digest, names.targets[name]
    return None


def find_by_target(layout: Layout, target: str) -> str:
    """The image here that an index or manifest of this digest led to, "" where there is none."""
    for names in list_names(layout):
        if target == names.digest or target in names.targets.values():
            return names.digest
    return ""


def set_name(layout: Layout, digest: str, *, name: str = "", target: str = "", durable: bool = False) -> None:
    """Record that an image is here and, with `name`, that this reference now means it and no other."""
    ensure_folder(layout.images)
    with _lock(layout):
        before = read_names(layout, digest)
        here = _path(layout, digest).exists()
        if here and (not name or before.targets.get(name) == (target or digest)):
            return
        for other in list_names(layout) if name else ():
            if name in other.targets and other.digest != digest:
                _write(layout, other.digest, {key: value for key, value in other.targets.items() if key != name})
        _write(layout, digest, {**before.targets, **({name: target or digest} if name else {})}, durable=durable)


def remove_name(layout: Layout, name: str) -> str:
    """Take a name away; the digest of the image that bore it. Its content stays. Raises NotFound."""
    ensure_folder(layout.images)
    with _lock(layout):
        found = find_by_name(layout, name)
        if not found:
            raise NotFound("image here", name)
        targets = dict(read_names(layout, found[0]).targets)
        del targets[name]
        _write(layout, found[0], targets)
        return found[0]


def forget_image(layout: Layout, digest: str) -> None:
    """Remove the record of an image; its blobs are the caller's to remove."""
    _path(layout, digest).unlink(missing_ok=True)


def _path(layout: Layout, digest: str) -> Path:
    return layout.images / f"{blob_path(layout, digest).name}.json"


def _write(layout: Layout, digest: str, targets: Mapping[str, str], *, durable: bool = False) -> None:
    data = json.dumps({"names": dict(sorted(targets.items()))}, separators=(",", ":")).encode()
    try:
        files.write_atomic(_path(layout, digest), data, durable=durable)
    except OSError as error:
        raise Failed(f"record image {digest}: {error.strerror}", hint=f"look at {layout.root}") from error


def _lock(layout: Layout) -> files.Lock:
    try:
        return files.lock(layout.images / ".lock", doing="naming an image")
    except files.LockHeld as error:
        raise LockTimeout("the list of images", error.holder) from error
