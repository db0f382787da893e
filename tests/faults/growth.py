"""Counts what a root holds of the machine and of its disk, and says which of it grows from round to round.

`count_everything` reads the kernel and the database by itself, never through the product. A series of such counts becomes
a slope for each thing, by least squares. Used by leaks.py, which makes the rounds.
"""

import contextlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from census import INCARNATION, inside

from lab.world import World

Counts = Mapping[str, float]

ALLOWED = 0.5
"""How much a count may seem to grow in all rounds together: less than one of anything."""
ALLOWED_KIB = 64.0
"""The same for memory, in KiB: pages come and go by what the machine does else."""
ROUNDS_OF_MEMORY = 50
"""Memory is judged after so many rounds at least: an allocator takes its time to find what it needs."""
TOLD = "(told) "
"""What begins so is told and not judged: it depends on what else runs on the machine, and on the kernel's caches."""


@dataclass
class Series:
    """What was counted after so many rounds."""

    rounds: list[int] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)

    def add(self, number: int, counts: Counts) -> None:
        """Note what there is after round `number`."""
        self.rounds.append(number)
        self.counts.append(counts)

    def growths(self) -> list["Growth"]:
        """Of everything that was ever there, once the first fifth (warm-up) is left out."""
        first = len(self.rounds) // 5
        rounds, counts = self.rounds[first:], self.counts[first:]
        names = sorted({name for one in counts for name in one})
        return [Growth.of(name, rounds, [one.get(name, 0) for one in counts]) for name in names]


@dataclass(frozen=True)
class Growth:
    """How one thing changed: at the first and the last count, and per round by least squares."""

    name: str
    first: float
    last: float
    slope: float
    rounds: int

    @classmethod
    def of(cls, name: str, rounds: Sequence[int], values: Sequence[float]) -> "Growth":
        """The line through these values."""
        span = rounds[-1] - rounds[0]
        return cls(name, values[0], values[-1], fit_slope(rounds, values), span)

    @property
    def is_leak(self) -> bool:
        """Whether it grows by more than what may seem so by chance."""
        if self.name.startswith(TOLD):
            return False
        if self.name.startswith("KiB"):
            return self.rounds >= ROUNDS_OF_MEMORY and self.slope * self.rounds > ALLOWED_KIB
        return self.slope * self.rounds > ALLOWED

    def __str__(self) -> str:
        return f"{self.name}: {self.first:g} -> {self.last:g}, {self.slope:+.4f} a round"


def fit_slope(rounds: Sequence[int], values: Sequence[float]) -> float:
    """Least squares; 0 of fewer than two points."""
    middle = sum(rounds) / len(rounds)
    height = sum(values) / len(values)
    square = sum((x - middle) ** 2 for x in rounds)
    return sum((x - middle) * (y - height) for x, y in zip(rounds, values, strict=True)) / square if square else 0.0


def count_everything(world: World) -> dict[str, float]:
    """Name to number, of everything that may leak."""
    looks = (_processes, _kernel, _network, _rules, _files, _database, _whole_machine)
    return {name: value for look in looks for name, value in look(world)}


