"""The memory engine: the reference that tests, simulations and golden scenarios run on. Nothing of it is real."""

import ipaddress
import os
import select
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO

from msgspec import structs

from reconciler.engine.contents import PRESENT, ContentDriver, keep_nothing
from reconciler.engine.memory import files
from reconciler.engine.memory.containers import MemoryContainers
from reconciler.engine.memory.drivers import MemoryImages, MemoryNetworks, MemoryVolumes
from reconciler.engine.memory.machine import Machine, Thing
from reconciler.engine.names import names_on
from reconciler.engine.protocol import (
    Attached,
    Begun,
    Driver,
    ExecResult,
    FileSeen,
    LogLine,
    ReadContent,
    Recollection,
    Streams,
    Traits,
    Uses,
)
from reconciler.model.content import kept_files, pack
from reconciler.model.errors import Failed, SubnetTaken
from reconciler.model.health import NO_STREAK, active_check, note_probe
from reconciler.model.key import Key, Kind, named_key, split_key
from reconciler.model.observation import Health, Observation, Part, Phase, Status, Stray
from reconciler.model.record import Made, View
from reconciler.model.spec import ContainerSpec

POOL = ipaddress.IPv4Network("10.128.0.0/12")


class MemoryEngine:
    """An engine over a `Machine`."""

    traits = Traits(name="memory")

    def __init__(self, machine: Machine, *, read_content: ReadContent = keep_nothing) -> None:
        self.machine = machine
        self.images = MemoryImages(machine)
        self.networks = MemoryNetworks(machine)
        self.volumes = MemoryVolumes(machine)
        self.containers = MemoryContainers(machine, read_content)
        self.contents = ContentDriver()
        self.inside = MemoryInside(machine)

    def driver(self, kind: Kind) -> Driver:
        """The driver of anything but containers."""
        drivers: dict[Kind, Driver] = {
            Kind.IMAGE: self.images,
            Kind.NETWORK: self.networks,
            Kind.VOLUME: self.volumes,
            Kind.CONFIG: self.contents,
            Kind.SECRET: self.contents,
        }
        return drivers[kind]

    def observe(self, view: View, *, ports: Sequence[str] = (), of: Collection[Key] | None = None) -> Observation:
        """Look at everything that the view names, or at some of it."""
        with self.machine.lock:
            seen: dict[Key, list[Status]] = {}
            for made in view.made:
                if of is None or made.key in of:
                    seen.setdefault(made.key, []).append(self._observe_one(made))
            statuses, others = {}, {}
            for key, found in seen.items():
                found.sort(key=lambda status: status.phase != Phase.RUNNING)
                statuses[key] = found[0]
                others.update({status.incarnation: status for status in found[1:]})
            holders = {port: self.machine.port_holders[port] for port in ports if port in self.machine.port_holders}
            return Observation(
                statuses=statuses,
                others=others,
                strays=tuple(self._strays(view)) if of is None else (),
                port_holders=holders,
                boot_id=self.machine.boot_id,
            )

    def _observe_one(self, made: Made) -> Status:
        kind = split_key(made.key).kind
        if kind is Kind.CONTAINER:
            return _with_ports(self.containers.observe(made), made, self.machine.open_ports)
        if kind is Kind.IMAGE:
            return self.images.observe(made)
        if kind in (Kind.CONFIG, Kind.SECRET):
            return PRESENT
        return self.networks.observe(made) if kind is Kind.NETWORK else self.volumes.observe(made)

    def _strays(self, view: View) -> Iterator[Stray]:
        named = {made.incarnation for made in view.made} | {made.grants.link or made.key for made in view.made}
        yield from (Stray(kind="bundle", name=name) for name in self.machine.containers if name not in named)
        yield from (Stray(kind="link", name=name) for name in self.machine.networks if name not in named)
        wanted = _wanted_ports(view)
        yield from (Stray(kind="port", name=port) for port in self.machine.open_ports if port not in wanted)

    def settle(self, view: View, *, names: bool = True) -> None:
        """Open the ports and give the names that the view says, and no others."""
        self.machine.called("settle", Key("machine"))
        ports = _wanted_ports(view)
        with self.machine.lock:
            self.machine.open_ports = ports
        if names:
            self.settle_names(view)

    def lay_ground(self, view: View) -> None:
        """There is nothing to stand in."""

    def settle_names(self, view: View) -> None:
        """Give the names that the view says, and no others."""
        addresses: dict[str, tuple[str, ...]] = {}
        for made in view.made:
            stack = split_key(made.key).stack
            for network, endpoint in made.grants.endpoints.items() if _has_names(made, view) else ():
                for name in names_on(made, network):
                    place = f"{named_key(Kind.NETWORK, stack, network)} {name}"
                    addresses[place] = (*addresses.get(place, ()), endpoint.address)
        with self.machine.lock:
            self.machine.names = addresses

    def sweep(self, view: View) -> Sequence[str]:
        """Remove what the view does not name."""
        with self.machine.lock:
            strays = list(self._strays(view))
            for stray in strays:
                self.machine.containers.pop(stray.name, None)
                self.machine.networks.pop(stray.name, None)
                self.machine.open_ports.pop(stray.name, None)
        return [f"removed {stray.kind} {stray.name}" for stray in strays]

    def choose_subnets(self, count: int, taken: Sequence[str]) -> Sequence[str]:
        """The first free /24s of the pool. Raises SubnetTaken when there are no more."""
        busy: set[int] = set()
        for subnet in (*taken, *self.machine.routes):
            busy.update(_places_in_pool(subnet))
        free = (place for place in range(int(POOL[0]) >> 8, (int(POOL[-1]) >> 8) + 1) if place not in busy)
        found = [f"{ipaddress.IPv4Address(place << 8)}/24" for place in islice(free, count)]
        if len(found) < count:
            raise SubnetTaken("network", str(POOL), "what is taken: nothing is left")
        return found

    def check_subnet(self, key: Key, subnet: str) -> None:
        """Refuse what the host routes."""
        wanted = ipaddress.ip_network(subnet)
        for route in self.machine.routes:
            if wanted.overlaps(ipaddress.ip_network(route)):
                raise SubnetTaken(key, subnet, f"the route {route}")

    def remember(self, made: Made, uses: Uses, contents: Mapping[str, bytes]) -> None:
        """As values, beside the machine's things."""
        with self.machine.lock:
            self.machine.remembered_contents.update(contents)
            for each in (made, *uses.values()):
                self.machine.remembered[each.key, each.incarnation] = each

    def recall(self) -> Recollection:
        """Of what is still there."""
        with self.machine.lock:
            links = {thing.made.key for pool in (self.machine.networks, self.machine.volumes) for thing in pool.values()}
            found = [
                structs.replace(made, held=incarnation in self.machine.containers and self._is_held(incarnation))
                for (key, incarnation), made in sorted(self.machine.remembered.items())
                if split_key(key).kind is Kind.IMAGE or key in links or incarnation in self.machine.containers
            ]
            copies = [
                (file.digest, thing.files[target])
                for thing in self.machine.containers.values()
                if isinstance(thing.made.spec, ContainerSpec)
                for target, file in kept_files(thing.made.spec)
                if target in thing.files
            ]
        contents = {digest: pack(data) for digest, data in copies}
        return Recollection(made=tuple(found), contents=contents, sealed=dict(self.machine.remembered_contents))

    def _is_held(self, incarnation: str) -> bool:
        return self.machine.containers[incarnation].mark == "hold"

    def read_warnings(self) -> Sequence[str]:
        """Values get along."""
        return ()

    def close(self) -> None:
        """Nothing is held."""


