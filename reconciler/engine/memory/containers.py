"""Containers of the engine without a kernel: what runs, what ended, what is paused, and the files that they see."""

from collections.abc import Callable, Mapping, Sequence

from reconciler.engine.memory.machine import Machine, Published, Thing
from reconciler.engine.protocol import ReadContent, Uses
from reconciler.model.content import kept_files
from reconciler.model.errors import Failed
from reconciler.model.events import Emit, silent
from reconciler.model.health import active_check, is_unhealthy
from reconciler.model.key import Kind, named_key, split_key
from reconciler.model.observation import MISSING, Health, Phase, Status
from reconciler.model.record import ApplyId, Made
from reconciler.model.spec import ContainerSpec


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

    def premake(self, made: Made, *, uses: Uses) -> None:
        """It is there, and does not run."""
        self.machine.called("premake", made.key)
        files = self._read_files(made)
        with self.machine.lock:
            self.machine.containers.setdefault(made.incarnation, Thing(made=made, files=files, phase=Phase.CREATED))

    def start(
        self,
        made: Made,
        *,
        uses: Uses,
        created: Callable[[], None] | None = None,
        ready: Callable[[], None] | None = None,
        old: Made | None = None,
    ) -> Status:
        """Run it; with `ready` making it is a call of its own, `create`."""
        if made.incarnation not in self.machine.containers:
            self.prepare(made, uses=uses, emit=silent)
        thing = self.machine.containers[made.incarnation]
        runs = thing.phase == Phase.RUNNING
        calls: list[tuple[str, Callable[[], None] | None]] = [("create", ready), ("start", created)]
        for name, then in calls if ready and not runs else calls[1:]:
            try:
                self.machine.called(name, made.key)
            except Failed as failure:
                thing.error = failure.detail
                raise
            if then is not None and not runs:
                then()
        with self.machine.lock:
            thing.error = ""
            if thing.phase == Phase.PAUSED:
                thing.phase = Phase.RUNNING
            if thing.phase != Phase.RUNNING:
                thing.gave_up = thing.restarting = thing.stopped = thing.oom_killed = False
                thing.restarts, thing.restart_at, thing.ends = 0, 0.0, ()
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
            return MISSING
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
            return MISSING
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
            ends=thing.ends,
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
