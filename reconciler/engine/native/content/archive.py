"""An image archive (`docker save`, or an OCI layout in a tar) -> an image with a digest, and the bytes of its layers.

The image room loads what this reads. Members are never unpacked to paths: the outer tar is scanned once for where each one
begins, and read by seeking. Reading is bounded, and nothing is believed that its digest does not prove. It stores nothing.
Source: OCI image-layout 1.1; moby's image-spec v1.2 for manifest.json.
"""

import gzip
import hashlib
import io
import json
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct

from reconciler.engine.native.content import documents
from reconciler.engine.native.content.blobs import digest_of
from reconciler.engine.native.content.config import config_platform, diff_ids, parse_config
from reconciler.engine.native.content.documents import Index, Manifest, Platform, parse_document
from reconciler.model.errors import ContentError, Failed, PlatformMissing, words_of

_MOST_MEMBERS = 100_000
_LONGEST_NAME = 64 << 10
_BLOCK = 512
_CHUNK = 1 << 20


class _Member(Struct, frozen=True):
    offset: int
    size: int


class ArchiveImage(Struct, frozen=True):
    """The one image of an archive that is for this platform."""

    digest: str
    """Of its manifest: the archive's own, or one made of its config and layers, the same each time."""
    manifest_data: bytes
    manifest: Manifest
    config_data: bytes
    config: dict[str, Any]
    members: dict[str, _Member]
    """Where the layers are, by blob digest."""


