"""Measures the rows of docs/performance.md, reconcile and Docker in turn on one machine, and prints them as a table.

    tests/bench/run [--peer CMD] [--served] [--rounds N] [--big REPOSITORY:TAG --big-storage DIR] [ROW…]

`CMD` is a real Docker: `CMD up` starts it, `CMD exec COMMAND…` runs a command beside its daemon, `CMD netns COMMAND…` one
of this machine in its network namespace. Without a peer only our own times are measured. `--served` has a controller in
the world, through whose socket our commands go. Ours run in a world of their own
(tests/lab/world.py), with the same images from a registry over the same storage.
"""

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.images import push_all
from lab.registry import free_port, start_registry
from lab.world import World, open_world, wait_until

PORT = 5000
IMAGE = f"127.0.0.1:{PORT}/busybox:1"
WEB = f"127.0.0.1:{PORT}/web:1"
_ENTERINGS = 15
"""How often it is measured what leads to a command."""


class PeerFailed(Exception):
    """A command of the peer's ended badly."""


class Peer:
    """A Docker to measure against."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.command = command
        self.folder = folder

    def exec(self, *words: str, stdin: str = "", check: bool = True) -> str:
        """Run a command beside the daemon; what it printed."""
        done = subprocess.run([*self.command, "exec", *words], input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise PeerFailed(f"{shlex.join(words)}: {done.stderr}")
        return done.stdout

    def script(self, text: str) -> str:
        """Run a shell script beside the daemon, so that one entry of its namespaces serves all of it."""
        return self.exec("sh", "-ec", text)

    def compose(self, name: str, manifest: dict[str, Any]) -> str:
        """Put a Compose file beside the daemon; its path there."""
        path = f"/tmp/bench-{name}.json"
        self.exec("tee", path, stdin=json.dumps(manifest))
        return path

    @contextmanager
    def network(self) -> Iterator[list[str]]:
        """The command prefix that leads into the daemon's network namespace."""
        yield [*self.command, "netns"]


@dataclass
class Bench:
    """What every row gets. `rounds` is how often each side is measured; times are seconds."""

    world: World
    peer: Peer | None
    rounds: int
    big: str = ""
    served: bool = False
    notes: list[str] = field(default_factory=list)
    entered: tuple[float, float] = (0.0, 0.0)
    """Seconds that it takes to come to where commands run, ours and the peer's: taken off, for no user pays them."""

    def stack(self, count: int, **extra: Any) -> str:
        """A manifest of `count` containers on one bridge, as a path."""
        box = {"image": IMAGE, "command": ["pause"], "networks": ["front"], **extra}
        return self.manifest("bench", {f"c{n}": box for n in range(count)})

    def manifest(self, name: str, containers: dict[str, Any], subnet: str = "10.88.0.0/22") -> str:
        networks = {"front": {"subnet": subnet}}
        document = {"apiVersion": "reconcile/v1", "name": name, "networks": networks, "containers": containers}
        return str(self.world.write(document, f"{name}.yaml"))

    def composed(self, count: int) -> str:
        """The same for the peer."""
        assert self.peer
        services = {f"c{n}": {"image": IMAGE, "command": ["pause"], "networks": ["front"]} for n in range(count)}
        return self.peer.compose("stack", {"name": "bench", "services": services, "networks": {"front": {}}})

    def ours(self, *arguments: str) -> float:
        """Seconds that `reconcile ARGUMENTS…` takes."""
        began = time.perf_counter()
        self.world.run(*arguments, check=0)
        return time.perf_counter() - began - self.entered[0]

    def theirs(self, *words: str) -> float:
        """Seconds that a command of the peer's takes."""
        assert self.peer
        began = time.perf_counter()
        self.peer.exec(*words)
        return time.perf_counter() - began - self.entered[1]

    def measure_entering(self) -> None:
        """Have the time that leads to a command taken off from now on."""
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(_ENTERINGS):
            began = time.perf_counter()
            self.world.nsenter("true")
            taken[0].append(time.perf_counter() - began)
            if self.peer:
                taken[1].append(self.theirs("true"))
        self.entered = (statistics.median(taken[0]), statistics.median(taken[1] or [0.0]))


