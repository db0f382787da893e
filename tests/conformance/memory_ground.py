"""The memory engine's ground: a `Machine`, drifted and failed by its own switches."""

from pathlib import Path

from grounds import Ground, Harm, Site

from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.content import kept_files
from reconciler.model.observation import altered, missing
from reconciler.model.record import Made


class MemoryGround(Ground):
    name = "memory"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.machine = Machine()
        self.machine.registry_answers = False
        self.engine = MemoryEngine(self.machine, read_content=self.read_content)

    def publish(self, source: str, *, ends: int | None = None) -> None:
        digest = "sha256:" + Path(source).stem.encode().hex().ljust(64, "0")
        self.machine.registry[source] = Published(digest=digest, exits=ends)

    def serve(self, tag: str) -> None:
        self.machine.registry[tag] = Published(digest="sha256:" + "5e" * 32)
        self.machine.registry_answers = True

    def stop_serving(self) -> None:
        self.machine.registry_answers = False

    def make_unstartable(self, made: Made) -> Made:
        self.machine.fail_next("start", made.key, "no such program")
        return made

    def kill(self, made: Made) -> None:
        self.machine.exit(made.key, 137)

    def mark_of(self, made: Made) -> str:
        return self.machine.containers[made.incarnation].mark

    def open_ports(self) -> set[str]:
        return set(self.machine.open_ports)

    def ask_name(self, network: Made, name: str) -> set[str]:
        return set(self.machine.names.get(f"{network.key} {name}", ()))

    def write_data(self, volume: Made, text: str) -> None:
        self.machine.volumes[volume.grants.volume_id].data["file"] = text.encode()

    def read_data(self, volume: Made) -> str:
        thing = self.machine.volumes.get(volume.grants.volume_id)
        return thing.data.get("file", b"").decode() if thing else ""

    def read_file(self, made: Made, target: str) -> tuple[str, int, int, int]:
        thing = self.machine.containers[made.incarnation]
        files = dict(kept_files(thing.made.spec))  # type: ignore[arg-type]
        if target not in files:
            raise FileNotFoundError(target)
        file = files[target]
        return thing.files[target].decode(), file.uid, file.gid, file.mode

    def copies(self, made: Made) -> set[bytes]:
        return set(self.machine.containers[made.incarnation].files.values())

    def alter_file(self, made: Made, target: str) -> None:
        self.machine.containers[made.incarnation].files[target] = b"altered"
        self.machine.drift(made.key, "contents", altered(target, "as written", "changed by others"))

    def remove_file(self, made: Made, target: str) -> None:
        self.machine.drift(made.key, "contents", missing("restart"))

    def signals(self, made: Made) -> int:
        return self.machine.containers[made.incarnation].signals.count("SIGHUP")

    def add_route(self, subnet: str) -> None:
        self.machine.routes.append(subnet)

    def hold_port(self, port: str) -> None:
        self.machine.port_holders[port] = "python (pid 1)"

    def read_remains(self) -> list[str]:
        machine = self.machine
        pools = {"container": machine.containers, "link": machine.networks, "volume": machine.volumes}
        pools |= {"port": machine.open_ports, "name": machine.names, "content": machine.content}
        return [f"{kind} {name}" for kind, pool in pools.items() for name in pool]


def machine_of(site: Site) -> Machine:
    assert isinstance(site.ground, MemoryGround)
    return site.ground.machine


HARMS = (
    Harm("bridge removed", lambda s: machine_of(s).vanish(s.front.key), ("front all",), reach=("front",)),
    Harm(
        "gateway changed",
        lambda s: machine_of(s).drift(s.front.key, "address", altered("address", "10.64.1.1/24", "10.0.0.1/8")),
        ("front address",),
        reach=("front",),
    ),
    Harm("veth removed", lambda s: machine_of(s).drift(s.web.key, "veth/front", missing()), ("web veth/front",)),
    Harm(
        "limit changed",
        lambda s: machine_of(s).drift(s.web.key, "limits/memory", altered("memory", "64M", "none")),
        ("web limits/memory",),
    ),
    Harm("port closed", lambda s: machine_of(s).open_ports.clear(), ("web port/127.0.0.1:8080/tcp",)),
    Harm(
        "volume's file removed",
        lambda s: machine_of(s).drift(s.data.key, "file", missing()),
        ("data file",),
        reach=("data",),
    ),
    Harm("image removed", lambda s: machine_of(s).content.clear(), ("box all",), reach=("box",)),
    Harm(
        "monitor killed",
        lambda s: machine_of(s).drift(s.web.key, "monitor", missing("restart")),
        ("web monitor",),
        "restart",
    ),
    Harm(
        "root unmounted", lambda s: machine_of(s).drift(s.web.key, "mount", missing("restart")), ("web mount",), "restart"
    ),
)
