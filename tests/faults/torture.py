"""Random rounds of harm to two stacks in a world, on the real kernel; after each everything must be as it is written.

A round draws another version of the stack `storm`, harms the apply that brings it (a kill, a failpoint, a stopped client,
a full disk, a second apply …) or what runs (a monitor, a link, the rules, a reboot), and then applies at most twice. Beside
it stands `calm`, which nobody changes. What is looked at afterwards: `Ordeal.judge`. The same seed draws the same rounds;
the kernel's timing is not drawn. scripts/torture runs it.
"""

import argparse
import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from census import held_twice, inside, not_recorded, read_book

from lab.world import REPOSITORY, Result, World, open_world, wait_until

CANARY = "what must not be lost\n"
CONTAINERS = ("storm/store", "storm/web", "storm/late", "calm/still")
_STACKS = ("storm.yaml", "calm.yaml")
_POINT = re.compile(r'failpoint\.at\(\s*"([a-z0-9_.-]+)"')
_ENDS = (0, 1, 5)
"""What an apply that is harmed may end with: done, failed, or not its turn. A signal's is negative."""


class Lost(AssertionError):
    """Something that should be there or as it was is not."""


class Leaked(AssertionError):
    """Something is there that should not be."""


# --- what is wanted -----------------------------------------------------------------------------------------------------


def storm(chance: random.Random) -> dict[str, Any]:
    """One version of the stack that changes."""
    colour, port, tag = chance.choice("abc"), chance.choice((8080, 8081)), chance.choice((1, 2))
    box: dict[str, Any] = {"image": "box", "init": True, "stop_grace": "2s", "restart": "always"}
    start = "date +%s%N >>/data/starts; exec pause"
    containers: dict[str, Any] = {
        "store": {**box, "command": ["sh", "-c", start], "networks": ["back"], "mounts": ["data:/data"]},
        "web": {
            "image": "web",
            "networks": {"front": {"aliases": ["www"]}, "back": {}},
            "ports": [f"127.0.0.1:{port}:8080"],
            "depends_on": {"store": "started"},
            "env": {"COLOUR": colour},
        },
        "worker": {**box, "command": ["pause"], "networks": ["back"], "replicas": chance.randint(1, 3)},
    }
    if chance.random() < 0.5:
        containers["late"] = {**box, "command": ["pause"], "networks": ["side"], "mounts": ["more:/more"]}
    if chance.random() < 0.3:
        containers["store"]["env"] = {"COLOUR": chance.choice("ab")}
    return {
        "apiVersion": "reconcile/v1",
        "name": "storm",
        "images": {"web": {"from": f"127.0.0.1:5000/web:{tag}"}, "box": {"from": "127.0.0.1:5000/busybox:1"}},
        "networks": {"front": {}, "back": {"internal": True}, "side": {}},
        "volumes": {"data": {}, "more": {}},
        "containers": containers,
    }


CALM = {
    "apiVersion": "reconcile/v1",
    "name": "calm",
    "volumes": {"kept": {}},
    "containers": {
        "still": {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "mounts": ["kept:/kept"], "restart": "always"}
    },
}


