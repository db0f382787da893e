"""One engine with a machine under it, as the suite sees both: builders of resources, a view, and what converge does.

What people may do to the machine by hand differs, so each engine has a ground of its own: `memory_ground.py` and
`native_ground.py`.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from reconciler.engine.contents import keep_nothing
from reconciler.engine.protocol import Engine, Uses
from reconciler.linux import process
from reconciler.model.events import silent
from reconciler.model.key import Kind, container_key, kind_of, make_key, split_key
from reconciler.model.observation import Observation, Part, Phase, Status
from reconciler.model.record import ApplyId, Endpoint, Grants, Made, View
from reconciler.model.spec import Attachment, ContainerSpec, ImageSpec, Mount, NetworkSpec, Resources, VolumeSpec

STACK = "blog"
ORDER = tuple(Kind)


def this_apply() -> ApplyId:
    pid = os.getpid()
    return ApplyId(pid=pid, start_time=process.read_start_time(pid), boot_id=process.read_boot_id())


def wait_for(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.005)  # a poll with a deadline


class Ground:
    """An engine, and the view of what is recorded on it."""

    name: str
    engine: Engine

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The kernel's cgroups are shared by all who test at the same time.
        self.root_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(5))
        self.mades: list[Made] = []
        self.contents: dict[str, bytes] = {}

    # --- what is kept

    def keep(self, text: str) -> str:
        """Keep a content; its digest."""
        digest = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        self.contents[digest] = text.encode()
        return digest

    def read_content(self, digest: str) -> bytes:
        return self.contents[digest] if digest in self.contents else keep_nothing(digest)

    # --- what is made by hand, by each engine in its own way

    def publish(self, source: str, *, ends: int | None = None) -> None:
        """Let `source` (a file that is to be an archive) be an image whose containers run, or end with `ends`."""
        raise NotImplementedError

    def serve(self, tag: str) -> None:
        """Let a registry at 127.0.0.1:5000 have an image under this reference."""
        raise NotImplementedError

    def stop_serving(self) -> None:
        """Let it answer nobody any more."""
        raise NotImplementedError

    def make_unstartable(self, made: Made) -> Made:
        """The container so that its next start fails; the view has that one."""
        raise NotImplementedError

    def kill(self, made: Made) -> None:
        """End its first process behind everybody's back."""
        raise NotImplementedError

    def mark_of(self, made: Made) -> str:
        """The mark that a stop left, as whoever follows its exits sees it; "" where there is none."""
        raise NotImplementedError

    def be_quiet(self, made: Made) -> None:
        """Return once whoever followed its last exit has gone."""

    def open_ports(self) -> set[str]:
        """The host ports that lead to a container, as the machine has it."""
        raise NotImplementedError

    def ask_name(self, network: Made, name: str) -> set[str]:
        """The addresses that a name has on a network."""
        raise NotImplementedError

    def write_data(self, volume: Made, text: str) -> None:
        """Put something into a volume."""
        raise NotImplementedError

    def read_data(self, volume: Made) -> str:
        """What `write_data` put there, "" where it is gone."""
        raise NotImplementedError

    def read_file(self, made: Made, target: str) -> tuple[str, int, int, int]:
        """A file as a container sees it: text, owner, group, permission bits. Raises FileNotFoundError."""
        raise NotImplementedError

    def copies(self, made: Made) -> set[bytes]:
        """What all our copies for a container hold."""
        raise NotImplementedError

    def alter_file(self, made: Made, target: str) -> None:
        """Change what a container sees there, from outside."""
        raise NotImplementedError

    def remove_file(self, made: Made, target: str) -> None:
        """Remove our copy of what it sees there."""
        raise NotImplementedError

    def signals(self, made: Made) -> int:
        """How many SIGHUPs a container that counts them was sent."""
        raise NotImplementedError

    def add_route(self, subnet: str) -> None:
        """Let the host reach a subnet by somebody else's route."""
        raise NotImplementedError

    def hold_port(self, port: str) -> None:
        """Let another program listen on `127.0.0.1:8080/tcp`."""
        raise NotImplementedError

    def read_remains(self) -> list[str]:
        """What of this root is on the machine though nothing is recorded, one line each."""
        raise NotImplementedError

    # --- builders; what they return is in the view

    def image(self, name: str = "box", *, ends: int | None = None) -> Made:
        source = str(self.folder / f"{name}.tar")
        self.publish(source, ends=ends)
        key, spec = make_key(Kind.IMAGE, STACK, name), ImageSpec(archive=source)
        digest = self.engine.images.resolve(key, spec, recorded="", offline=False).digest
        return self.add(Made(key=key, spec=spec, image=digest))

    def network(self, name: str = "front", number: int = 1, **spec: object) -> Made:
        made = NetworkSpec(**spec)  # type: ignore[arg-type]  # a builder takes any field
        grants = Grants()
        if made.driver == "bridge":
            link = f"b{self.root_id}{number:08d}"
            grants = Grants(link=link, subnet=f"10.64.{number}.0/24", gateway=f"10.64.{number}.1")
        return self.add(Made(key=make_key(Kind.NETWORK, STACK, name), spec=made, grants=grants))

    def volume(self, name: str = "data") -> Made:
        key = make_key(Kind.VOLUME, STACK, name)
        return self.add(Made(key=key, spec=VolumeSpec(), grants=Grants(volume_id=f"vol-{name}")))

    def container(
        self,
        name: str,
        image: Made,
        *networks: Made,
        host: int = 2,
        index: int = 1,
        volumes: Sequence[Made] = (),
        mounts: Mapping[str, Mount] = {},
        **spec: object,
    ) -> Made:
        """A container; its incarnation is told by its name and `host`, its last number on each network."""
        incarnation = f"{host:02x}" + name.encode().hex()[:10].ljust(10, "0")
        labels = [split_key(network.key).name for network in networks]
        made = Made(
            key=container_key(STACK, name, index),
            image=image.image,
            incarnation=incarnation,
            grants=Grants(endpoints=dict(_endpoints(networks, f"v{self.root_id}{incarnation[:8]}", host))),
            spec=ContainerSpec(
                image=split_key(image.key).name,
                networks={label: Attachment() for label in labels},
                mounts={f"/{split_key(v.key).name}": _mount(v) for v in volumes} | mounts,
                **{"stop_grace": 3.0, **spec},  # type: ignore[arg-type]  # a builder takes any field
            ),
        )
        return self.add(made)

    def add(self, made: Made) -> Made:
        self.mades.append(made)
        return made

    def forget(self, *mades: Made) -> None:
        self.mades = [made for made in self.mades if made not in mades]

    def change(self, old: Made, **spec: object) -> Made:
        """The same resource with another spec; the view has the new one."""
        new = structs.replace(old, spec=structs.replace(old.spec, **spec))
        self.mades = [new if made == old else made for made in self.mades]
        return new

    # --- what converge does

    @property
    def view(self) -> View:
        return View(made=tuple(self.mades))

    @property
    def uses(self) -> Uses:
        return {made.key: made for made in self.mades if kind_of(made.key) is not Kind.CONTAINER}

    def up(self, *mades: Made) -> None:
        """Make them in order: policy, what containers need, names, containers."""
        self.engine.settle(self.view, names=False)
        for made in _in_order(mades or self.mades):
            if kind_of(made.key) is not Kind.CONTAINER:
                self.create(made)
        self.engine.settle(self.view)
        for made in _in_order(mades or self.mades):
            if kind_of(made.key) is Kind.CONTAINER:
                self.prepare(made)
                self.start(made)

    def create(self, made: Made) -> Status:
        return self.engine.driver(kind_of(made.key)).create(made, uses=self.uses, emit=silent)

    def prepare(self, made: Made) -> None:
        self.engine.containers.prepare(made, uses=self.uses, emit=silent)

    def start(self, made: Made) -> Status:
        return self.engine.containers.start(made, uses=self.uses)

    def stop(self, made: Made, mark: str = "hold") -> Status:
        return self.engine.containers.stop(made, mark=mark, apply=this_apply())

    def update(self, old: Made, new: Made) -> Status:
        if kind_of(new.key) is Kind.CONTAINER:
            return self.engine.containers.update(old, new, uses=self.uses, emit=silent)
        return self.engine.driver(kind_of(new.key)).update(old, new, uses=self.uses, emit=silent)

    def delete(self, made: Made) -> None:
        if kind_of(made.key) is Kind.CONTAINER:
            self.engine.containers.delete(made)
        else:
            self.engine.driver(kind_of(made.key)).delete(made, data=True)

    def mend(self, drifted: "Drifted") -> None:
        """What an apply does about drift: restart what says so, everything else in place."""
        again = {made.incarnation for made, _, part in drifted if part.mend == "restart"}
        self.engine.settle(self.view, names=False)
        for made in _in_order(self.mades):
            if made.incarnation and made.incarnation in again:
                self.stop(made, "replaced")
                self.prepare(made)
                self.engine.containers.unmark(made)
                self.start(made)
            else:
                self.update(made, made)
            if made.key.startswith("volume"):  # networks are there, containers come
                self.engine.settle(self.view)

    # --- looking

    def observe(self, *, ports: Sequence[str] = ()) -> Observation:
        return self.engine.observe(self.view, ports=ports)

    def status(self, made: Made) -> Status:
        """Of a container: that of its incarnation."""
        seen = self.observe()
        if made.incarnation in seen.others:
            return seen.others[made.incarnation]
        return seen.statuses[made.key]

    def drifted(self) -> "Drifted":
        """Everything that is not as it was made."""
        seen = self.observe()
        return [
            (made, name, part)
            for made in self.mades
            for name, part in seen.statuses[made.key].parts.items()
            if part.state != "present"
        ] + [
            (made, "all", Part(state="missing"))
            for made in self.mades
            if seen.statuses[made.key].phase is Phase.MISSING
        ]  # fmt: skip

    def wait_exited(self, made: Made) -> None:
        """Return once it has ended and its end is recorded."""
        wait_for(lambda: self.status(made).phase is Phase.EXITED, f"{made.key} has ended")

    def close(self) -> list[str]:
        """Delete everything in order, and say what is left of it."""
        for made in reversed(_in_order(self.mades)):
            self.delete(made)
        self.mades = []
        self.engine.settle(self.view)
        self.engine.sweep(self.view)
        self.engine.images.prune(())
        self.engine.close()
        return self.read_remains()