def _has_names(made: Made, view: View) -> bool:
    return not made.away and made.incarnation not in view.nameless


@lru_cache(maxsize=4096)
def _places_in_pool(subnet: str) -> range:
    """Which /24s of the pool a subnet overlaps."""
    network = ipaddress.IPv4Network(subnet)
    return range(int(network[0]) >> 8, (int(network[-1]) >> 8) + 1) if network.overlaps(POOL) else range(0)


def _wanted_ports(view: View) -> dict[str, Key]:
    """What is to be open: the ports of all containers that nobody holds."""
    return {
        port: made.key
        for made in view.made
        if isinstance(made.spec, ContainerSpec) and not made.away
        for port in made.spec.ports
    }


def _with_ports(status: Status, made: Made, open_ports: Mapping[str, Key]) -> Status:
    """A container's status with its closed ports as missing parts."""
    assert isinstance(made.spec, ContainerSpec)
    if status.phase not in (Phase.RUNNING, Phase.PAUSED):
        return status
    closed = {f"port/{port}": Part(state="missing") for port in made.spec.ports if open_ports.get(port) != made.key}
    return structs.replace(status, parts=status.parts | closed) if closed else status


class MemoryInside:
    """Looks into containers that are values."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def logs(
        self,
        made: Made,
        *,
        tail: int | None,
        since: float,
        follow: bool,
        stop: Callable[[], bool],
    ) -> Iterator[LogLine]:
        """One line: that it was made."""
        yield LogLine(at=int(self.machine.now * 1e9), stream="stdout", text=f"made {made.key}".encode())

    def exec(
        self,
        made: Made,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] = {},
        streams: Streams | None = None,
    ) -> ExecResult:
        """Nothing runs: 0 where the container runs."""
        if self.machine.containers[made.incarnation].phase is not Phase.RUNNING:
            raise Failed(f"{made.key}: exec: it is {self.machine.containers[made.incarnation].phase.value}, not running")
        if streams is not None:
            streams.begun(Begun(tty=tty, stdin=stdin))
        return ExecResult(exit_code=0)

    def attach(self, made: Made) -> "MemoryLine":
        """Open a line."""
        thing = self.machine.containers.get(made.incarnation)
        if thing is None or thing.phase is Phase.EXITED:
            raise Failed(f"{made.key}: attach: it is not running", hint=f"reconcile start {made.key}")
        return MemoryLine(self.machine, thing)

    def wait(self, made: Made, *, seconds: float) -> Status:
        """Wait until it has ended; time is the machine's, so that nobody sleeps for it."""
        thing = self.machine.containers.get(made.incarnation)
        if thing is None:
            return Status(phase=Phase.MISSING, incarnation=made.incarnation)
        with self.machine.changed:
            self.machine.changed.wait_for(lambda: thing.phase not in (Phase.RUNNING, Phase.PAUSED), timeout=seconds)
        return Status(
            phase=thing.phase, incarnation=made.incarnation, exit_code=thing.exit_code, finished_at=thing.finished_at
        )

    def probe(self, made: Made, *, timeout: float) -> tuple[Health, str]:
        """As the image says; NONE without a check."""
        assert isinstance(made.spec, ContainerSpec)
        thing, check = self.machine.containers.get(made.incarnation), active_check(made.spec.healthcheck)
        if thing is None or thing.phase is not Phase.RUNNING:
            how = "gone" if thing is None else thing.phase.value
            raise Failed(f"{made.key}: health check: it is {how}, not running")
        if check is None:
            return Health.NONE, ""
        healthy = self.machine.content[made.image].healthy
        age = self.machine.now - thing.started_at
        thing.streak = note_probe(thing.streak or NO_STREAK, check, healthy=healthy, age=age)
        return (Health.HEALTHY, "") if healthy else (Health.UNHEALTHY, "made unhealthy")

    def look(self, made: Made, path: str, *, follow: bool) -> FileSeen | None:
        """A file, or a folder with something in it."""
        return files.look(self._files(made), path)

    def copy_out(
        self, made: Made, path: str, to: IO[bytes], *, top: str, follow: bool, skipped: Callable[[str], None]
    ) -> None:
        """A tar of it."""
        if files.look(self._files(made), path) is None:
            raise Failed(f"{made.key}: cp: {path}: there is no such file")
        files.pack(self._files(made), path, top, to)

    def copy_in(
        self,
        made: Made,
        folder: str,
        stream: IO[bytes],
        *,
        owner: tuple[int, int] | None,
        skipped: Callable[[str], None],
    ) -> None:
        """The files of a tar."""
        if files.look(self._files(made), folder) is None:
            raise Failed(f"{made.key}: cp: {folder}: there is no such folder")
        files.unpack(self._files(made), folder, stream)

    def _files(self, made: Made) -> dict[str, bytes]:
        thing = self.machine.containers.get(made.incarnation)
        if thing is None:
            raise Failed(f"{made.key}: cp: it is not on the machine")
        return thing.data

    def end_abandoned(self) -> Sequence[str]:
        """There are none."""
        return ()

    def kill(self, made: Made, signal: int) -> None:
        """It ends of it; a paused one only of SIGKILL."""
        if self.machine.containers[made.incarnation].phase is Phase.RUNNING or signal == 9:
            self.machine.exit(made.key, 128 + signal)


