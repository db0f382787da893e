"""`replicas: N` and volumes that are `per_replica: true` -> one spec for each. The last step of `desire.py`.

How many there are is no part of a spec: 1 to 3 is two containers more and changes nothing of the one that is there. What
only one can have (a host port, an address, a volume to write) is a fault of a container that has replicas.
"""

from msgspec.structs import replace

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path
from reconciler.model.key import Kind, container_key, make_key, replica_volume
from reconciler.model.spec import ContainerSpec, Mount, VolumeSpec

SHARED = "shared"


def blame_replicas(draft: Draft) -> None:
    """What replicas can't have together, and volumes that are to be both shared and one each."""
    for name, written in draft.section("volumes").items():
        if _is_per_replica(draft, name) and "access" in written:
            path: Path = ("volumes", name, "access")
            draft.blame(
                path, "one volume for each replica is shared by none", "keep `access` or `per_replica`", at_key=True
            )
    for name, spec in draft.containers.items():
        if (count := _count(draft, name)) > 1:
            _blame_fixed(draft, name, spec, count)
            _blame_writers(draft, name, spec, count)


def _blame_fixed(draft: Draft, name: str, spec: ContainerSpec, count: int) -> None:
    path: Path = ("containers", name)
    if spec.ports:
        text = f"a port of the host is for one container, and {name} has {count} replicas, until ports are balanced"
        hint = "publish a port of a container that stands before them and asks for them by name"
        draft.blame((*path, "ports"), text, hint, at_key=True)
    for network, attachment in spec.networks.items():
        if attachment.ipv4:
            text = f"a fixed address is for one container, and {name} has {count} replicas, until ports are balanced"
            draft.blame((*path, "networks", network, "ipv4"), text, "leave it out: each replica keeps the address it gets")


def _blame_writers(draft: Draft, name: str, spec: ContainerSpec, count: int) -> None:
    """Compat: Compose lets replicas write one volume. A database does not survive that, so here it must be meant."""
    for target, mount in spec.mounts.items():
        volume = draft.specs.get(make_key(Kind.VOLUME, draft.name, mount.source))
        alone = isinstance(volume, VolumeSpec) and volume.access != SHARED and not _is_per_replica(draft, mount.source)
        if mount.type == "volume" and alone and not mount.read_only:
            text = f"{count} replicas of {name} would write the volume {mount.source} together, at {target}"
            hint = (
                f"volumes: {{{mount.source}: {{per_replica: true}}}} gives each its own, {{access: shared}} lets them; "
                "or mount it read_only"
            )
            draft.blame(("containers", name, "mounts"), text, hint, at_key=True)


def draft_replicas(draft: Draft) -> None:
    """Add the specs of all containers, and of volumes that each replica has of its own."""
    own = {name for name in draft.section("volumes") if _is_per_replica(draft, name)}
    specs = {name: draft.specs.pop(make_key(Kind.VOLUME, draft.name, name)) for name in sorted(own)}
    for name, spec in draft.containers.items():
        for index in range(1, _count(draft, name) + 1):
            draft.specs[container_key(draft.name, name, index)] = _with_volumes(spec, own, index)
            for mount in spec.mounts.values():
                if mount.type == "volume" and mount.source in own:
                    volume = make_key(Kind.VOLUME, draft.name, replica_volume(mount.source, index))
                    draft.specs[volume] = specs[mount.source]


def _with_volumes(spec: ContainerSpec, own: set[str], index: int) -> ContainerSpec:
    """The spec of one replica: the same object for all where nothing tells them apart."""
    if not any(_is_of(mount, own) for mount in spec.mounts.values()):
        return spec
    mounts = {
        target: replace(mount, source=replica_volume(mount.source, index)) if _is_of(mount, own) else mount
        for target, mount in spec.mounts.items()
    }
    return replace(spec, mounts=mounts)


def _is_of(mount: Mount, volumes: set[str]) -> bool:
    return mount.type == "volume" and mount.source in volumes


def _is_per_replica(draft: Draft, volume: str) -> bool:
    written = draft.section("volumes").get(volume) or {}
    return bool(written.get("per_replica")) and ("volumes", volume) not in draft.borrowed


def _count(draft: Draft, name: str) -> int:
    count: int = draft.section("containers")[name].get("replicas", 1)
    return count