@dataclass(frozen=True)
class Row:
    """One measured line. `bound` is the ratio (or, without a peer's side, the seconds) that ours must not exceed."""

    name: str
    ours: list[float]
    theirs: list[float]
    bound: float
    unit: str = "s"

    def render(self) -> str:
        """A line of the table."""
        ours = statistics.median(self.ours)
        if not self.theirs:
            verdict = "" if not self.bound else "yes" if ours <= self.bound else "**no**"
            limit = f"≤ {self.bound:g} {self.unit}" if self.bound else "-"
            return f"| {self.name} | {_figure(self.ours, self.unit)} | - | - | {limit} | {verdict} |"
        ratio = ours / statistics.median(self.theirs)
        verdict = "yes" if ratio <= self.bound else "**no**"
        theirs = _figure(self.theirs, self.unit)
        return (
            f"| {self.name} | {_figure(self.ours, self.unit)} | {theirs} | {ratio:.2f}x | ≤ {self.bound:g}x | {verdict} |"
        )


def _figure(values: list[float], unit: str) -> str:
    middle = statistics.median(values)
    digits = 0 if unit == "MB" else 3 if middle < 1 else 2
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{middle:.{digits}f} {unit}{spread}"


# --- rows -------------------------------------------------------------------------------------------------------------


def fifty(bench: Bench) -> list[Row]:
    """50 containers on a bridge: up, nothing to do, down; and how `get` answers meanwhile."""
    path = bench.stack(50, stop_grace="1s")
    compose = bench.composed(50) if bench.peer else ""
    up: tuple[list[float], list[float]] = ([], [])
    noop: tuple[list[float], list[float]] = ([], [])
    down: tuple[list[float], list[float]] = ([], [])
    get: tuple[list[float], list[float]] = ([], [])
    for _ in range(bench.rounds):
        up[0].append(bench.ours("apply", path, "--yes", "--no-wait"))
        noop[0].append(bench.ours("apply", path, "--yes", "--no-wait"))
        get[0].append(bench.ours("get"))
        down[0].append(bench.ours("delete", "bench", "--yes"))
        if bench.peer:
            up[1].append(bench.theirs("docker", "compose", "-f", compose, "up", "-d"))
            noop[1].append(bench.theirs("docker", "compose", "-f", compose, "up", "-d"))
            get[1].append(bench.theirs("docker", "ps"))
            down[1].append(bench.theirs("docker", "compose", "-f", compose, "down", "-t", "1"))
    return [
        Row("50 containers up (`--no-wait`)", *up, 0.35),
        Row("the same, nothing to do", *noop, 1.0 if bench.served else 2.5),
        Row("the same, down", *down, 0.35),
        Row("`get` of 50", get[0], [], 0.1 if bench.served else 0.5),
    ]


def one(bench: Bench) -> list[Row]:
    """One container, from nothing to started: with the first network of the machine, and beside another stack."""
    box = {"image": IMAGE, "command": ["pause"], "networks": ["front"]}
    path, beside_it = bench.manifest("single", {"it": box}), bench.manifest("other", {"there": box}, "10.92.0.0/24")
    ours: tuple[list[float], list[float]] = ([], [])
    theirs: tuple[list[float], list[float]] = ([], [])
    for place in range(2 * bench.rounds):
        beside = place >= bench.rounds
        if place == bench.rounds:
            bench.ours("apply", beside_it, "--yes")
        ours[beside].append(bench.ours("apply", path, "--yes", "--no-wait"))
        bench.ours("delete", "single", "--yes")
        if bench.peer:
            theirs[beside].append(bench.theirs("docker", "run", "-d", "--name", "single", IMAGE, "pause"))
            bench.theirs("docker", "rm", "-f", "single")
    bench.ours("delete", "other", "--yes")
    bound = 0.5 if bench.served else 1.6
    names = ("one container (`docker run -d`)", "the same, beside another stack")
    return [Row(name, mine, other, bound) for name, mine, other in zip(names, ours, theirs, strict=True)]


