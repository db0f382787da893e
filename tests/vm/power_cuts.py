"""Cuts the power of a virtual machine in the middle of something, boots it again, and lets it compare: scripts/vm-tests.

The machine's memory goes with qemu, which is killed. Its disk is `disk.py`'s: what was not flushed may be lost. The same
seed draws the same versions, moments and fates; how far the machine is at a moment is not drawn.
"""

import contextlib
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from disk import Disk

from lab.world import REPOSITORY

RUN = REPOSITORY / "tests/vm/run"
GUEST = "tests/vm/cut_guest.py"
MARK = "\x01vm "
FATES = ("mixed", "mixed", "lost", "kept")
"""Of what the disk had not flushed. `kept` is a machine that hangs; the disk has power and goes on."""
GIGABYTE = 1 << 30
ENOUGH = 3
"""Findings after which a run ends."""
PATIENCE = 900.0
"""Seconds that a machine may take for anything."""


@dataclass
class Score:
    """What came of a run."""

    rounds: int = 0
    lost: int = 0
    leaked: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.rounds + other.rounds, self.lost + other.lost, self.leaked + other.leaked)

    def __str__(self) -> str:
        return f"rounds {self.rounds}, lost {self.lost}, leaked {self.leaked}"


@dataclass
class Machine:
    """A virtual machine that runs the guest's part, from its boot to its cut."""

    folder: Path
    orders: dict[str, Any]
    pid: int = 0
    synced: int = 0
    """The last number that the guest said was on the disk."""

    def __enter__(self) -> "Machine":
        path, pidfile = self.folder / "orders.json", self.folder / "pid"
        path.write_text(json.dumps(self.orders))
        self.disk = Disk(self.folder / "disk.img", self.folder / "disk.sock")
        python = [str(REPOSITORY / ".venv/bin/python"), "-X", "faulthandler", GUEST, str(path)]
        rooms = ":".join(str(REPOSITORY / name) for name in ("", "tests", "tests/faults", "tests/cli", "tests/vm"))
        command = [str(RUN), "--disk", str(self.folder / "disk.sock"), "--pid", str(pidfile)]
        self.process = subprocess.Popen(
            [*command, "env", f"PYTHONPATH={rooms}", *python],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY,
        )  # fmt: skip
        self.console = (self.folder / "console.log").open("wb", buffering=0)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.console.write(line)
            _, mark, rest = line.decode(errors="replace").rpartition(MARK)
            with contextlib.suppress(ValueError):  # a line that the power cut
                event = json.loads(rest) if mark else {}
                self.synced = max(self.synced, event.get("number", 0))
                if event and event["event"] != "synced":
                    self.events.put(event)
        self.events.put({"event": "ended"})

    def wait(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """The next event; `late` where none came in time."""
        try:
            return self.events.get(timeout=max(seconds, 0))
        except queue.Empty:
            return {"event": "late"}

    def cut(self, chance: random.Random, fate: str) -> str:
        """The power goes. Says what the disk lost."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        self.process.wait(20)
        return self.disk.cut(chance, fate)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError):  # it has not come so far as to have one
                os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
            self.process.terminate()
            self.process.wait(20)
        self.reader.join(20)
        self.console.close()
        with contextlib.suppress(OSError):
            self.disk.cut(random.Random(0), "kept")


@dataclass
class Cuts:
    """Rounds of one kind: each a boot, a judgement of the cut before, and a cut."""

    kind: str
    folder: Path
    storage: Path
    seed: int
    rounds: int
    out: Callable[[str], None] = print
    score: Score = field(default_factory=Score)
    seconds: float = 30.0
    """How long what is cut took at most so far."""
    flushes: int = 40
    """How many times it flushed the disk then."""
    first_flushes: int = 0
    """Where it is cut in one of so many, the first ones."""
    state: dict[str, Any] = field(default_factory=dict)
    synced: int = 0
    finished: bool = False

    def go(self) -> Score:
        """All rounds, and a last boot that judges the last cut and deletes everything. What is found costs a new disk."""
        boot, healthy = 0, False
        while (self.score.rounds < self.rounds or healthy) and self.score.lost + self.score.leaked < ENOUGH:
            if not healthy:
                self._make_disk()
            boot += 1
            with self._boot(boot) as machine:
                healthy = self._live(machine, boot)
        return self.score

    def _make_disk(self) -> None:
        self.state, self.synced, self.finished = {}, 0, False
        image = self.folder / "disk.img"
        image.unlink(missing_ok=True)
        with image.open("wb") as file:
            file.truncate(GIGABYTE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True)

    def _boot(self, number: int) -> Machine:
        last = self.score.rounds >= self.rounds
        facts = {"state": self.state, "synced": self.synced, "finished": self.finished, "storage": str(self.storage)}
        return Machine(self.folder, {"kind": self.kind, "boot": number, "seed": self.seed, "last": last, **facts})

    def _live(self, machine: Machine, number: int) -> bool:
        """One boot to its cut; False where nothing can follow on this disk."""
        began = time.monotonic()
        steps = []
        while (event := machine.wait())["event"] == "step":
            steps.append(f"{event['what']} {event['uptime']:.0f} s")
        self.out(f"  {', '.join(steps)} (in all {time.monotonic() - began:.0f} s)")
        if event["event"] == "clean":
            self.out("  after the last delete nothing is left")
            machine.process.wait(60)
            return False
        if event["event"] != "begin":
            self._found(machine, number, event)
            return False
        self.state = event
        return self._cut(machine, number)

    def _cut(self, machine: Machine, number: int) -> bool:
        chance = random.Random(f"{self.seed}/{self.kind}/{number}/cut")
        fate, moment = chance.choice(FATES), chance.random()
        began, flushed = time.monotonic(), machine.disk.flushes
        enough: Callable[[], bool] = machine.disk.struck.is_set
        if self.first_flushes or moment < 0.4:
            machine.disk.strike_at(chance.randrange(self.first_flushes or self.flushes))
        elif moment < 0.8:
            deadline = began + self.seconds * 1.1 * chance.random()
            enough = partial(_is_past, deadline)
        event = self._until(machine, enough, PATIENCE)
        if event.get("event") not in (None, "done"):
            self._found(machine, number, event)
            return False
        took, flushes = time.monotonic() - began, machine.disk.flushes - flushed
        self.finished = event.get("event") == "done"
        self.seconds = event["seconds"] if self.finished else max(self.seconds, took)
        self.flushes = flushes if self.finished else max(self.flushes, flushes)
        lost = machine.cut(chance, fate)
        self.synced = machine.synced
        self.score.rounds += 1
        how = "after it had said done" if self.finished else f"after {took:.1f} s, at flush {flushes}"
        self.out(f"{self.kind} {number}: cut {how}; {lost} ({fate})")
        return True

    def _until(self, machine: Machine, enough: Callable[[], bool], seconds: float) -> dict[str, Any]:
        """Wait for the moment, or for the end of what is cut, whatever comes first; the event that ended it, if one did."""
        deadline = time.monotonic() + seconds
        while not enough() and time.monotonic() < deadline:
            event = machine.wait(0.01)
            if event["event"] != "late":
                return event
        return {}

    def _found(self, machine: Machine, number: int, event: dict[str, Any]) -> None:
        where = self.folder / f"found-{self.kind}-{number}"
        where.mkdir(parents=True, exist_ok=True)
        self.score.leaked += event.get("kind") == "leaked"
        self.score.lost += event.get("kind") != "leaked"
        if machine.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.process.wait(30)
        story = [
            f"seed {self.seed}, {self.kind}, cut before boot {number}",
            event.get("error", f"the machine: {event['event']}"),
        ]
        (where / "story.txt").write_text("\n\n".join([*story, event.get("story", "")]))
        for name in ("disk.img", "console.log", "orders.json"):
            shutil.copy(self.folder / name, where / name)
        self.out(f"FOUND {story[0]}\n  {story[1][:2000]}\n  its story, disk and console: {where}")


def _is_past(deadline: float) -> bool:
    return time.monotonic() > deadline