def definitions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What each container is, by name, its image included: who has the same text is not touched."""
    made: dict[str, Any] = manifest["containers"]
    images = manifest.get("images", {})
    body = {n: {k: v for k, v in c.items() if k != "replicas"} for n, c in made.items()}
    return {n: json.dumps([c, images.get(c["image"])], sort_keys=True) for n, c in body.items()}


# --- one world under torture --------------------------------------------------------------------------------------------


@dataclass
class Ordeal:
    """A world with both stacks, and what was done to it."""

    world: World
    chance: random.Random
    small: bool
    """Whether its root is on a file system of its own that can be filled."""
    version: dict[str, Any] = field(default_factory=dict)
    versions: list[dict[str, Any]] = field(default_factory=list)
    """Everything that `storm` was asked to be since the last judgement."""
    pids: dict[str, int] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    """Containers that this round ended on purpose; `*` for all."""
    seconds: float = 1.0
    """How long an apply takes here."""
    said: list[str] = field(default_factory=list)
    starts: int = 0

    def begin(self) -> None:
        """Bring both stacks up, and write what must not be lost."""
        if self.small:
            self.world.root.mkdir(mode=0o700)
            self.world.nsenter("mount", "-t", "tmpfs", "-o", "size=160m,mode=0700", "tmpfs", str(self.world.root))
            self.world._mounts_at_first = self.world._read_mounts()
        self.world.write(CALM, "calm.yaml")
        self.draw()
        began = time.monotonic()
        self.apply(check=0)
        self.seconds = time.monotonic() - began
        self.world.run("exec", "still", "sh", "-c", f"printf %s '{CANARY}' >/kept/canary", check=0)
        self.world.run("exec", "store", "sh", "-c", f"printf %s '{CANARY}' >/data/canary", check=0)
        self.note_state()

    def draw(self) -> None:
        """The next version of `storm` is wanted from now on."""
        self.version = storm(self.chance)
        self.versions.append(self.version)
        self.world.write(self.version, "storm.yaml")

    def note_state(self) -> None:
        """Who runs, with which pid."""
        self.pids = self.read_pids()
        self.starts = self.read_starts()
        self.touched = set()
        self.versions = [self.version]

    def read_pids(self) -> dict[str, int]:
        """`storm/web/1` to its pid."""
        found = self.world.records("container")
        return {key.removeprefix("container/"): int(one["status"].get("pid") or 0) for key, one in found.items()}

    def read_starts(self) -> int:
        """How many starts `store` has written into its volume."""
        found = [path for path in inside(self.world, self.world.root).glob("volumes/*/data/starts")]
        return len(found[0].read_text().splitlines()) if found else 0

    # --- applying ---

    def say(self, line: str) -> None:
        """Put a line into the round's story."""
        self.said.append(line)

    def popen(self, *arguments: str, points: str = "", timeout: str = "30s") -> "subprocess.Popen[bytes]":
        """Start an apply of both stacks, or of those named."""
        files = arguments or _STACKS
        command = ["apply", *files, "--yes", "--allow-delete", "--lock-timeout", timeout]
        # What a point raises is nobody's to expect there: it is told in words, but for whoever looks for our mistakes.
        return self.world.popen(*command, env={"RECONCILE_FAILPOINTS": points, "RECONCILE_DEBUG": ""} if points else {})

    def finish(self, process: "subprocess.Popen[bytes]", may: tuple[int, ...] = _ENDS, seconds: float = 100) -> Result:
        """Wait for a command, and look at what it said."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.world.signal(process)
            out, err = process.communicate(timeout=10)
            raise Lost(f"a command hangs for {seconds} s\n{out.decode()}{err.decode()}") from None
        result = Result("reconcile …", process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        self.world.transcript.append(result)
        if "Traceback (most recent call last)" in result.out + result.err:
            raise Lost(f"a traceback\n{result}")
        if process.returncode >= 0 and process.returncode not in (*may, 137):
            raise Lost(f"exit {process.returncode}\n{result}")
        return result

    def apply(self, *, check: int | None = None) -> Result:
        """Apply both stacks as they are wanted now."""
        return self.finish(self.popen(), may=_ENDS if check is None else (check,))

    def moment(self, most: float = 1.1) -> float:
        """Some time into an apply: moments of all sizes, for much happens in its first tenth."""
        return self.seconds * most * self.chance.random() ** 1.5

    # --- the judgement ---

    def judge(self) -> None:
        """At most two applies, and everything is as it is written. Raises Lost, Leaked."""
        for number in (1, 2):
            applied = self.apply()
            left = self.what_is_left() if applied.code == 0 else str(applied)
            if not left:
                break
            self.say(f"apply {number} after it: exit {applied.code}, {' '.join(left.split())[:100]}")
        else:
            raise Lost(f"two applies do not mend it\n{left}")
        self.judge_containers()
        self.judge_volumes()
        self.judge_records()
        self.note_state()

    def what_is_left(self) -> str:
        """What a plan or drift still names."""
        looks = self.world.run("plan", *_STACKS), self.world.run("drift")
        return "\n".join(str(look) for look in looks if look.code)

    def judge_containers(self) -> None:
        """Who was not touched runs on as the same process; what is published answers."""
        now = self.read_pids()
        same = set.intersection(*(set(definitions(one).items()) for one in self.versions))
        kept = {f"storm/{name}/1" for name, _ in same} | {"calm/still/1"}
        for key in sorted(kept & set(self.pids)):
            if "*" not in self.touched and key not in self.touched and now.get(key) != self.pids[key]:
                raise Lost(f"{key} was not touched: its pid was {self.pids[key]}, now it is {now.get(key)}")
        idle = [key for key, pid in now.items() if not pid]
        if idle:
            raise Lost(f"they do not run: {', '.join(idle)}")
        port = self.version["containers"]["web"]["ports"][0].rpartition(":")[0]
        page = self.world.fetch(f"http://{port}/")
        edition = "second edition" if self.version["images"]["web"]["from"].endswith("2") else "It works<"
        if edition not in page:
            raise Lost(f"http://{port}/ does not show {edition!r} but {page!r}")

    def judge_volumes(self) -> None:
        """What was written is there, and what is appended was not cut."""
        root = inside(self.world, self.world.root)
        found = [path.read_text() for path in root.glob("volumes/*/data/canary")]
        if found != [CANARY.strip("\n")] * 2 and found != [CANARY] * 2:
            raise Lost(f"the volumes hold {found}")
        if self.read_starts() < self.starts:
            raise Lost(f"of {self.starts} starts that were written, {self.read_starts()} are left")

    def judge_records(self) -> None:
        """Nothing is granted twice, nothing is under way, nothing is there that is not recorded."""
        book = read_book(self.world.root / "reconcile.db", self.world)
        if book.intents:
            raise Lost(f"intents are left open: {book.intents}")
        if twice := held_twice(book):
            raise Leaked("\n".join(twice))

        def more() -> list[str]:
            return not_recorded(self.world, read_book(self.world.root / "reconcile.db", self.world))

        with contextlib.suppress(AssertionError):  # an exit command may be about to end
            wait_until(lambda: not more(), "nothing is left over", seconds=5)
        if left := more():
            raise Leaked("\n".join(left))


# --- what is done to it -------------------------------------------------------------------------------------------------


def kill_apply(it: Ordeal) -> None:
    """The apply of another version is killed at some moment."""
    it.draw()
    running = it.popen()
    when = it.moment()
    it.say(f"kill -9 of apply after {when:.3f} s")
    _wait(running, when)
    it.world.signal(running)
    it.finish(running)


def fail_at_a_point(it: Ordeal) -> None:
    """At one named point the apply dies, fails or is slow."""
    points = known_points()
    if not points:
        return kill_apply(it)
    it.draw()
    point = it.chance.choice(points) + it.chance.choice(("", ":after"))
    before = it.chance.choice((0, 0, 1, 2, 5))
    action = it.chance.choice(("kill", "kill", "raise(ENOSPC)", "raise(EIO)", "sleep(300)"))
    term = f"{point}={before}*off->1*{action}" if before else f"{point}=1*{action}"
    it.say(f"failpoint {term}")
    it.finish(it.popen(points=term), may=tuple(range(128)))
    return None


def stop_a_client(it: Ordeal) -> None:
    """A client is stopped in the middle, another one applies meanwhile; both say how it is."""
    it.draw()
    running = it.popen()
    when = it.moment(0.9)
    it.say(f"SIGSTOP of apply after {when:.3f} s, another apply, SIGCONT")
    _wait(running, when)
    it.world.signal(running, signal.SIGSTOP)
    try:
        other = it.finish(it.popen(timeout="1s"), may=(0, 1, 5))
        if other.code == 5 and not re.search(r"locked by pid \d+ since [\d:]+ \(\w+", other.err):
            raise Lost(f"whoever waited is not told for whom\n{other}")
    finally:
        it.world.signal(running, signal.SIGCONT)
    it.finish(running, may=(0, 1))


def two_applies(it: Ordeal) -> None:
    """Two applies at once, of the same stacks or of one each: both end well."""
    it.draw()
    pairs = (_STACKS, _STACKS), (_STACKS[:1], _STACKS[1:]), (_STACKS[:1], _STACKS[:1])
    one, two = it.chance.choice(pairs)
    it.say(f"apply {one} beside apply {two}")
    first, second = it.popen(*one), it.popen(*two)
    results = [it.finish(first), it.finish(second)]
    if any(result.code for result in results):
        raise Lost("of two applies one failed\n" + "\n".join(map(str, results)))


def verbs_beside(it: Ordeal) -> None:
    """stop, start, restart beside an apply."""
    it.draw()
    verb = it.chance.choice(("stop", "restart", "pause"))
    name = it.chance.choice(("store", "web", "worker"))
    it.touched |= {f"storm/{name}/{number}" for number in range(1, 4)}
    running = it.popen()
    _wait(running, it.moment())
    it.say(f"{verb} {name} beside an apply, then what undoes it")
    it.finish(it.world.popen(verb, f"storm/{name}"), may=(0, 1))
    it.finish(running, may=(0, 1))
    if verb != "restart":
        undo = {"stop": "start", "pause": "unpause"}[verb]
        it.finish(it.world.popen(undo, f"storm/{name}"), may=(0, 1))
        it.finish(it.world.popen("start", f"storm/{name}"), may=(0, 1))


def kill_runtimes(it: Ordeal) -> None:
    """Every runc and conmon that is about to start something is killed, now and then, during an apply."""
    it.draw()
    it.touched.add("*")
    running = it.popen()
    it.say("kill -9 of runc processes during an apply")
    until = time.monotonic() + it.seconds
    while running.poll() is None and time.monotonic() < until:
        found = [pid for pid, command in it.world.processes().items() if "runc" in command.split(" ")[0]]
        if found and it.chance.random() < 0.5:
            it.world.kill(*found)
        _wait(running, 0.05)
    it.finish(running, may=(0, 1, 4))


def kill_processes(it: Ordeal) -> None:
    """What lives is killed: monitors, the name server, containers."""
    kinds = {"conmon": "/usr/bin/conmon", "names": "aardvark-dns", "containers": "/bin/pause", "web": "httpd"}
    kind = it.chance.choice(sorted(kinds))
    found = [pid for pid, command in it.world.processes().items() if kinds[kind] in command]
    doomed = it.chance.sample(found, it.chance.randint(1, len(found))) if found else []
    it.say(f"kill -9 of {len(doomed)} {kind}")
    if kind != "names":
        it.touched.add("*")
    it.world.kill(*doomed)


def break_the_net(it: Ordeal) -> None:
    """Links deleted, rules flushed, a bridge down."""
    links = sorted(it.world.links())
    what = it.chance.choice(("link", "rules", "down", "address"))
    link = it.chance.choice(links) if links else ""
    it.say(f"net: {what} {link if what != 'rules' else ''}")
    it.touched.add("*" if what == "link" else "")
    commands = {
        "link": ("ip", "link", "delete", link),
        "rules": ("nft", "flush", "ruleset"),
        "down": ("ip", "link", "set", link, "down"),
        "address": ("ip", "address", "flush", "dev", link),
    }
    it.world.nsenter(*commands[what], check=False)


def unmount(it: Ordeal) -> None:
    """One of the product's mounts is taken away."""
    mounts = [line.split()[1] for line in it.world._read_mounts() - it.world._mounts_at_first]
    where = it.chance.choice(sorted(path for path in mounts if path.count("/") > 3) or sorted(mounts))
    it.say(f"umount -l {where}")
    it.touched.add("*")
    it.world.nsenter("umount", "-l", where, check=False)


