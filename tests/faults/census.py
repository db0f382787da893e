"""What a root says it has, put beside what the machine has: whatever is more, or twice, or less, is a line.

Used by the tests of faults and by torture. It reads the database and the kernel by itself, never through the product.
"""

import contextlib
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.world import World

INCARNATION = re.compile(r"\b[0-9a-f]{12}\b")


@dataclass(frozen=True)
class Row:
    """One record, as the database has it."""

    key: str
    incarnation: str
    grants: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.key.partition("/")[0]


@dataclass(frozen=True)
class Book:
    """Everything that is recorded of a root."""

    rows: tuple[Row, ...]
    grants: tuple[tuple[str, str, str, str], ...]
    """(pool, scope, value, owner)"""
    intents: tuple[str, ...]

    @property
    def incarnations(self) -> set[str]:
        return {row.incarnation for row in self.rows if row.kind == "container"}


def inside(world: World, path: Path) -> Path:
    """A path of the world as this process sees it, mounts included."""
    return Path(f"/proc/{world.holder}/root{path}")


_ASK = (
    "SELECT key, incarnation, CAST(grants AS TEXT) FROM records",
    "SELECT pool, scope, value, owner FROM grants",
    "SELECT verb || ' ' || key FROM intents",
)
_INSIDE = f"""
import json, sqlite3, sys
sql = sqlite3.connect("file:" + sys.argv[1] + "?mode=ro", uri=True, timeout=10)
print(json.dumps([sql.execute(one).fetchall() for one in {_ASK!r}]))
"""


def read_book(database: Path, world: World | None = None) -> Book:
    """Read a root's database, without its code; inside the world where one is given, for it may have mounts of its own."""
    if world is not None:
        rows, grants, intents = world.nsenter(sys.executable, "-I", "-c", _INSIDE, str(database)).json()
    else:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as sql:
            rows, grants, intents = (sql.execute(one).fetchall() for one in _ASK)
    made = tuple(Row(key, incarnation, json.loads(given or "{}")) for key, incarnation, given in rows)
    return Book(made, tuple(tuple(grant) for grant in grants), tuple(intent for (intent,) in intents))


def held_twice(book: Book) -> list[str]:
    """What two records hold, what a record holds that is not granted to it, and what is granted to nobody."""
    held = [(pool, scope, value, row.key) for row in book.rows for pool, scope, value in _holds(row)]
    counted = Counter(place[:3] for place in held)
    lines = [f"held twice: {place}" for place, times in counted.items() if times > 1]
    given = {(pool, value, owner) for pool, _, value, owner in book.grants}
    known = {pool for pool, *_ in book.grants}
    lines += [f"held, not granted: {p} {v} by {k}" for p, _, v, k in held if p in known and (p, v, k) not in given]
    keys = {row.key for row in book.rows}
    busy = {intent.partition(" ")[2] for intent in book.intents}
    lines += [f"granted to nobody: {grant}" for grant in book.grants if grant[3] not in keys | busy]
    if not book.intents:
        mine = {(pool, value, key) for pool, _, value, key in held}
        lines += [f"granted, not held: {p} {v} of {o}" for p, v, o in given if p != "port" and (p, v, o) not in mine]
    return lines


def _holds(row: Row) -> Iterator[tuple[str, str, str]]:
    stack = row.key.split("/")[1]
    for pool, field in (("link", "link"), ("subnet", "subnet"), ("volume", "volume_id")):
        if row.grants.get(field):
            yield pool, "", row.grants[field]
    for name, place in row.grants.get("endpoints", {}).items():
        yield "link", "", place["link"]
        yield "mac", "", place["mac"]
        yield "address", f"network/{stack}/{name}", place["address"]


def not_recorded(world: World, book: Book) -> list[str]:
    """What of the product is on the machine beyond what is recorded, one line each."""
    return sorted(line for look in (_folders, _links, _cgroups, _mounts, _processes) for line in look(world, book))


def _folders(world: World, book: Book) -> Iterator[str]:
    root, run = inside(world, world.root), inside(world, Path("/run/reconcile"))
    links = {row.grants.get("link") for row in book.rows if row.kind == "network"}
    volumes = {row.grants.get("volume_id") for row in book.rows if row.kind == "volume"}
    looks = [(root / "containers", book.incarnations), (root / "volumes", volumes), (root / "networks", links)]
    parts = ("bundles", "netns", "runc")
    looks += [(run / name / part, book.incarnations) for name in _own_ids(world) for part in parts]
    for folder, wanted in looks:
        for path in sorted(folder.glob("*")):
            if path.name.partition(".")[0] not in wanted:
                yield f"folder {path.parent.name}/{path.name}"
    for name in ("new-*", ".new-*", "*.tmp"):
        yield from (f"file {path.name}" for path in inside(world, world.root).glob(f"*/{name}"))


def _own_ids(world: World) -> list[str]:
    file = inside(world, world.root / "id")
    return [file.read_text().split()[0]] if file.exists() else []


def _links(world: World, book: Book) -> Iterator[str]:
    wanted = {row.grants.get("link", "") for row in book.rows}
    wanted |= {place["link"] for row in book.rows for place in row.grants.get("endpoints", {}).values()}
    ours = tuple(letter + name for name in _own_ids(world) for letter in "abcdefghijklmnopqrstuvwxyz")
    yield from (f"link {link}" for link in world.links() if link.startswith(ours) and link not in wanted)


def _cgroups(world: World, book: Book) -> Iterator[str]:
    for folder in world.cgroups():
        found = [name for name in INCARNATION.findall(folder) if name not in book.incarnations]
        yield from (f"cgroup {folder}" for _ in found[:1])


def _mounts(world: World, book: Book) -> Iterator[str]:
    run = "/run/reconcile/"
    for line in Path(f"/proc/{world.holder}/mountinfo").read_text().splitlines():
        where = line.split()[4]
        parts = where.removeprefix(run).split("/") if where.startswith(run) else []
        if len(parts) > 2 and parts[1] in ("bundles", "netns") and parts[2] not in book.incarnations:
            yield f"mount {where}"
    seen = Counter(line.split()[4] for line in Path(f"/proc/{world.holder}/mountinfo").read_text().splitlines())
    yield from (f"mount {where} {times} times" for where, times in seen.items() if times > 1 and where.startswith(run))


def _processes(world: World, book: Book) -> Iterator[str]:
    conmons: Counter[str] = Counter()
    for pid, command in world.processes().items():
        words = command.split()
        program = Path(words[0]).name if words else ""
        if program == "conmon" and "-c" in words:
            made = words[words.index("-c") + 1]
            conmons[made] += "--exec-process-spec" not in words and "-e" not in words
            if made not in book.incarnations:
                yield f"process {pid} {command[:80]}"
    yield from (f"process conmon of {made} {times} times" for made, times in conmons.items() if times > 1)
    names = [pid for pid, command in world.processes().items() if "aardvark-dns" in command.split(" ")[0]]
    if len(names) > 1:
        yield f"process aardvark-dns {len(names)} times"
