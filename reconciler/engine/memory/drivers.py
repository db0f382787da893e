"""The reference drivers, over a `Machine`. What they do is what every engine's drivers must do."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from msgspec import structs

from reconciler.engine.memory.machine import Machine, Published, Thing
from reconciler.engine.protocol import LocalImage, Uses
from reconciler.model.errors import Failed, RegistryError
from reconciler.model.events import Emit, Progress
from reconciler.model.key import Key
from reconciler.model.observation import MISSING, Phase, Status, altered
from reconciler.model.record import UNKNOWN, ImageFact, Made
from reconciler.model.spec import ImageSpec, NetworkSpec, VolumeSpec

if TYPE_CHECKING:
    from tarfile import TarFile

    from reconciler.engine.tarentry import Entry


class MemoryImages:
    """Images of the pretended registry."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def resolve(self, key: Key, spec: ImageSpec, *, recorded: str, offline: bool) -> ImageFact:
        """As the protocol says; a reference that the registry lacks is an error, a registry that does not answer none."""
        source = spec.reference or spec.archive
        here = self.machine.content
        if "@" in source:
            return self._resolve_pinned(source, spec, offline=offline)
        if recorded in here and spec.pull != "always":
            return _fact(here[recorded], local=True)
        named = [image for digest, image in here.items() if self.machine.registry.get(source) is image]
        if named and (spec.pull != "always" or offline):
            return _fact(named[0], local=True)
        if spec.pull == "never":
            raise RegistryError(source, "look for it here", "it is not here, and `pull: never` asks nobody")
        if offline:
            return ImageFact(digest=UNKNOWN, warning="not asked for: offline")
        if spec.reference and not self.machine.registry_answers:
            return _unreachable(source, [here[recorded]] if recorded in here else named)
        found = self.machine.registry.get(source) or self._by_digest(source.rpartition("@")[2])
        if found is None:
            raise RegistryError(source, "read the manifest", "no such image", f"correct it in {key}")
        return _fact(found, local=False)

    def _by_digest(self, digest: str) -> Published | None:
        return next((image for image in self.machine.registry.values() if image.digest == digest), None)

    def _resolve_pinned(self, source: str, spec: ImageSpec, *, offline: bool) -> ImageFact:
        """By its digest: what is here answers, and a registry that lacks it is an error."""
        digest = source.partition("@")[2]
        if digest in self.machine.content:
            return _fact(self.machine.content[digest], local=True)
        if offline or spec.pull == "never":
            return ImageFact(digest=UNKNOWN, warning="not asked for: offline")
        if not self.machine.registry_answers:
            return _unreachable(source, [])
        found = [image for image in self.machine.registry.values() if image.digest == digest]
        if not found:
            raise RegistryError(source, "read its manifest", "no such image", "check its name and tag")
        return _fact(found[0], local=False)

    def read_tag(self, reference: str) -> str:
        """As the registry has it."""
        if not self.machine.registry_answers:
            raise RegistryError(reference, "ask for its digest", "the registry does not answer", retry=True)
        if reference not in self.machine.registry:
            raise RegistryError(reference, "ask for its digest", "no such image", "check its name and tag")
        return self.machine.registry[reference].digest

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Pull."""
        self.machine.called("create", made.key)
        assert isinstance(made.spec, ImageSpec)
        image = self.machine.registry.get(made.spec.reference or made.spec.archive)
        if image is None or image.digest != made.image:
            image = self._by_digest(made.image)
        if image is None:
            raise RegistryError(made.spec.reference, "pull", f"no image {made.image}")
        self.machine.content[made.image] = image
        emit(Progress(key=made.key, part="layer 1", done=1, total=1, text="done"))
        return Status(phase=Phase.PRESENT)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Pull again what is missing."""
        return self.create(new, uses=uses, emit=emit)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Nothing: content stays until it is pruned."""
        self.machine.called("delete", made.key)

    def observe(self, made: Made) -> Status:
        """Whether the content is here."""
        return Status(phase=Phase.PRESENT if made.image in self.machine.content else Phase.MISSING)

    def prune(self, used: Sequence[str], *, dry_run: bool = False) -> Sequence[tuple[str, int]]:
        """Drop what nobody uses."""
        gone = sorted(set(self.machine.content) - set(used))
        if not dry_run:
            for digest in gone:
                del self.machine.content[digest]
        return [(digest, 1) for digest in gone]

    def list_images(self) -> Sequence[LocalImage]:
        """What is here."""
        return [
            LocalImage(digest=digest, names=(), config={}, layers=(), size=1, platform="linux/amd64")
            for digest in sorted(self.machine.content)
        ]


class MemoryNetworks:
    """Networks as values."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it; what was altered is as it should be afterwards."""
        self.machine.called("create", made.key)
        with self.machine.lock:
            self.machine.networks[made.grants.link or made.key] = Thing(made=made)
        return Status(phase=Phase.PRESENT)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """In place."""
        self.machine.called("update", new.key)
        with self.machine.lock:
            self.machine.networks[new.grants.link or new.key] = Thing(made=new)
        return Status(phase=Phase.PRESENT)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Remove it; a network that a container still uses is a mistake of the caller."""
        self.machine.called("delete", made.key)
        with self.machine.lock:
            self.machine.networks.pop(made.grants.link or made.key, None)

    def observe(self, made: Made) -> Status:
        """As it stands."""
        thing = self.machine.networks.get(made.grants.link or made.key)
        if thing is None:
            assert isinstance(made.spec, NetworkSpec)
            return Status(phase=Phase.MISSING if made.spec.driver == "bridge" else Phase.PRESENT)
        return Status(phase=Phase.PRESENT, parts=dict(thing.parts))


class MemoryVolumes:
    """Volumes as dictionaries of files."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it; data that is there stays."""
        self.machine.called("create", made.key)
        with self.machine.lock:
            self.machine.volumes.setdefault(made.grants.volume_id, Thing(made=made)).made = made
        return Status(phase=Phase.PRESENT)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Labels only."""
        self.machine.called("update", new.key)
        self.machine.volumes[new.grants.volume_id].made = new
        self.machine.volumes[new.grants.volume_id].parts.clear()
        return Status(phase=Phase.PRESENT)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Remove it, with its data only where asked."""
        self.machine.called("delete", made.key)
        if data:
            self.machine.volumes.pop(made.grants.volume_id, None)

    def check(self, made: Made) -> None:
        """As its switch says."""
        assert isinstance(made.spec, VolumeSpec)
        if made.spec.size and not self.machine.has_quotas:
            raise Failed(f"{made.key}: size: this machine bounds no folder", hint="leave size out")

    def measure(self, made: Made) -> int:
        """Bytes of its files."""
        thing = self.machine.volumes.get(made.grants.volume_id)
        return sum(map(len, thing.data.values())) if thing else 0

    def pack(self, made: Made, tar: "TarFile") -> Sequence[str]:
        """Its files."""
        from tarfile import TarInfo

        volume_id = made.grants.volume_id
        for name, data in sorted(self.machine.volumes[volume_id].data.items()):
            info = TarInfo(f"volumes/{volume_id}/data/{name}")
            info.size = len(data)
            tar.addfile(info, BytesIO(data))
        return ()

    def unpack(self, made: Made) -> "MemoryUnpacker":
        """Into its files."""
        return MemoryUnpacker(self.machine.volumes[made.grants.volume_id])

    def observe(self, made: Made) -> Status:
        """As it stands."""
        thing = self.machine.volumes.get(made.grants.volume_id)
        if thing is None:
            return MISSING
        parts = dict(thing.parts)
        if thing.made.key != made.key:
            parts["file"] = altered("key", made.key, thing.made.key)
        return Status(phase=Phase.PRESENT, parts=parts, empty=not thing.data)


class MemoryUnpacker:
    """Fills one volume."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing

    def take(self, entry: "Entry", pieces: Iterable[memoryview]) -> None:
        """One file."""
        name = entry.name.decode().partition("/data/")[2]
        self.thing.data[name] = b"".join(map(bytes, pieces))

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is held."""


def _unreachable(source: str, here: Sequence[Published]) -> ImageFact:
    warning = f"{source}: the registry does not answer"
    return (
        structs.replace(_fact(here[0], local=True), warning=warning) if here else ImageFact(digest=UNKNOWN, warning=warning)
    )


def _fact(image: Published, *, local: bool) -> ImageFact:
    return ImageFact(digest=image.digest, local=local, volumes=image.volumes, healthcheck=image.healthcheck)
