"""Turns (desired, records) into completed specs: what an image says of itself folded into its containers' specs.

Feeds `make.py`. An image's VOLUME that no mount covers becomes a kept managed volume of the container; the image's
HEALTHCHECK holds where the manifest has none. Never asks a registry: what is not known stays as it was recorded.
"""

import posixpath
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from reconciler.model.health import merge_checks
from reconciler.model.key import Key, Kind, make_key, named_key, split_key
from reconciler.model.record import UNKNOWN, Desired, ImageFact, Record
from reconciler.model.spec import ContainerSpec, ImageSpec, Mount, Spec, VolumeSpec


class Completed(Struct, frozen=True, kw_only=True):
    """All specs of the desired stacks, with nothing left to be found out, and the digests they are pinned to."""

    specs: dict[Key, Spec]
    pins: dict[Key, ImageFact]


def complete_specs(desired: Desired, records: Mapping[Key, Record]) -> Completed:
    """Fold the facts into the specs. Keys come out sorted, so that the order of the input changes nothing."""
    wanted = {key: spec for stack in desired.stacks for key, spec in stack.specs.items()}
    pins = {key: _pin(fact, wanted.get(key), records.get(key)) for key, fact in sorted(desired.images.items())}
    specs: dict[Key, Spec] = {}
    for key in sorted(wanted):
        spec = wanted[key]
        if isinstance(spec, ContainerSpec):
            spec = _complete_container(key, spec, desired.images, records.get(key))
            specs.update({volume: VolumeSpec() for volume in implicit_volumes(key, spec)})
        specs[key] = spec
    return Completed(specs={key: specs[key] for key in sorted(specs)}, pins=pins)


def implicit_volumes(key: Key, spec: ContainerSpec) -> dict[Key, str]:
    """The volumes that a container has because its image declares them, each with the path it is mounted on."""
    prefix = _implicit_prefix(key)
    stack = split_key(key).stack
    return {
        named_key(Kind.VOLUME, stack, mount.source): target
        for target, mount in sorted(spec.mounts.items())
        if mount.type == "volume" and mount.source.startswith(prefix)
    }


def _pin(fact: ImageFact, spec: Spec | None, record: Record | None) -> ImageFact:
    """What could not be asked for is what is recorded, as long as the manifest names the same source."""
    if fact.digest != UNKNOWN or record is None or not record.image:
        return fact
    if not (isinstance(spec, ImageSpec) and isinstance(record.spec, ImageSpec)):
        return fact
    same = (spec.reference, spec.archive) == (record.spec.reference, record.spec.archive)
    return replace(fact, digest=record.image) if same else fact


def _complete_container(
    key: Key, spec: ContainerSpec, facts: Mapping[Key, ImageFact], record: Record | None
) -> ContainerSpec:
    fact = facts.get(make_key(Kind.IMAGE, split_key(key).stack, spec.image))
    if fact is None or fact.digest == UNKNOWN:
        return _keep_recorded(key, spec, record)
    if fact.volumes:
        added = {target: _implicit_mount(key, target) for target in _uncovered(fact.volumes, spec.mounts)}
        if added:
            spec = replace(spec, mounts={**spec.mounts, **added})
    return replace(spec, healthcheck=merge_checks(spec.healthcheck, fact.healthcheck))


def _keep_recorded(key: Key, spec: ContainerSpec, record: Record | None) -> ContainerSpec:
    """Nothing is known of the image: what its last known one added stays, so that an outage changes no container."""
    if record is None or not isinstance(record.spec, ContainerSpec):
        return spec
    targets = [target for target in implicit_volumes(key, record.spec).values() if target not in spec.mounts]
    if targets:
        spec = replace(spec, mounts={**spec.mounts, **{target: _implicit_mount(key, target) for target in targets}})
    return replace(spec, healthcheck=merge_checks(spec.healthcheck, record.spec.healthcheck))


def _uncovered(volumes: tuple[str, ...], mounts: Mapping[str, Mount]) -> Iterator[str]:
    # Compat: Docker puts an anonymous volume below a mount of the user's (`/var/lib/postgresql` with the image's VOLUME
    # `/var/lib/postgresql/data`), and people find their data in neither. Here a mount covers what lies below it.
    targets = {posixpath.normpath(target) for target in mounts}
    for volume in sorted({_absolute(volume) for volume in volumes}):
        if volume != "/" and not any(above in targets for above in _upwards(volume)):
            yield volume


def _absolute(path: str) -> str:
    # normpath keeps two leading slashes as they are (POSIX says they may mean something); here they mean one.
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def _upwards(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = posixpath.dirname(path)
    yield path


def _implicit_mount(key: Key, target: str) -> Mount:
    return Mount(type="volume", source=_implicit_prefix(key) + target)


def _implicit_prefix(key: Key) -> str:
    """No name in a manifest has an `@`, so that nobody writes the name of such a volume by accident."""
    parts = split_key(key)
    return f"{parts.name}-{parts.index}@"
