"""Images that are here: a manifest's digest -> its config, layers and names. Read by every room that uses an image.

`ROOT/images/HEX.json` says that an image was made whole once, and by which names it was pulled. The content is in blobs;
the image room puts both there. It reads no layer and asks no registry.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from reconciler.engine.native.content.blobs import blob_path, ensure_folder, read_blob
from reconciler.engine.native.content.config import config_platform, diff_ids, parse_config
from reconciler.engine.native.content.documents import Manifest, parse_document
from reconciler.engine.native.layout import Layout
from reconciler.engine.protocol import LocalImage
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed, LockTimeout, NotFound

ARCHIVE = "archive:"


class Kept(Struct, frozen=True, omit_defaults=True):
    """What is recorded of an image that is here: what it is found by, and what it consists of."""

    digest: str
    targets: Mapping[str, str] = {}
    """References that it was pulled by, and archives (`archive:PATH`) that it was loaded from, each with what that named:
    the digest of an index, or the image's own."""
    former: tuple[str, ...] = ()
    """Names that have come to mean another image since."""
    blobs: tuple[str, ...] = ()
    """Digests of manifest, config and layer blobs: so that a prune knows what to leave even where one was altered."""
    diff_ids: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """The references alone, sorted."""
        return tuple(sorted(name for name in self.targets if not name.startswith(ARCHIVE)))


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
        names=read_kept(layout, digest).references,
        config=content.config,
        layers=tuple(layer.digest for layer in content.manifest.layers),
        size=sum(layer.size for layer in content.manifest.layers),
        platform=str(config_platform(content.config)),
        created=created if isinstance(created, str) and re.fullmatch(r"[0-9TZ:.+-]{10,40}", created) else "",
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


# --- what is recorded ---


def read_kept(layout: Layout, digest: str) -> Kept:
    """What is recorded of one image; nothing but its digest where it is not here, or where the file was spoilt."""
    try:
        return msgspec.json.decode(_path(layout, digest).read_bytes(), type=Kept)
    except (FileNotFoundError, msgspec.DecodeError):
        return Kept(digest)


def list_kept(layout: Layout) -> Iterator[Kept]:
    """What is recorded of every image here, in the order of their digests."""
    for path in sorted(layout.images.glob("*.json")):
        if len(path.stem) == 64:
            yield read_kept(layout, f"sha256:{path.stem}")


def find_by_name(layout: Layout, name: str) -> str:
    """The image that a canonical reference names here, "" where none does."""
    return next((kept.digest for kept in list_kept(layout) if name in kept.targets), "")


def find_by_target(layout: Layout, target: str) -> str:
    """The image here that an index or manifest of this digest led to, "" where there is none."""
    found = (kept.digest for kept in list_kept(layout) if target in (kept.digest, *kept.targets.values()))
    return next(found, "")


def bore_name(layout: Layout, digest: str, name: str) -> bool:
    """Whether an image here was brought by a name, even if that means another image by now."""
    if not digest.startswith("sha256:"):
        return False
    kept = read_kept(layout, digest)
    return name in kept.targets or name in kept.former


def archive_name(path: Path) -> str:
    """The name of an image that came from an archive."""
    return f"{ARCHIVE}{path}"


def keep_image(
    layout: Layout, digest: str, *, name: str, target: str, blobs: Iterable[str], diff_ids: Iterable[str], durable: bool
) -> None:
    """Record that an image is here, what it consists of, and that this name now means it and no other.

    `target` is what the name named. Again changes nothing. The content is here already.
    """
    ensure_folder(layout.images)
    with _lock(layout):
        now = read_kept(layout, digest)
        former = tuple(old for old in now.former if old != name)
        then = Kept(
            digest, {**now.targets, name: target}, former, tuple(sorted(set(blobs))), tuple(dict.fromkeys(diff_ids))
        )
        for other in list_kept(layout):
            if name in other.targets and other.digest != digest:
                _write(layout, _without(other, name))
        if then != now:
            _write(layout, then, durable=durable)


def forget_image(layout: Layout, digest: str) -> None:
    """Remove the record of an image; its blobs are the caller's to remove."""
    _path(layout, digest).unlink(missing_ok=True)


def remove_stale(layout: Layout, *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove records that a killed pull was writing: name and bytes of each. The caller keeps pulls away."""
    found = [(path, path.stat().st_size) for path in layout.images.glob(f"{files.STAGING}*")]
    for path, _ in () if dry_run else found:
        path.unlink()
    return [(path.name, size) for path, size in found]


def _without(kept: Kept, name: str) -> Kept:
    """The same image once a name has gone to another."""
    targets = {key: value for key, value in kept.targets.items() if key != name}
    return structs.replace(kept, targets=targets, former=tuple(sorted({*kept.former, name})))


def _path(layout: Layout, digest: str) -> Path:
    return layout.images / f"{blob_path(layout, digest).name}.json"


def _write(layout: Layout, kept: Kept, *, durable: bool = False) -> None:
    try:
        files.write_atomic(_path(layout, kept.digest), msgspec.json.encode(kept), durable=durable)
    except OSError as error:
        raise Failed(f"record image {kept.digest}: {error.strerror}", hint=f"look at {layout.root}") from error


def _lock(layout: Layout) -> files.Lock:
    try:
        return files.lock(layout.images / "lock", doing="naming an image")
    except files.LockHeld as error:
        raise LockTimeout("the list of images", error.holder) from error
