"""Turns (wanted, recorded, seen) into what containers would lose sight of: data at a path that an apply would leave empty.

Called by `make.py` beside `decide.py`. A rule looks at the paths of a container, never at names alone: a volume renamed, a
mount taken away, an image whose VOLUME moved and a container under a new name are one mistake. Reads no clock, no file.
"""

import posixpath
from collections.abc import Container, Iterator, Mapping

from msgspec import Struct

from reconciler.model.key import Key, Kind, name_in, named_key, sort_key, split_key, split_replica_volume
from reconciler.model.observation import Phase
from reconciler.model.record import UNKNOWN
from reconciler.model.spec import ContainerSpec, Mount, VolumeSpec
from reconciler.plan.scene import Scene, find_moved, image_key, volume_keys


class Loss(Struct, frozen=True, kw_only=True):
    """Data that would be out of sight. It goes on with `--accept-data-loss KEY`, and the data themselves are kept."""

    key: Key
    """What must be accepted: the container that would miss its data; or a volume, where nothing can be accepted."""
    text: str
    """What there is now and what there would be, a line each."""
    ways: tuple[str, ...]
    """What to do to keep the data."""
    note: str
    """What the plan says once it is accepted."""


def find_losses(scene: Scene, *, prune: bool) -> list[Loss]:
    """All losses of the containers that are wanted, in the order of keys."""
    found: list[Loss] = []
    for key in sorted(scene.specs, key=sort_key):
        wanted = scene.wanted(key)
        if wanted is None:
            continue
        recorded = scene.recorded(key)
        if recorded is not None and recorded.mounts != wanted.mounts:
            found += _of_container(key, recorded, wanted, scene)
        elif recorded is None and prune and wanted.mounts:
            found += _of_renamed(key, wanted, scene)
    return found


def find_moves(specs: Mapping[Key, object], records: Container[Key]) -> dict[Key, Key]:
    """The volumes that take over a folder, each with the one that it was: the new name is not on record, the old one is."""
    return {
        key: old
        for key, spec in specs.items()
        if isinstance(spec, VolumeSpec) and key not in records and (old := find_moved(key, spec, records)) is not None
    }


def find_doubles(scene: Scene) -> list[Loss]:
    """Volumes that say where they come from, while both names are on record: nobody can tell which data are meant."""
    return [
        Loss(
            key=key,
            text=f"it is on record, and so is {old}, which it is to be moved from",
            ways=(_drop_one(key, old),),
            note="",
        )
        for key, spec in sorted(scene.specs.items())
        if isinstance(spec, VolumeSpec) and key in scene.records
        if (old := find_moved(key, spec, scene.records)) is not None
    ]


def _drop_one(key: Key, old: Key) -> str:
    name = split_key(key).name
    return (
        f"if {name} has the data, take `moved:` out of the manifest; if {split_key(old).name} has them, delete the other"
        f" one and who mounts it (`reconcile delete {key}`), then apply"
    )


def _of_container(key: Key, recorded: ContainerSpec, wanted: ContainerSpec, scene: Scene) -> Iterator[Loss]:
    for target, old in sorted(recorded.mounts.items()):
        if wanted.mounts.get(target) == old or not _has_data(key, old, scene):
            continue
        yield from _at_path(key, target, old, wanted, scene)


def _at_path(key: Key, target: str, old: Mount, wanted: ContainerSpec, scene: Scene) -> Iterator[Loss]:
    """The rules for one path that has data, first match wins."""
    place, new = _find_cover(target, wanted)
    was = f"{target} is {_say(key, old)}, which is not empty"
    volume = _volume(key, new)
    old_volume = _volume(key, old)
    # 1. The same volume, whatever it is called: only another part of it.
    if place == target and volume is not None and old_volume is not None and scene.moves.get(volume, volume) == old_volume:
        if new is not None and new.subpath != old.subpath:
            before, after = (f"its folder {mount.subpath}" if mount.subpath else "the whole of it" for mount in (old, new))
            way = f"move what is in {before} to {after} by hand first"
            yield _loss(key, f"{was};\n{before} is mounted, and {after} would be", (way,), old, target)
    # 2. A volume that is not there yet, or that nothing is in.
    elif volume is not None and _is_empty(volume, scene):
        state = "empty" if volume in scene.records else "new and empty"
        yield _loss(
            key, f"{was};\nit would be {volume}, which is {state}", _ways(key, volume, old_volume, scene), old, target
        )
    # 3. Nothing that keeps data: it would be written to the writable layer, or to memory.
    elif (new is None or new.type == "tmpfs") and old_volume is not None and not old.read_only:
        if any(scene.moves.get(each, each) == old_volume for each in volume_keys(key, wanted)):
            return  # It is mounted at another path, where the data are seen.
        instead = "memory (tmpfs)" if new is not None else "in the container's writable layer"
        way = f"mount {name_in(split_key(key).stack, old_volume)} at {target} again"
        if "@/" in old.source:
            way = f"declare a volume with `moved: {{from: {_yaml(old.source)}}}`, and mount it at {target}"
        yield _loss(key, f"{was};\nit would be {instead}", (way,), old, target)


