"""Two stacks that a controller keeps, and harms to it: killed at a failpoint or at some moment, at work on another version.

The judge is that of ordeal.py; what an apply is there, is here a controller that is started, and stopped once it says that
all is as its folder wants it.
"""

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

from ordeal import CALM, CANARY, STACKS, Lost, Ordeal, armed, storm

from lab.world import Result

PATIENCE = 60.0
"""Seconds that a controller has until all is as its folder wants it."""


class Served(Ordeal):
    """A world whose stacks stand in a folder that is served."""

    @property
    def folder(self) -> Path:
        return self.world.folder / "stacks"

    def begin(self) -> None:
        """Bring both up by a controller, and write what must not be lost."""
        self.folder.mkdir()
        self.put("calm.yaml", CALM)
        self.draw()
        began = time.monotonic()
        self.apply()
        self.seconds = time.monotonic() - began
        self.world.run("exec", "still", "sh", "-c", f"printf %s '{CANARY}' >/kept/canary", check=0)
        self.world.run("exec", "store", "sh", "-c", f"printf %s '{CANARY}' >/data/canary", check=0)
        self.note_state()

    def put(self, name: str, manifest: object) -> None:
        """A file, renamed into place."""
        staged = self.folder / f".{name}"
        staged.write_text(json.dumps(manifest))
        staged.rename(self.folder / name)

    def draw(self) -> None:
        """The next version of `storm` is wanted from now on."""
        self.version = storm(self.chance)
        self.versions.append(self.version)
        self.put("storm.yaml", self.version)

    def serve(self, points: str = "") -> "subprocess.Popen[bytes]":
        """Start a controller; with failpoints."""
        return self.world.popen("serve", "--watch", str(self.folder), "--max-delete", "1", env=armed(points))

    def apply(self, *, check: int | None = None) -> Result:
        """A controller looks, brings all to what is wanted, and is stopped."""
        process = self.serve()
        end = time.monotonic() + PATIENCE
        while not self.is_synced():
            if time.monotonic() > end or process.poll() is not None:
                self.world.signal(process)
                raise Lost(f"a controller does not get there\n{self.world.run('status')}\n{self.finish(process)}")
            time.sleep(0.1)
        self.world.signal(process, signal.SIGTERM)
        return self.finish(process, may=(0,))

    def is_synced(self) -> bool:
        """Whether the controller that lives says so of both."""
        serving = self.world.run("status", "-o", "json").json()["controller"]
        return serving is not None and [one["synced"] for one in serving["stacks"]] == [True] * len(STACKS)

    def what_is_left(self) -> str:
        """What a plan or drift still names."""
        files = [str(self.folder / name) for name in STACKS]
        looks = self.world.run("plan", *files, "--take-over"), self.world.run("drift")
        return "\n".join(str(look) for look in looks if look.code)


def kill_controller(it: Ordeal) -> None:
    """It is at work on another version when it dies."""
    assert isinstance(it, Served)
    points = it.points.get("second") or it.points.get("first") or ("converge.settle",)
    term = f"{it.chance.choice(list(points))}={it.chance.randrange(6)}*off->1*kill" if it.chance.random() < 0.7 else ""
    it.draw()
    running = it.serve(term)
    when = it.moment() + 0.3
    it.say(f"the controller dies at {term}" if term else f"kill -9 of the controller after {when:.3f} s")
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(PATIENCE / 10 if term else when)
    it.world.signal(running)
    it.finish(running)