def reboot(it: Ordeal) -> None:
    """The power goes, perhaps in an apply; `boot` or an apply brings everything back."""
    it.touched.add("*")
    if it.chance.random() < 0.5:
        it.draw()
        running = it.popen()
        _wait(running, it.moment())
        it.say("a reboot in an apply")
        it.world.signal(running)
        it.finish(running)
    else:
        it.say("a reboot")
    it.world.reboot()
    if it.chance.random() < 0.5:
        it.say("boot")
        it.finish(it.world.popen("boot"), may=(0, 1))


def fill_the_disk(it: Ordeal) -> None:
    """No room is left, or hardly any, while an apply brings another version."""
    if not it.small:
        return kill_apply(it)
    it.draw()
    left = it.chance.choice((0, 4, 64, 256, 1024))
    filler = it.world.root / "filler"
    it.say(f"the root's disk has {left} KiB left")
    it.world.nsenter("sh", "-c", f"cat /dev/zero >{filler}", check=False)
    if left:
        it.world.nsenter("truncate", "-s", f"-{left}K", str(filler))
    it.finish(it.popen(), may=(0, 1, 4))
    it.world.nsenter("rm", str(filler))
    return None


FAULTS: dict[str, tuple[int, Callable[[Ordeal], None]]] = {
    "killed apply": (5, kill_apply),
    "failpoint": (6, fail_at_a_point),
    "stopped client": (2, stop_a_client),
    "two applies": (2, two_applies),
    "verb beside apply": (2, verbs_beside),
    "killed runtime": (2, kill_runtimes),
    "killed process": (3, kill_processes),
    "broken net": (3, break_the_net),
    "unmounted": (1, unmount),
    "reboot": (2, reboot),
    "full disk": (2, fill_the_disk),
}
"""What is done, with its weight."""
PARTS = {"matrix": ("failpoint",), "two": ("stopped client", "two applies", "verb beside apply"), "random": tuple(FAULTS)}