def killed(bench: Bench) -> list[Row]:
    """From SIGKILL to running again, as seen by the process table."""
    path = bench.manifest("killed", {"it": {"image": IMAGE, "command": ["pause"], "networks": ["front"]}})
    bench.ours("apply", path, "--yes")
    ours, theirs = [], []
    if bench.peer:
        bench.peer.exec("docker", "run", "-d", "--restart", "always", "--name", "killed", IMAGE, "pause")
    for _ in range(bench.rounds * 2):
        ours.append(_ours_back(bench))
        if bench.peer:
            theirs.append(_theirs_back(bench.peer))
    bench.ours("delete", "killed", "--yes")
    if bench.peer:
        bench.peer.exec("docker", "rm", "-f", "killed")
    return [Row("killed container running again", ours, theirs, 0.3)]


def _ours_back(bench: Bench) -> float:
    # Order: both sides begin their backoff anew after 10 s of running, so that each kill is a first one.
    time.sleep(10.5)
    pid = bench.world.pid("killed/it")
    outside = _outer_pid(bench.world, pid)
    began = time.perf_counter()
    os.kill(outside, 9)
    _spin_until(lambda: bool(_pause_pids(bench.world.proc) - {pid}))
    return time.perf_counter() - began


def _theirs_back(peer: Peer) -> float:
    pid = int(peer.exec("docker", "inspect", "-f", "{{.State.Pid}}", "killed"))
    others = _pause_pids(Path("/proc"))
    began = time.perf_counter()
    os.kill(pid, 9)
    _spin_until(lambda: bool(_pause_pids(Path("/proc")) - others))
    return time.perf_counter() - began


def _spin_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise PeerFailed("it did not come back")
        time.sleep(0.001)


def _pause_pids(proc: Path) -> set[int]:
    """Processes that run the command `pause` (not the runtime that is about to)."""
    found = set()
    for path in proc.iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"/bin/pause") for word in words[:3]):
                found.add(int(path.name))
    return found


def _outer_pid(world: World, inner: int) -> int:
    namespace = (world.proc / str(inner) / "ns/pid").readlink()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if (path / "ns/pid").readlink() == namespace and f"\t{inner}\t" in (path / "status").read_text():
                    return int(path.name)
            except OSError:
                continue
    raise PeerFailed(f"no process outside is {inner} inside")


def replace(bench: Bench) -> list[Row]:
    """How long a published port refuses while its container is replaced."""
    ours, theirs = [], []
    for turn in range(bench.rounds):
        ours.append(_our_gap(bench, turn))
        if bench.peer:
            theirs.append(_their_gap(bench.peer, turn))
    return [Row("replace of one container: its port refuses for", ours, theirs, 0.3)]


def _web(turn: int) -> dict[str, Any]:
    return {"it": {"image": WEB, "ports": ["127.0.0.1:8088:8080"], "networks": ["front"], "env": {"TURN": f"{turn}"}}}


def _our_gap(bench: Bench, turn: int) -> float:
    bench.ours("apply", bench.manifest("gap", _web(2 * turn)), "--yes")
    path = bench.manifest("gap", _web(2 * turn + 1))
    with bench.world.network(), Refusals(8088) as refusals:
        bench.ours("apply", path, "--yes")
    bench.ours("delete", "gap", "--yes")
    return refusals.longest