def _of_renamed(key: Key, wanted: ContainerSpec, scene: Scene) -> Iterator[Loss]:
    """A container that is new, of the image of one that leaves, and with an empty volume where that one has data."""
    for other in sorted(scene.records, key=sort_key):
        leaving = scene.recorded(other)
        if leaving is None or other in scene.specs or not _same_image(key, wanted, other, leaving, scene):
            continue
        for target, old in sorted(leaving.mounts.items()):
            volume, old_volume = _volume(key, wanted.mounts.get(target)), _volume(other, old)
            if volume is None or old_volume is None or old.read_only or scene.moves.get(volume, volume) == old_volume:
                continue
            if old_volume in scene.mounted or not _has_data(other, old, scene) or not _is_empty(volume, scene):
                continue
            text = f"{target} would be {volume}, which is new;\n{other}, which leaves, has data there in {old_volume}"
            yield _loss(key, text, _ways(key, volume, old_volume, scene), old, target)


def _loss(key: Key, text: str, ways: tuple[str, ...], old: Mount, target: str) -> Loss:
    return Loss(
        key=key, text=text, ways=ways, note=f"no longer sees {_say(key, old)} at {target}: accepted, its data are kept"
    )


def _ways(key: Key, volume: Key, old_volume: Key | None, scene: Scene) -> tuple[str, ...]:
    name, _ = split_replica_volume(split_key(volume).name)
    if old_volume is None:
        return (f"stop {split_key(key).name}, and copy what is there into {name} by hand",)
    old = name_in(split_key(key).stack, old_volume)
    if volume in scene.records:
        return (f"mount {old} as before, or copy its data into {name} first",)
    if "@/" in name:
        return (f"declare a volume with `moved: {{from: {_yaml(old)}}}`, and mount it at {name.partition('@')[2]}",)
    return (f"write `moved: {{from: {_yaml(old)}}}` below {name} under `volumes:`",)


def _find_cover(target: str, wanted: ContainerSpec) -> tuple[str, Mount | None]:
    """The mount that a path would lie in, and where that is; None for the writable layer."""
    place = target
    while place != "/":
        if place in wanted.mounts:
            return place, wanted.mounts[place]
        place = posixpath.dirname(place)
    return place, None


def _has_data(key: Key, mount: Mount, scene: Scene) -> bool:
    """Whether there is something to lose; of a path of the host that was written to nobody knows."""
    volume = _volume(key, mount)
    if volume is None:
        return mount.type == "bind" and not mount.read_only
    status = scene.status(volume)
    return status.phase is Phase.PRESENT and not status.empty


def _is_empty(volume: Key, scene: Scene) -> bool:
    """Whether a volume of the planned stacks would be found empty: it is not there yet, or nothing is in it."""
    if volume in scene.moves:
        return False
    if volume in scene.records:
        return scene.status(volume).phase is Phase.PRESENT and scene.status(volume).empty
    spec = scene.specs.get(volume)
    # What is mounted from elsewhere may hold the data already; nobody looks before it is mounted.
    return isinstance(spec, VolumeSpec) and (not spec.driver_opts or spec.driver_opts.get("type") == "tmpfs")


def _same_image(key: Key, wanted: ContainerSpec, other: Key, leaving: ContainerSpec, scene: Scene) -> bool:
    if split_key(key).stack != split_key(other).stack:
        return False
    fact = scene.pins.get(image_key(key, wanted))
    digest = fact.digest if fact is not None else UNKNOWN
    return wanted.image == leaving.image or digest == scene.records[other].image


def _volume(key: Key, mount: Mount | None) -> Key | None:
    if mount is None or mount.type != "volume":
        return None
    return named_key(Kind.VOLUME, split_key(key).stack, mount.source)


def _say(key: Key, mount: Mount) -> str:
    volume = _volume(key, mount)
    return str(volume) if volume is not None else f"the host's {mount.source}"


def _yaml(name: str) -> str:
    """A name as it stands in a flow map."""
    return name if name.replace("-", "").replace("_", "").replace(".", "").isalnum() else f'"{name}"'