Drifted = list[tuple[Made, str, Part]]


@dataclass(frozen=True)
class Harm:
    """Something done by hand to a `Site`, and what must be said of it."""

    name: str
    hand: Callable[["Site"], object]
    named: tuple[str, ...]
    """`NAME PART` that `observe` must say, with fnmatch's patterns."""
    mend: str = "in-place"
    reach: tuple[str, ...] = ("web",)
    """The names of what may be said to have drifted; everything else must be as it was."""


class Site:
    """What harm is done to: `web` on `front` with a port and a volume, and `db` on `back`, which nobody touches."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.image = ground.image()
        self.front = ground.network("front", 1)
        self.back = ground.network("back", 2)
        self.data = ground.volume("data")
        self.web = ground.container(
            "web",
            self.image,
            self.front,
            volumes=[self.data],
            ports={"127.0.0.1:8080/tcp": 80},
            resources=Resources(memory=64 << 20, pids=50),
        )
        self.db = ground.container("db", self.image, self.back)
        ground.up()

    def pids(self) -> dict[str, int]:
        seen = self.ground.observe()
        return {name: seen.statuses[made.key].pid for name, made in (("web", self.web), ("db", self.db))}


def _endpoints(networks: Sequence[Made], stem: str, host: int) -> Iterator[tuple[str, Endpoint]]:
    for place, network in enumerate(networks):
        if network.grants.subnet:
            address = f"{network.grants.subnet.rpartition('.')[0]}.{host}"
            mac = "02:00:" + ":".join(f"{int(number):02x}" for number in address.split("."))
            yield split_key(network.key).name, Endpoint(address=address, mac=mac, link=f"{stem}{place}")


def _mount(volume: Made) -> Mount:
    return Mount(type="volume", source=split_key(volume.key).name)


def _in_order(mades: Sequence[Made]) -> list[Made]:
    return sorted(mades, key=lambda made: ORDER.index(kind_of(made.key)))