class MemoryLine:
    """A line to a container that is a value: its image says what it prints."""

    def __init__(self, machine: Machine, thing: Thing) -> None:
        self.machine = machine
        self.thing = thing
        self.run = thing.restarts

    def relay(self, *, stdin: bool, keys: bytes = b"", signals: bool = True, streams: Streams | None = None) -> Attached:
        """What it prints, once, and how it ended. Signals are nobody's here; who rings a bell lets go."""
        printed = self.machine.content[self.thing.made.image].prints
        if streams is None:
            sys.stdout.write(printed)
            sys.stdout.flush()
        else:
            streams.begun(Begun(stdin=stdin))
            os.write(streams.stdout, printed.encode())
        while not self.has_ended(0.05 if streams else None):
            if streams is not None and select.select([streams.bell], [], [], 0)[0]:
                return Attached(unread=not os.read(streams.bell, 1))
        return Attached(exit_code=self.thing.exit_code)

    def has_ended(self, seconds: float | None) -> bool:
        """Wait until it has, at most so long."""
        with self.machine.changed:
            return self.machine.changed.wait_for(
                lambda: self.thing.phase is Phase.EXITED or self.thing.restarts > self.run, timeout=seconds
            )

    def close(self) -> None:
        """Nothing is held."""


def open_engine(root: Path, *, run: Path, root_id: str, read_content: ReadContent) -> MemoryEngine:  # noqa: ARG001 every engine's signature
    """A memory engine over a machine of its own."""
    return MemoryEngine(Machine(), read_content=read_content)
