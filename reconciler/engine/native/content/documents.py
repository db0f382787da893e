"""Bytes of manifests and indexes -> what they say, or a refusal. Pure.

The image room and `archive.py` read through it whatever a registry or a file gave. Everything is bounded, JSON with
duplicate keys is refused (two readers could see two images), and so is whatever claims to be two things at once.
Source: OCI image-spec 1.1 (manifest.md, image-index.md), Docker's schema 2.
"""

import json
import platform as _machine
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from msgspec import Struct

from reconciler.model.errors import ContentError, PlatformMissing

INDEX_TYPES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_TAR_GZIP = f"{OCI_TAR}+gzip"
MANIFEST_TYPES = frozenset({OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"})
_CONFIG_TYPES = frozenset({OCI_CONFIG, "application/vnd.docker.container.image.v1+json"})
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_PLAIN = frozenset({OCI_TAR, _DOCKER_LAYER})
_GZIP = frozenset({OCI_TAR_GZIP, f"{_DOCKER_LAYER}.gzip"})
_ZSTD = frozenset({f"{OCI_TAR}+zstd", f"{_DOCKER_LAYER}.zstd"})
_FOREIGN = ("nondistributable", "foreign")
_MOST_LAYERS = 500
"""More lowers than that no overlay takes."""
_MOST_MANIFESTS = 1000
LARGEST = 4 << 20
"""Bytes of a manifest, an index or a config."""
_LARGEST_BLOB = 1 << 40

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Descriptor(Struct, frozen=True):
    """What a manifest says of a blob. `size` in bytes as it travels."""

    media_type: str
    digest: str
    size: int


class Layer(Struct, frozen=True):
    """A layer blob. `packing` is gzip or none."""

    digest: str
    size: int
    packing: str


class Manifest(Struct, frozen=True):
    """One image of one platform; layers oldest first."""

    config: Descriptor
    layers: tuple[Layer, ...]


class Platform(Struct, frozen=True):
    """What an image is made for."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}" + (f"/{self.variant}" if self.variant else "")


class Entry(Struct, frozen=True):
    """One image that an index lists. `name` is its annotation org.opencontainers.image.ref.name, if it has one."""

    descriptor: Descriptor
    platform: Platform | None
    name: str = ""


class Index(Struct, frozen=True):
    """Images of several platforms."""

    entries: tuple[Entry, ...]


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises ContentError for all else: too long or deep, not UTF-8, duplicate keys, NaN."""
    if len(data) > LARGEST:
        raise ContentError(what, f"at most {LARGEST} bytes", f"{len(data)}")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise ContentError(what, "JSON of reasonable depth", "JSON that is nested too deep") from None
    except ValueError as error:
        raise ContentError(what, "JSON", f"{_shown(data)} ({error})"[:200]) from None
    if not isinstance(value, dict):
        raise ContentError(what, "a JSON object", type(value).__name__)
    return value


def parse_document(data: bytes, *, media_type: str, what: str) -> Manifest | Index:
    """A manifest or an index. `media_type` is what its carrier called it, "" if nothing. Raises ContentError."""
    value = parse_json(data, what)
    if value.get("schemaVersion") == 1:
        hint = "push the image again with a client of this decade"
        raise ContentError(what, "a schema 2 or OCI manifest", "a schema 1 manifest, which is not read", hint)
    said = _said_type(value, media_type, what)
    both = [name for name in ("manifests", "layers", "config", "fsLayers") if name in value]
    if "manifests" in value and len(both) > 1:
        raise ContentError(what, "a manifest or an index", f"something that is both ({', '.join(both)})")
    if said in INDEX_TYPES or (not said and "manifests" in value):
        return _parse_index(value, what)
    return _parse_manifest(value, what)


def choose_entry(index: Index, platform: Platform, *, reference: str) -> Descriptor:
    """The image of an index for a platform: the nearest variant, the first of equals. Raises PlatformMissing."""
    fitting = [
        (rank, place, entry.descriptor)
        for place, entry in enumerate(index.entries)
        if entry.platform and (rank := _variant_rank(platform, entry.platform)) is not None
    ]
    bare = [entry.descriptor for entry in index.entries if not entry.platform]
    if not fitting and len(bare) == 1 and len(index.entries) == 1:
        return bare[0]  # the only one; its config says what it is for
    if not fitting:
        there = [str(entry.platform) for entry in index.entries if entry.platform and entry.platform.os != "unknown"]
        raise PlatformMissing(reference, str(platform), sorted(set(there)))
    return min(fitting)[2]


def host_platform(machine: str = "") -> Platform:
    """The platform of this machine (of `uname -m`)."""
    machine = machine or _machine.machine()
    known = {
        "x86_64": Platform("linux", "amd64"),
        "aarch64": Platform("linux", "arm64", "v8"),
        "armv7l": Platform("linux", "arm", "v7"),
        "armv6l": Platform("linux", "arm", "v6"),
        "i686": Platform("linux", "386"),
    }
    return known.get(machine) or Platform("linux", machine)


def platform_fits(wanted: Platform, given: Platform) -> bool:
    """Whether an image made for `given` runs on `wanted`."""
    return _variant_rank(wanted, given) is not None


def _variant_rank(wanted: Platform, given: Platform) -> int | None:
    """How near a platform is to the wanted one: 0 is it, None will not run."""
    if (given.os, given.architecture) != (wanted.os, wanted.architecture):
        return None
    usual = {"arm64": "v8", "arm": "v7", "amd64": "v1"}.get(wanted.architecture, "")
    mine, theirs = wanted.variant or usual, given.variant or usual
    if mine == theirs:
        return 0
    if not (re.fullmatch(r"v\d{1,2}", mine) and re.fullmatch(r"v\d{1,2}", theirs)):
        return None
    # Compat: as containerd does, an older variant runs on a newer machine.
    return below if (below := int(mine[1:]) - int(theirs[1:])) > 0 else None


def _said_type(value: dict[str, Any], carried: str, what: str) -> str:
    """The media type; the document and its carrier may not contradict each other (CVE-2021-41190)."""
    known = INDEX_TYPES | MANIFEST_TYPES
    inside = value.get("mediaType", "")
    if not isinstance(inside, str) or (inside and inside not in known):
        raise ContentError(what, "an image manifest or index", f"a document of type {_shown(inside)}")
    if inside and carried in known and carried != inside:
        raise ContentError(what, f"the type {carried} that it was sent as", f"{inside}")
    return inside or (carried if carried in known else "")


def _parse_index(value: dict[str, Any], what: str) -> Index:
    listed = _list(value, "manifests", what, most=_MOST_MANIFESTS)
    entries = []
    for place, item in enumerate(listed):
        where = f"{what}: manifests[{place}]"
        descriptor = _parse_descriptor(item, where)
        # An index in an index is refused where it would be chosen; attestations and the like are never chosen.
        platform = item.get("platform")
        names = item.get("annotations")
        name = names.get("org.opencontainers.image.ref.name") if isinstance(names, dict) else ""
        entries.append(Entry(descriptor, _parse_platform(platform), name if isinstance(name, str) else ""))
    return Index(tuple(entries))


def _parse_platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    parts = [value.get("os"), value.get("architecture"), value.get("variant", "")]
    if not all(isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9._-]{0,40}", part) for part in parts):
        return None
    return Platform(*parts)


def _parse_manifest(value: dict[str, Any], what: str) -> Manifest:
    config = _parse_descriptor(value.get("config"), f"{what}: config")
    if config.media_type not in _CONFIG_TYPES:
        hint = "it may be a chart, a signature or another artifact"
        raise ContentError(what, "a container image", f"a config of type {_shown(config.media_type)}", hint)
    if config.size > LARGEST:
        raise ContentError(f"{what}: config", f"at most {LARGEST} bytes", f"{config.size}")
    layers = _list(value, "layers", what, most=_MOST_LAYERS)
    return Manifest(config, tuple(_parse_layer(item, f"{what}: layers[{n}]") for n, item in enumerate(layers)))


def _parse_layer(item: object, what: str) -> Layer:
    descriptor = _parse_descriptor(item, what)
    media = descriptor.media_type
    if any(word in media for word in _FOREIGN) or (isinstance(item, dict) and item.get("urls")):
        raise ContentError(what, "a layer that the registry holds", "a foreign layer, kept elsewhere by URL")
    if media in _ZSTD:
        hint = "push it with gzip layers"
        raise ContentError(f"{what} {descriptor.digest}", "gzip or no compression", "zstd layers are not built yet", hint)
    if media not in _PLAIN | _GZIP:
        raise ContentError(f"{what} {descriptor.digest}", "a tar layer", f"the type {_shown(media)}")
    return Layer(descriptor.digest, descriptor.size, "gzip" if media in _GZIP else "none")


def _parse_descriptor(item: object, what: str) -> Descriptor:
    if not isinstance(item, dict):
        raise ContentError(what, "a descriptor", type(item).__name__)
    media, digest, size = item.get("mediaType"), item.get("digest"), item.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ContentError(what, "a sha256 digest", _shown(digest))
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _LARGEST_BLOB:
        raise ContentError(what, "a size in bytes", _shown(size))
    if not isinstance(media, str):
        raise ContentError(what, "a media type", _shown(media))
    return Descriptor(media, digest, size)


def _list(value: dict[str, Any], name: str, what: str, *, most: int) -> Sequence[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise ContentError(what, f"a list of {name}", _shown(found))
    if len(found) > most:
        raise ContentError(what, f"at most {most} {name}", f"{len(found)}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _shown(value: object) -> str:
    """A foreign value, short and without anything that a terminal would obey."""
    if value is None:
        return "nothing"
    return ascii(value[:60] if isinstance(value, str | bytes) else value)[:80]
