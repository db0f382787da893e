"""Two stacks in a world, and the judgement on them: what must be there after a harm, and what must not.

`storm` is another version each round, beside it stands `calm`, which nobody changes. A harm (harms.py) is followed by at
most two applies, after which everything is as it is written: `Ordeal.judge`. Rounds of both are torture.py's.
"""

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from census import held_twice, inside, not_recorded, read_book

from lab.world import Result, World, wait_until
from reconciler.linux import failpoint

CANARY = "what must not be lost\n"
STACKS = ("storm.yaml", "calm.yaml")
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


def armed(points: str) -> dict[str, str]:
    """The environment of a command with failpoints."""
    # What a point raises is nobody's to expect there: it is told in words, but for whoever looks for our mistakes.
    return {failpoint.VARIABLE: points, "RECONCILE_DEBUG": ""} if points else {}


# --- one world under torture --------------------------------------------------------------------------------------------


@dataclass
class Ordeal:
    """A world with both stacks, and what was done to it."""

    world: World
    chance: random.Random
    small: bool
    """Whether its root is on a file system of its own that can be filled."""
    points: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The failpoints that are known, by the step of the matrix that reaches them."""
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

    def popen(self, *arguments: str, points: str = "", exits: str = "", timeout: str = "30s") -> "subprocess.Popen[bytes]":
        """Start an apply of both stacks, or of those named; with failpoints, also for exit commands of what it starts."""
        files = arguments or STACKS
        command = ["apply", *files, "--yes", "--allow-delete", "--lock-timeout", timeout]
        return self.world.popen(*command, env=armed(points) | ({failpoint.ON_EXIT: exits} if exits else {}))

    def finish(self, process: "subprocess.Popen[bytes]", may: Sequence[int] = _ENDS, seconds: float = 100) -> Result:
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
        looks = self.world.run("plan", *STACKS), self.world.run("drift")
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