def known_points() -> list[str]:
    """The names of all failpoints that stand in the code."""
    files = sorted((REPOSITORY / "reconciler").rglob("*.py"))
    return sorted({name for file in files for name in _POINT.findall(file.read_text()) if file.name != "failpoint.py"})


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Let it run for so long, or to its end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


# --- the run ------------------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """What came of a run."""

    rounds: int = 0
    faults: int = 0
    lost: int = 0
    leaked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        return f"rounds {self.rounds}, faults {self.faults}, lost {self.lost}, leaked {self.leaked}"


@dataclass
class Run:
    """Rounds until `until` says enough; of a world that fails its story is kept, and another one is opened."""

    folder: Path
    storage: Path
    seed: int
    names: tuple[str, ...]
    until: Callable[[Score], bool]
    out: Callable[[str], None] = print
    each_world: int = 40
    score: Score = field(default_factory=Score)

    def go(self) -> Score:
        """Run worlds until it is enough."""
        began, number = time.monotonic(), 0
        while not self.until(self.score):
            number += 1
            self._live(number)
            self.score.seconds = time.monotonic() - began
        return self.score

    def _live(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        folder = self.folder / f"world-{number}"
        world = open_world(folder, self.storage)
        it = Ordeal(world, chance, small=chance.random() < 0.4)
        done = 0
        try:
            it.begin()
            while done < self.each_world and not self.until(self.score):
                done += 1
                self._round(it, number, done)
            it.world.assert_nothing_left(seconds=10)
        except (AssertionError, OSError, LookupError, ValueError) as error:  # whatever an answer without sense makes of us
            leaked = isinstance(error, Leaked) or "nothing is left" in str(error)
            self.score.leaked += leaked
            self.score.lost += not leaked
            self._keep(it, number, done, error)
        finally:
            world.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _round(self, it: Ordeal, number: int, done: int) -> None:
        weights = [FAULTS[name][0] for name in self.names]
        [name] = it.chance.choices(self.names, weights)
        it.said, it.world.transcript[:] = [name], []
        began = time.monotonic()
        self.score.rounds += 1
        self.score.faults += 1
        self.score.kinds[name] += 1
        FAULTS[name][1](it)
        it.judge()
        took = time.monotonic() - began
        self.out(f"{number}.{done} {took:5.1f} s  {'; '.join(it.said)}")

    def _keep(self, it: Ordeal, number: int, done: int, error: Exception) -> None:
        where = self.folder / f"found-{number}.{done}"
        where.mkdir(parents=True)
        story = [f"seed {self.seed}, world {number}, round {done}: {'; '.join(it.said)}", str(error), ""]
        lines = traceback.format_exception(error)
        (where / "story.txt").write_text("\n\n".join([*story, *lines, *map(str, it.world.transcript)]))
        (where / "versions.json").write_text(json.dumps(it.versions, indent=1))
        with contextlib.suppress(OSError):
            shutil.copytree(
                inside(it.world, it.world.root), where / "root", ignore=shutil.ignore_patterns("layers", "content")
            )
        self.out(f"FOUND {story[0]}\n  {str(error)[:2000]}\n  its story, versions and root: {where}")


def main() -> int:
    """Run as the options say; 1 where anything was lost or leaked."""
    options = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    options.add_argument("--minutes", type=float, default=1.0, help="how long in all")
    options.add_argument("--seed", type=int, default=1, help="the same seed draws the same rounds")
    options.add_argument("--only", choices=sorted(PARTS), default="random", help="only these faults")
    options.add_argument("--folder", type=Path, help="where findings are kept (default: a new one)")
    wanted = options.parse_args()
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / "registry"
    from conftest import fill_storage

    if not storage.exists():
        fill_storage(storage, folder)
    end = time.monotonic() + wanted.minutes * 60
    run = Run(
        folder, storage, wanted.seed, PARTS[wanted.only], lambda _: time.monotonic() >= end, lambda t: print(t, flush=True)
    )
    score = run.go()
    print(", ".join(f"{name}: {times}" for name, times in sorted(score.kinds.items())))
    if not score.lost + score.leaked and not wanted.folder:
        shutil.rmtree(folder)
    print(score)
    return 1 if score.lost or score.leaked else 0


if __name__ == "__main__":
    sys.exit(main())
