"""All that the planner looks at, in one value: what is wanted, recorded and seen, with the look-ups of several steps.

Made by `make.py` and `delete.py`. Decides nothing, and is never changed.
"""

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from functools import cached_property

from reconciler.model.key import Key, Kind, make_key, named_key, replica_volume, split_key, split_replica_volume
from reconciler.model.observation import MISSING, Observation, Phase, Status
from reconciler.model.record import ImageFact, Record
from reconciler.model.spec import ContainerSpec, Spec, VolumeSpec


class Scene:
    """Wanted, recorded, seen. `specs` are completed, `records` are those of the planned stacks only."""

    def __init__(
        self,
        *,
        specs: Mapping[Key, Spec],
        pins: Mapping[Key, ImageFact],
        records: Mapping[Key, Record],
        observation: Observation,
        moves: Mapping[Key, Key] = {},
    ) -> None:
        self.specs = specs
        self.pins = pins
        self.records = records
        self.observation = observation
        self.moves = moves
        """Volumes that take over a folder, each with the one that it was."""

    def status(self, key: Key) -> Status:
        """What was seen; MISSING for what nobody looked for."""
        return self.observation.statuses.get(key, MISSING)

    def is_there(self, key: Key) -> bool:
        """Whether something recorded is on the machine."""
        return key in self.records and self.status(key).phase is not Phase.MISSING

    def wanted(self, key: Key) -> ContainerSpec | None:
        """The container that is wanted under a key."""
        spec = self.specs.get(key)
        return spec if isinstance(spec, ContainerSpec) else None

    def recorded(self, key: Key) -> ContainerSpec | None:
        """The container that is recorded under a key."""
        record = self.records.get(key)
        return record.spec if record is not None and isinstance(record.spec, ContainerSpec) else None

    def is_shared(self, volume: Key) -> bool:
        """Whether several may write a volume together."""
        record = self.records.get(volume)
        spec = self.specs.get(volume) or (record.spec if record is not None else None)
        return isinstance(spec, VolumeSpec) and spec.access == "shared"

    def sitting_on(self, network: Key) -> tuple[Key, ...]:
        """The containers recorded on a network, sorted."""
        return self._sitting.get(network, ())

    def named(self, stack: str, name: str) -> tuple[Key, ...]:
        """All containers that a name in a stack means, wanted or recorded, sorted."""
        return self._named.get((stack, name), ())

    def mounting(self, volume: Key) -> tuple[Key, ...]:
        """The containers recorded with a volume, sorted."""
        specs = ((key, self.recorded(key)) for key in sorted(self.records))
        return tuple(key for key, spec in specs if spec is not None and volume in volume_keys(key, spec))

    @cached_property
    def mounted(self) -> frozenset[Key]:
        """The volumes that wanted containers mount, by the names that they have now."""
        wanted = ((key, spec) for key in self.specs if (spec := self.wanted(key)) is not None)
        return frozenset(self.moves.get(volume, volume) for key, spec in wanted for volume in volume_keys(key, spec))

    @cached_property
    def _sitting(self) -> dict[Key, tuple[Key, ...]]:
        found: dict[Key, list[Key]] = defaultdict(list)
        for key in sorted(self.records):
            spec = self.recorded(key)
            if spec is not None:
                for network in network_keys(key, spec):
                    found[network].append(key)
        return {network: tuple(keys) for network, keys in found.items()}

    @cached_property
    def _named(self) -> dict[tuple[str, str], tuple[Key, ...]]:
        found: dict[tuple[str, str], list[Key]] = defaultdict(list)
        for key in sorted({*self.specs, *self.records}):
            parts = split_key(key)
            if parts.kind is Kind.CONTAINER:
                found[parts.stack, parts.name].append(key)
        return {name: tuple(keys) for name, keys in found.items()}


def network_keys(key: Key, spec: ContainerSpec) -> Iterator[Key]:
    """The networks that a container sits on."""
    stack = split_key(key).stack
    return (named_key(Kind.NETWORK, stack, name) for name in spec.networks)


def volume_keys(key: Key, spec: ContainerSpec) -> Iterator[Key]:
    """The volumes that a container mounts."""
    stack = split_key(key).stack
    return (named_key(Kind.VOLUME, stack, mount.source) for mount in spec.mounts.values() if mount.type == "volume")


def content_keys(key: Key, spec: ContainerSpec) -> Iterator[Key]:
    """The configs and secrets that a container sees."""
    stack = split_key(key).stack
    yield from (make_key(Kind.CONFIG, stack, file.source) for file in spec.configs.values())
    yield from (make_key(Kind.SECRET, stack, file.source) for file in spec.secrets.values())


def image_key(key: Key, spec: ContainerSpec) -> Key:
    """The image that a container is made from."""
    return make_key(Kind.IMAGE, split_key(key).stack, spec.image)


def moved_from(key: Key, spec: VolumeSpec) -> tuple[Key, ...]:
    """The volumes that `moved:` may mean, of which the first on record counts: each replica's own has that of the same
    index, and the first one takes what was nobody's own before."""
    parts = split_key(key)
    _, index = split_replica_volume(parts.name)
    names = [spec.moved] if spec.moved else []
    if index and not split_replica_volume(spec.moved)[1]:
        names = [replica_volume(spec.moved, index), *(names if index == 1 else [])]
    return tuple(make_key(Kind.VOLUME, parts.stack, name) for name in names if name)


def find_moved(key: Key, spec: VolumeSpec, records: Container[Key]) -> Key | None:
    """The volume on record whose folder another one is to take over; None where there is none."""
    return next((old for old in moved_from(key, spec) if old in records), None) if spec.moved else None


def needed_keys(key: Key, spec: ContainerSpec) -> tuple[Key, ...]:
    """Everything that a container is made of: its image, networks, volumes, configs and secrets."""
    networks, volumes, contents = network_keys(key, spec), volume_keys(key, spec), content_keys(key, spec)
    return (image_key(key, spec), *networks, *volumes, *contents)