def _processes(world: World) -> Iterator[tuple[str, float]]:
    """How many there are by program, their descriptors, their memory and their namespaces."""
    found: Counter[str] = Counter()
    spaces = set()
    for pid, command in world.processes().items():
        program = command.split()[0].rpartition("/")[2]
        place = world.proc / str(pid)
        with contextlib.suppress(OSError):  # it has ended just now
            found[f"fds of {program}"] += len(list((place / "fd").iterdir()))
            for line in (place / "smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in ("Rss", "Pss", "Anonymous"):
                    found[f"KiB {name} of {program}"] += int(rest.split()[0])
            spaces |= {(kind, (place / "ns" / kind).readlink()) for kind in ("net", "mnt", "pid", "ipc", "uts")}
            found[f"processes {program}"] += 1
    # Kernel: pages of files come and go by what others map and how full memory is; what a process asked for is Anonymous.
    yield from ((TOLD * ("Rss" in name or "Pss" in name) + name, value) for name, value in found.items())
    yield from ((f"namespaces {kind}", value) for kind, value in Counter(kind for kind, _ in spaces).items())
    yield "processes that ended and nobody waited for", sum(_is_zombie(path) for path in world.proc.glob("[0-9]*/stat"))


def _is_zombie(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def _kernel(world: World) -> Iterator[tuple[str, float]]:
    mounts = Path(f"/proc/{world.holder}/mountinfo").read_text().splitlines()
    yield "mounts", len(mounts)
    yield "mounts of namespaces", sum(" - nsfs " in line for line in mounts)
    yield "loop devices", sum(line.startswith("loop ") for line in world.leftovers())
    folders = world.cgroups()
    yield "cgroups", len(folders)
    used = {path.parent.name: int(path.read_text()) for one in folders for path in Path(one).glob("memory.kmem.usage*")}
    containers = {name: size for name, size in used.items() if INCARNATION.fullmatch(name)}
    yield "KiB kernel memory of containers' cgroups", sum(containers.values()) / 1024
    # Kernel: names and inodes of files that are gone stay in its caches, on the account of who made them.
    others = sum(used.values()) - sum(containers.values())
    yield f"{TOLD}KiB kernel memory of the root's other cgroups", others / 1024
    for folder in folders:
        stat = Path(folder, "cgroup.stat")  # v2 only: v1 tells it of the whole machine
        if stat.exists() and "/" not in folder.partition("reconcile-")[2]:
            yield f"{TOLD}dying cgroups of the root", int(stat.read_text().partition("nr_dying_descendants ")[2].split()[0])


def _network(world: World) -> Iterator[tuple[str, float]]:
    net = Path(f"/proc/{world.holder}/net")
    yield "links", len(world.links())
    yield "routes", sum(len((net / name).read_text().splitlines()) for name in ("route", "ipv6_route"))
    yield "sockets unix", len((net / "unix").read_text().splitlines()) - 1
    yield "sockets udp", sum(len((net / name).read_text().splitlines()) - 1 for name in ("udp", "udp6"))
    listening = [line for name in ("tcp", "tcp6") for line in (net / name).read_text().splitlines() if " 0A " in line]
    yield "sockets that listen", len(listening)


def _rules(world: World) -> Iterator[tuple[str, float]]:
    found: Counter[str] = Counter()
    for item in json.loads(world.nsenter("nft", "-j", "list", "ruleset").out)["nftables"]:
        [(kind, body)] = item.items()
        found[f"nft {kind}s"] += kind != "metainfo"
        found["nft elements"] += len(body.get("elem", ())) if kind in ("set", "map") else 0
    yield from ((name, value) for name, value in found.items() if name != "nft metainfos")


def _files(world: World) -> Iterator[tuple[str, float]]:
    """By the folder of the root or of the run directory; what SQLite keeps beside its file comes and goes."""
    found: Counter[str] = Counter()
    for path in _walk(inside(world, world.root)):
        parts = path.relative_to(inside(world, world.root)).parts
        found[f"files ROOT/{parts[0] if len(parts) > 1 else ''}"] += not path.name.startswith("reconcile.db-")
    for run in inside(world, Path("/run/reconcile")).iterdir():
        for path in _walk(run):
            found[f"files /run/reconcile/ID/{path.relative_to(run).parts[0]}"] += 1
    yield from found.items()


def _walk(top: Path) -> Iterator[Path]:
    """Everything below a folder, but for what is mounted in there: that is counted as a mount."""
    device = top.lstat().st_dev
    for folder, names, files in os.walk(top):
        names[:] = [name for name in names if Path(folder, name).lstat().st_dev == device]
        yield from (Path(folder, name) for name in (*names, *files))


def _database(world: World) -> Iterator[tuple[str, float]]:
    file = world.root / "reconcile.db"
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as sql:
        tables = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            yield f"rows {table}", sql.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
        pages, size = (sql.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    yield "KiB reconcile.db", pages * size / 1024


def _whole_machine(_: World) -> Iterator[tuple[str, float]]:
    """Cgroups that were removed and that the kernel still holds, for what they brought into its caches is there."""
    for line in Path("/proc/cgroups").read_text().splitlines():
        name, hierarchy, number, _ = line.split()
        if name == "memory" and hierarchy != "0":
            there = sum(1 for _ in os.walk("/sys/fs/cgroup/memory"))
            yield f"{TOLD}dying memory cgroups of the machine", int(number) - there