class Archive:
    """An open archive. Not for several threads at once, but `read_layer` opens the file anew."""

    def __init__(self, path: Path, file: BinaryIO, members: dict[str, _Member]) -> None:
        self.path = path
        self._file = file
        self._members = members

    def choose_image(self, platform: Platform) -> ArchiveImage:
        """The image for a platform. Raises ContentError, PlatformMissing."""
        if "index.json" in self._members:
            return self._image_of_layout(platform)
        if "manifest.json" in self._members:
            return self._image_of_save(platform)
        hint = "make it with `docker save` or as an OCI archive"
        raise ContentError(f"{self.path}", "an image archive", "neither index.json nor manifest.json in it", hint)

    def _image_of_layout(self, platform: Platform) -> ArchiveImage:
        what = f"{self.path}: index.json"
        index = parse_document(self._small("index.json"), media_type="application/vnd.oci.image.index.v1+json", what=what)
        if not isinstance(index, Index):
            raise ContentError(what, "an index", "a manifest")
        fitting = [
            entry for entry in index.entries if entry.platform is None or documents.platform_fits(platform, entry.platform)
        ]
        if len({entry.descriptor.digest for entry in fitting}) > 1:
            raise self._several(len(index.entries))
        if not fitting:
            there = sorted({str(entry.platform) for entry in index.entries if entry.platform})
            raise PlatformMissing(str(self.path), str(platform), there)
        digest = fitting[0].descriptor.digest
        data = self._blob(digest)
        document = parse_document(data, media_type="", what=f"{self.path}: {digest}")
        if isinstance(document, Index):
            digest = documents.choose_entry(document, platform, reference=str(self.path)).digest
            data = self._blob(digest)
            document = parse_document(data, media_type="", what=f"{self.path}: {digest}")
            if isinstance(document, Index):
                raise ContentError(f"{self.path}: {digest}", "a manifest", "an index in an index")
        config_data = self._blob(document.config.digest)
        members = {layer.digest: self._find(_blob_name(layer.digest)) for layer in document.layers}
        for layer in document.layers:
            if members[layer.digest].size != layer.size:
                raise ContentError(
                    f"{self.path}: layer {layer.digest}", f"{layer.size} bytes", f"{members[layer.digest].size}"
                )
        return self._checked(digest, data, document, config_data, members, platform)

    def _image_of_save(self, platform: Platform) -> ArchiveImage:
        what = f"{self.path}: manifest.json"
        wrapped = b'{"images":' + self._small("manifest.json") + b"}"
        images = documents.parse_json(wrapped, what)["images"]
        if not isinstance(images, list) or not images or not isinstance(images[0], dict):
            raise ContentError(what, "a list of images", "none")
        if len(images) > 1:
            raise self._several(len(images))
        config_name, layer_names = images[0].get("Config"), images[0].get("Layers")
        if not isinstance(config_name, str) or not isinstance(layer_names, list) or len(layer_names) > 500:
            raise ContentError(what, "a Config and Layers", "something else")
        config_data = self._small(config_name)
        config = parse_config(config_data, what=f"{self.path}: {config_name}")
        found = [self._find(str(name)) for name in layer_names]
        if len(found) != len(diff_ids(config)):
            raise ContentError(what, f"{len(diff_ids(config))} layers as in its config", f"{len(found)}")
        described = [self._describe(member, diff_id) for member, diff_id in zip(found, diff_ids(config), strict=True)]
        data = _make_manifest(config_data, described)
        document = parse_document(data, media_type="", what=what)
        assert isinstance(document, Manifest)
        members = {str(layer["digest"]): member for layer, member in zip(described, found, strict=True)}
        return self._checked(digest_of(data), data, document, config_data, members, platform)

    def _describe(self, member: _Member, diff_id: str) -> dict[str, object]:
        """The descriptor of a layer. One that is not packed is its own diff id, which loading proves."""
        self._file.seek(member.offset)
        if member.size < 2 or self._file.read(2) != b"\x1f\x8b":
            return {"mediaType": documents.OCI_TAR, "digest": diff_id, "size": member.size}
        seen = hashlib.sha256()
        for piece in _pieces(self._file, member):
            seen.update(piece)
        return {"mediaType": documents.OCI_TAR_GZIP, "digest": f"sha256:{seen.hexdigest()}", "size": member.size}

    def _checked(
        self,
        digest: str,
        data: bytes,
        manifest: Manifest,
        config_data: bytes,
        members: dict[str, _Member],
        platform: Platform,
    ) -> ArchiveImage:
        config = parse_config(config_data, what=f"{self.path}: config")
        if len(diff_ids(config)) != len(manifest.layers):
            raise ContentError(
                f"{self.path}: config", f"{len(manifest.layers)} layers as in its manifest", f"{len(diff_ids(config))}"
            )
        given = config_platform(config)
        if not documents.platform_fits(platform, given):
            raise PlatformMissing(str(self.path), str(platform), [str(given)])
        return ArchiveImage(digest, data, manifest, config_data, config, members)

    def _blob(self, digest: str) -> bytes:
        data = self._small(_blob_name(digest))
        if digest_of(data) != digest:
            raise ContentError(f"{self.path}: {digest}", digest, digest_of(data))
        return data

    def _small(self, name: str) -> bytes:
        member = self._find(name)
        if member.size > documents.LARGEST:
            raise ContentError(f"{self.path}: {name!a}", f"at most {documents.LARGEST} bytes", f"{member.size}")
        self._file.seek(member.offset)
        data = self._file.read(member.size)
        if len(data) != member.size:
            raise ContentError(f"{self.path}: {name!a}", f"{member.size} bytes", f"{len(data)}: the archive is truncated")
        return data

    def _find(self, name: str) -> _Member:
        member = self._members.get(posixpath.normpath(name))
        if member is None:
            raise ContentError(f"{self.path}", f"{name[:100]!a} in it", "no such member")
        return member

    def _several(self, count: int) -> ContentError:
        hint = "save one image into each archive"
        return ContentError(f"{self.path}", "one image", f"{count}", hint)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Scan an archive. Raises Failed where it can't be read, ContentError where it is none."""
    try:
        with _open(path) as file:
            yield Archive(path, file, _scan(file, path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ContentError(f"{path}", "an image archive", f"broken gzip ({error})") from error
    except OSError as error:
        raise Failed(f"read the archive {path}: {error.strerror or error}", hint="check `archive:`") from error


def read_layer(path: Path, image: ArchiveImage, digest: str, *, start: int = 0) -> Iterator[bytes]:
    """The bytes of a layer blob from `start`, in pieces; the reader checks the digest, and closes it if it ends early."""
    member = image.members[digest]
    try:
        with _open(path) as file:
            yield from _pieces(file, _Member(member.offset + start, member.size - start))
    except (OSError, EOFError, zlib.error) as error:
        raise Failed(f"read the archive {path}: {words_of(error)}") from error


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    # Compat: `docker load` takes archives packed with gzip. Seeking in one unpacks it again from its beginning.
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value] # GzipFile is a BinaryIO in all but name


def _pieces(file: BinaryIO, member: _Member) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.size
    while left and (piece := file.read(min(_CHUNK, left))):
        left -= len(piece)
        yield piece


def _scan(file: BinaryIO, path: Path) -> dict[str, _Member]:
    """Where each member begins, links to other members resolved. Later members of a name win."""
    found: dict[str, _Member] = {}
    links: dict[str, str] = {}
    given: dict[str, str] = {}
    for _ in range(_MOST_MEMBERS):
        info = _read_header(file, path)
        if info is None:
            return found | {name: found[target] for name, target in links.items() if target in found}
        offset = file.tell()
        if info.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            given |= _read_extension(file, info, path)
        else:
            name = posixpath.normpath(given.get("path", info.name))
            if info.isreg():
                info.size = int(given["size"]) if re.fullmatch(r"\d{1,12}", given.get("size", "")) else info.size
                found[name] = _Member(offset, info.size)
            elif info.issym():
                links[name] = posixpath.normpath(
                    posixpath.join(posixpath.dirname(name), given.get("linkpath", info.linkname))
                )
            elif info.islnk():
                links[name] = posixpath.normpath(given.get("linkpath", info.linkname))
            given = {}
        file.seek(offset + -(-info.size // _BLOCK) * _BLOCK if info.size and not info.issym() else offset)
    raise ContentError(f"{path}", f"at most {_MOST_MEMBERS} members", "more")


def _read_header(file: BinaryIO, path: Path) -> tarfile.TarInfo | None:
    block = file.read(_BLOCK)
    if not block or block.count(0) == _BLOCK:
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError as error:
        raise ContentError(f"{path}", "an image archive (a tar)", f"{error} at byte {file.tell() - len(block)}") from None
    if not 0 <= info.size <= 1 << 40 or info.type == tarfile.GNUTYPE_SPARSE:
        raise ContentError(f"{path}", "members of plain bytes", f"{info.name[:100]!a}")
    return info


def _read_extension(file: BinaryIO, info: tarfile.TarInfo, path: Path) -> dict[str, str]:
    """Name, link and size out of a PAX header or GNU's long names."""
    if info.size > _LONGEST_NAME:
        raise ContentError(f"{path}", f"a member's header of at most {_LONGEST_NAME} bytes", f"{info.size}")
    data = file.read(info.size)
    if info.type != tarfile.XHDTYPE:
        text = data.rstrip(b"\x00").decode(errors="surrogateescape")
        return {"path" if info.type == tarfile.GNUTYPE_LONGNAME else "linkpath": text}
    given = {}
    stream = io.BytesIO(data)
    while line := stream.readline():
        key, equals, value = line.rstrip(b"\n").partition(b" ")[2].partition(b"=")
        if equals:
            given[key.decode(errors="replace")] = value.decode(errors="surrogateescape")
    return given


def _make_manifest(config: bytes, layers: list[dict[str, object]]) -> bytes:
    """A manifest for an archive that has none; the same bytes for the same content."""
    value = {
        "schemaVersion": 2,
        "mediaType": documents.OCI_MANIFEST,
        "config": {"mediaType": documents.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": layers,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