def _their_gap(peer: Peer, turn: int) -> float:
    def service(value: int) -> dict[str, Any]:
        return {"image": WEB, "ports": ["127.0.0.1:8088:8080"], "environment": {"TURN": f"{value}"}}

    for value in (2 * turn, 2 * turn + 1):
        path = peer.compose("gap", {"name": "gap", "services": {"it": service(value)}})
        if value % 2 == 0:
            peer.exec("docker", "compose", "-f", path, "up", "-d")
            continue
        watcher = [*peer.command, "netns", sys.executable, __file__, "--watch-port", "8088"]
        with subprocess.Popen(watcher, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            peer.exec("docker", "compose", "-f", path, "up", "-d")
            time.sleep(1)
            out, _ = process.communicate("\n")
    peer.exec("docker", "compose", "-f", path, "down", "-t", "1")
    return float(out.split()[-1])


class Refusals:
    """Asks a port again and again from a thread of the network namespace where it was made; `longest` is the longest
    time without an answer, in seconds."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.longest = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Refusals":
        # A thread inherits the network namespace of the one that makes it.
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        last = time.perf_counter()
        while not self._end.is_set():
            now = time.perf_counter()
            if self._answers():
                self.longest = max(self.longest, now - last)
                last = time.perf_counter()
            time.sleep(0.001)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.2) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.")
        except OSError:
            return False


def limits(bench: Bench) -> list[Row]:
    """Another memory limit for 50 containers that run, in place; Compose makes them anew, which nobody compares."""
    bench.ours("apply", bench.stack(50, resources={"memory": "64M"}), "--yes", "--no-wait")
    ours = [
        bench.ours("apply", bench.stack(50, resources={"memory": f"{65 + turn}M"}), "--yes") for turn in range(bench.rounds)
    ]
    bench.ours("delete", "bench", "--yes")
    return [Row("limits of 50 containers changed in place", ours, [], 1.0)]


def short(bench: Bench) -> list[Row]:
    """`run --rm` of a command that does nothing."""
    ours, theirs = [], []
    for _ in range(bench.rounds * 2):
        ours.append(bench.ours("run", "--rm", IMAGE, "true"))
        if bench.peer:
            theirs.append(bench.theirs("docker", "run", "--rm", IMAGE, "true"))
    return [Row("`run --rm IMAGE true`, no controller yet", ours, theirs, 1.5)]


HEALTH = {"test": ["CMD", "true"], "interval": "1s", "timeout": "10s", "retries": 30}


def boot(bench: Bench) -> list[Row]:
    """50 recorded containers after a reboot, until all are healthy; theirs by `restart: always` when the daemon starts.

    Ours begins with nothing in the kernel, theirs after an orderly stop of the daemon.
    """
    path = bench.stack(50, stop_grace="1s", healthcheck=HEALTH)
    bench.ours("apply", path, "--yes")
    ours = []
    for _ in range(bench.rounds):
        bench.world.reboot()
        ours.append(bench.ours("boot"))
    bench.ours("delete", "bench", "--yes")
    return [Row("boot of 50 to all healthy", ours, _their_boots(bench) if bench.peer else [], 0.5)]


def _their_boots(bench: Bench) -> list[float]:
    assert bench.peer
    box = {"image": IMAGE, "command": ["pause"], "networks": ["front"], "restart": "always", "healthcheck": HEALTH}
    services = {f"c{n}": box for n in range(50)}
    path = bench.peer.compose("boot", {"name": "bench", "services": services, "networks": {"front": {}}})
    healthy = "until [ $(docker ps -q --filter health=healthy 2>/dev/null | wc -l) -ge 50 ]; do sleep 0.1; done"
    times = []
    bench.peer.exec("docker", "compose", "-f", path, "up", "-d")
    bench.peer.script(healthy)
    for _ in range(bench.rounds):
        bench.peer.script('p=$(cat /run/docker.pid); kill "$p"; while [ -d "/proc/$p" ]; do sleep 0.1; done')
        began = time.perf_counter()
        starting = subprocess.Popen([*bench.peer.command, "up"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        bench.peer.script(healthy)
        times.append(time.perf_counter() - began)
        starting.wait(60)
    bench.peer.exec("docker", "compose", "-f", path, "down", "-t", "1")
    return times


def memory(bench: Bench) -> list[Row]:
    """PSS of every process that 20 idle containers need, theirs with the daemons."""
    bench.ours("apply", bench.stack(20), "--yes")
    pids = _pids_of(bench.world.proc, _is_ours) + (_controllers_of(bench.world.proc) if bench.served else [])
    ours = [_pss(pids, bench.world.proc) / 1e6]
    bench.ours("delete", "bench", "--yes")
    theirs = []
    if bench.peer:
        path = bench.composed(20)
        bench.peer.exec("docker", "compose", "-f", path, "up", "-d")
        theirs = [_pss(_pids_of(Path("/proc"), _is_docker), Path("/proc")) / 1e6]
        bench.peer.exec("docker", "compose", "-f", path, "down", "-t", "1")
    return [Row("memory held for 20 idle containers (PSS, without the containers' own)", ours, theirs, 0.25, "MB")]


def _is_ours(command: str) -> bool:
    return any(name in command for name in ("conmon", "aardvark", "reconcil"))


def _controllers_of(proc: Path) -> list[str]:
    """Those of the world: its `reconcile serve`, whose program is Python; its registry's second word is `serve`, too."""
    ours = b"/bin/reconcile\0serve\0"
    return [path.parent.name for path in proc.glob("[0-9]*/cmdline") if ours in path.read_bytes()]


def _is_docker(command: str) -> bool:
    return any(name in command for name in ("dockerd", "containerd", "docker-proxy"))


def _pids_of(proc: Path, wanted: Callable[[str], bool]) -> list[str]:
    found = []
    for path in proc.iterdir():
        if path.name.isdigit():
            try:
                program = (path / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            except OSError:
                continue
            if wanted(program):
                found.append(path.name)
    return found


def _pss(pids: list[str], proc: Path) -> float:
    """Bytes."""
    total = 0
    for pid in pids:
        found = re.search(r"^Pss:\s+(\d+) kB", (proc / pid / "smaps_rollup").read_text(), re.MULTILINE)
        total += int(found[1]) * 1024 if found else 0
    return total


def inside(bench: Bench) -> list[Row]:
    """`exec true` and `logs --tail 10` of a container that runs."""
    loud = {"image": IMAGE, "command": ["sh", "-c", "seq 1000; exec pause"], "networks": ["front"]}
    bench.ours("apply", bench.manifest("inside", {"it": loud}), "--yes")
    if bench.peer:
        bench.peer.exec("docker", "run", "-d", "--name", "inside", IMAGE, "sh", "-c", "seq 1000; exec pause")
    rows: dict[str, tuple[list[float], list[float]]] = {"exec": ([], []), "logs": ([], [])}
    for _ in range(bench.rounds):
        rows["exec"][0].append(bench.ours("exec", "it", "true"))
        rows["logs"][0].append(bench.ours("logs", "--tail", "10", "it"))
        if bench.peer:
            rows["exec"][1].append(bench.theirs("docker", "exec", "inside", "true"))
            rows["logs"][1].append(bench.theirs("docker", "logs", "--tail", "10", "inside"))
    bench.ours("delete", "inside", "--yes")
    if bench.peer:
        bench.peer.exec("docker", "rm", "-f", "inside")
    bound = 0.5 if bench.served else 2.5
    return [Row(f"`{name}`", *values, bound) for name, values in rows.items()]


def pull(bench: Bench) -> list[Row]:
    """A pull of the big image, from nothing."""
    if not bench.big:
        bench.notes.append("pull: give --big REPOSITORY:TAG and --big-storage DIR (a registry's storage)")
        return []
    reference = f"127.0.0.1:{PORT + 1}/{bench.big}"
    ours, theirs = [], []
    for _ in range(bench.rounds):
        ours.append(bench.ours("pull", reference))
        bench.ours("images", "prune", "--all", "--yes")
        if bench.peer:
            theirs.append(bench.theirs("docker", "pull", reference))
            bench.peer.exec("docker", "rmi", reference)
    return [Row("pull of the big image", ours, theirs, 0.5)]


def planning(bench: Bench) -> list[Row]:
    """The whole `plan` command over many unchanged containers is measured in tests/plan's own room; here its start-up."""
    bench.ours("apply", bench.stack(1), "--yes")
    version = [bench.ours("version") for _ in range(bench.rounds)]
    get = [bench.ours("get") for _ in range(bench.rounds)]
    bench.ours("delete", "bench", "--yes")
    return [Row("`version`", version, [], 0.1), Row("`get` of one", get, [], 0.5)]


ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "fifty": fifty,
    "one": one,
    "killed": killed,
    "replace": replace,
    "boot": boot,
    "limits": limits,
    "short": short,
    "memory": memory,
    "inside": inside,
    "pull": pull,
    "planning": planning,
}


# --- the run ----------------------------------------------------------------------------------------------------------


def machine() -> str:
    """What the figures were measured on, in one line."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gigabytes = int(memory[1]) / 1e6 if memory else 0
    name = cpu[1] if cpu else platform.machine()
    return f"{os.cpu_count()} x {name}, {gigabytes:.0f} GB, kernel {platform.release()}, Python {platform.python_version()}"


def versions(peer: Peer | None) -> str:
    """What was measured beside us."""
    if not peer:
        return "no peer"
    docker = peer.exec("docker", "version", "--format", "{{.Server.Version}}").strip()
    compose = peer.exec("docker", "compose", "version", "--short").strip()
    return f"Docker {docker}, Compose {compose}"


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Bench]:
    """A world, a peer and registries over one storage in both; all of it ends with the bench."""
    folder = Path(tempfile.mkdtemp(prefix="reconcile-bench-"))
    registries: list[subprocess.Popen[bytes]] = []
    served: subprocess.Popen[bytes] | None = None
    peer = Peer(shlex.split(arguments.peer), folder) if arguments.peer else None
    storage = folder / "storage"
    filling = start_registry(storage, folder / "filling", port=free_port(5100))
    push_all(filling.url)
    filling.stop()
    world = open_world(folder / "world", storage)
    storages = {PORT: storage, **({PORT + 1: Path(arguments.big_storage)} if arguments.big_storage else {})}
    try:
        if arguments.big_storage:
            registries.append(start_registry(storages[PORT + 1], folder / "big", port=PORT + 1, enter=world.enter).process)
        if peer:
            subprocess.run([*peer.command, "up"], check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            for port, where in storages.items():
                enter = [*peer.command, "netns"]
                registries.append(start_registry(where, folder / f"peer-{port}", port=port, enter=enter).process)
            for image in (IMAGE, WEB):
                peer.exec("docker", "pull", "-q", image)
        bench = Bench(world, peer, arguments.rounds, arguments.big, arguments.served)
        if arguments.served:
            (folder / "stacks").mkdir()
            served = world.popen("serve", "--watch", str(folder / "stacks"))
            wait_until(lambda: world.run("status", "-o", "json").json()["controller"], "it serves", seconds=60)
        for image in (IMAGE, WEB):
            bench.ours("pull", image)
        yield bench
    finally:
        for process in [*registries, *([served] if served else [])]:
            world.signal(process)
            process.wait(10)
        if peer:
            for image in (IMAGE, WEB):
                peer.exec("docker", "rmi", image, check=False)
        world.close()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="", help="command of a Docker to measure against")
    parser.add_argument("--served", action="store_true", help="let our commands go through a controller")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--big", default="", help="REPOSITORY:TAG of the image that `pull` pulls")
    parser.add_argument("--big-storage", default="", help="storage folder of a docker-registry that holds it")
    parser.add_argument("--watch-port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of: {', '.join(ROWS)}; all when none is named")
    arguments = parser.parse_args()
    if arguments.watch_port:
        return watch_port(arguments.watch_port)
    unknown = set(arguments.rows) - ROWS.keys()
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    print(f"{machine()}; {versions(Peer(shlex.split(arguments.peer), Path()) if arguments.peer else None)}\n")
    print("| work | reconcile | Docker | ratio | bound | held |\n|---|---|---|---|---|---|")
    with opened(arguments) as bench:
        bench.measure_entering()
        for name in arguments.rows or ROWS:
            for row in ROWS[name](bench):
                print(row.render(), flush=True)
        ours, theirs = (round(seconds * 1e3, 1) for seconds in bench.entered)
        print(f"\n`true` in place of a command takes {ours} and {theirs} ms, which are taken off")
        for note in bench.notes:
            print(f"\n{note}")
    return 0


def watch_port(port: int) -> int:
    """Watch a port until a line comes on the standard input, then print the longest time of refusal."""
    with Refusals(port) as refusals:
        print("watching", flush=True)
        sys.stdin.readline()
    print(refusals.longest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
