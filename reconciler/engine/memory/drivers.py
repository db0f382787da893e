"""The reference drivers, over a `Machine`. What they do is what every engine's drivers must do."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from msgspec import structs

from reconciler.engine.memory.machine import Machine, Published, Thing
from reconciler.engine.protocol import LocalImage, ReadContent, Uses
from reconciler.model.content import kept_files
from reconciler.model.errors import Failed, RegistryError
from reconciler.model.events import Emit, Progress, silent
from reconciler.model.health import active_check, is_unhealthy
from reconciler.model.key import Key, Kind, named_key, split_key
from reconciler.model.observation import Health, Phase, Status, altered
from reconciler.model.record import UNKNOWN, ApplyId, ImageFact, Made
from reconciler.model.spec import ContainerSpec, ImageSpec, NetworkSpec, VolumeSpec

if TYPE_CHECKING:
    from tarfile import TarFile

    from reconciler.engine.tarstream import Entry


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
            return Status(phase=Phase.MISSING)
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


class MemoryContainers:
    """Containers as values; those of an image that `exits` end at once."""

    def __init__(self, machine: Machine, read_content: ReadContent) -> None:
        self.machine = machine
        self.read_content = read_content

    def prepare(self, made: Made, *, uses: Uses, emit: Emit) -> None:
        """Everything but running. Raises Failed where something that it uses is not on the machine."""
        self.machine.called("prepare", made.key)
        self._check_uses(made, uses)
        files = self._read_files(made)
        with self.machine.lock:
            thing = self.machine.containers.setdefault(made.incarnation, Thing(made=made, phase=Phase.CREATED))
            thing.made, thing.files = made, files
            thing.parts.clear()

    def _read_files(self, made: Made) -> dict[str, bytes]:
        assert isinstance(made.spec, ContainerSpec)
        return {target: self.read_content(file.digest) for target, file in kept_files(made.spec)}

    def _check_uses(self, made: Made, uses: Uses) -> None:
        spec, stack = made.spec, split_key(made.key).stack
        assert isinstance(spec, ContainerSpec)
        if made.image not in self.machine.content:
            raise Failed(f"{made.key}: image {made.image} is not here", hint="apply again")
        for name in spec.networks:
            network = uses.get(named_key(Kind.NETWORK, stack, name))
            if network is None or (network.grants.link or network.key) not in self.machine.networks:
                raise Failed(f"{made.key}: network {name} is not on the machine")
        for mount in spec.mounts.values():
            if mount.type == "volume":
                volume = uses.get(named_key(Kind.VOLUME, stack, mount.source))
                if volume is None or volume.grants.volume_id not in self.machine.volumes:
                    raise Failed(f"{made.key}: volume {mount.source} is not on the machine")

    def start(self, made: Made, *, uses: Uses, created: Callable[[], None] | None = None) -> Status:
        """Run it."""
        if made.incarnation not in self.machine.containers:
            self.prepare(made, uses=uses, emit=silent)
        thing = self.machine.containers[made.incarnation]
        try:
            self.machine.called("start", made.key)
        except Failed as failure:
            thing.error = failure.detail
            raise
        if created is not None and thing.phase != Phase.RUNNING:
            created()
        with self.machine.lock:
            thing.error = ""
            if thing.phase == Phase.PAUSED:
                thing.phase = Phase.RUNNING
            if thing.phase != Phase.RUNNING:
                thing.gave_up = thing.restarting = thing.stopped = thing.oom_killed = False
                thing.restarts, thing.restart_at = 0, 0.0
                image: Published = self.machine.content[made.image]
                thing.phase, thing.pid, thing.started_at = Phase.RUNNING, self.machine.next_pid(), self.machine.now
                thing.streak = None
                if image.exits is not None:
                    thing.phase, thing.pid, thing.exit_code = Phase.EXITED, 0, image.exits
                    thing.finished_at = self.machine.now
        return self.observe(made)

    def stop(self, made: Made, *, mark: str, apply: ApplyId, grace: float | None = None) -> Status:
        """Mark it and end it."""
        self.machine.called("stop", made.key)
        thing = self.machine.containers.get(made.incarnation)
        if thing is None:
            return Status(phase=Phase.MISSING)
        with self.machine.lock:
            thing.mark = mark
            if thing.phase in (Phase.RUNNING, Phase.PAUSED):
                thing.phase, thing.pid, thing.exit_code, thing.finished_at = Phase.EXITED, 0, 143, self.machine.now
                thing.stopped = True
            self.machine.changed.notify_all()
        return self.observe(made)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """In place: the pid stays. Parts whose mend is in place are mended."""
        self.machine.called("update", new.key)
        thing = self.machine.containers[new.incarnation]
        files = self._read_files(new)
        with self.machine.lock:
            if thing.phase == Phase.RUNNING:
                thing.signals += sorted(_choose_signals(new, thing.files, files))
            thing.made, thing.files = new, files
            thing.parts = {name: part for name, part in thing.parts.items() if part.mend != "in-place"}
            if thing.phase == Phase.PAUSED and not new.paused:
                thing.phase = Phase.RUNNING
        return self.observe(new)

    def measure(self, made: Made) -> int:
        """Bytes that it wrote."""
        thing = self.machine.containers.get(made.incarnation)
        return sum(map(len, thing.data.values())) if thing else 0

    def unmark(self, made: Made) -> None:
        """Take its mark off."""
        self.machine.called("unmark", made.key)
        if thing := self.machine.containers.get(made.incarnation):
            thing.mark = ""

    def pause(self, made: Made) -> Status:
        """Freeze it."""
        self.machine.called("pause", made.key)
        thing = self.machine.containers.get(made.incarnation)
        if thing is None or thing.phase not in (Phase.RUNNING, Phase.PAUSED):
            raise Failed(f"{made.key}: pause: it does not run", hint=f"reconcile start {split_key(made.key).name}")
        with self.machine.lock:
            thing.phase, thing.mark = Phase.PAUSED, "hold"
        return self.observe(made)

    def unpause(self, made: Made) -> Status:
        """Let it go on."""
        self.machine.called("unpause", made.key)
        thing = self.machine.containers.get(made.incarnation)
        if thing is None:
            return Status(phase=Phase.MISSING)
        with self.machine.lock:
            thing.mark = ""
            thing.phase = Phase.RUNNING if thing.phase == Phase.PAUSED else thing.phase
        return self.observe(made)

    def states(self, mades: Sequence[Made]) -> Mapping[str, Status]:
        """As they stand; looking takes a second, so that who waits for a second need not."""
        with self.machine.lock:
            self.machine.now += 1.0
            return {made.incarnation: self.observe(made) for made in mades}

    def delete(self, made: Made) -> None:
        """Remove this incarnation."""
        self.machine.called("delete", made.key)
        with self.machine.lock:
            self.machine.containers.pop(made.incarnation, None)

    def observe(self, made: Made) -> Status:
        """As it stands."""
        thing = self.machine.containers.get(made.incarnation)
        if thing is None:
            return Status(phase=Phase.MISSING, incarnation=made.incarnation)
        return Status(
            phase=thing.phase,
            parts=dict(thing.parts),
            incarnation=made.incarnation,
            pid=thing.pid,
            started_at=thing.started_at,
            finished_at=thing.finished_at,
            exit_code=thing.exit_code,
            oom_killed=thing.oom_killed,
            restarts=thing.restarts,
            restarting=thing.restarting,
            restart_at=thing.restart_at,
            gave_up=thing.gave_up,
            stopped=thing.stopped,
            error=thing.error,
            health=_health(thing),
        )


def _health(thing: Thing) -> Health:
    """What its probes came to; nobody's results count for another run."""
    assert isinstance(thing.made.spec, ContainerSpec)
    check = active_check(thing.made.spec.healthcheck)
    if check is None:
        return Health.NONE
    if thing.streak is None or thing.phase is not Phase.RUNNING:
        return Health.UNKNOWN
    if is_unhealthy(check, thing.streak):
        return Health.UNHEALTHY
    return Health.HEALTHY if thing.streak.was_healthy else Health.STARTING


def _choose_signals(made: Made, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> set[str]:
    assert isinstance(made.spec, ContainerSpec)
    changed = {target for target in after if after[target] != before.get(target)}
    return {file.signal for target, file in kept_files(made.spec) if file.signal and target in changed}


def _unreachable(source: str, here: Sequence[Published]) -> ImageFact:
    warning = f"{source}: the registry does not answer"
    return (
        structs.replace(_fact(here[0], local=True), warning=warning) if here else ImageFact(digest=UNKNOWN, warning=warning)
    )


def _fact(image: Published, *, local: bool) -> ImageFact:
    return ImageFact(digest=image.digest, local=local, volumes=image.volumes, healthcheck=image.healthcheck)
