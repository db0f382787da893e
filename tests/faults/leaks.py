"""Rounds that leave everything as it was, for as long as asked, and what of it grows: a table, and a name for each leak.

Beside the rounds lives a stack `kept` that nobody touches: its monitor, its container and aardvark-dns are what may grow
in memory and descriptors. The root has a past of as many events as it keeps, those of a round, so that nothing has a reason
to grow.

    stacks      apply of a small stack (image, network, volume, port), a page fetched, delete; now and then images go too
    crowds      the same with a hundred containers
    restarts    one container that ends again and again, and is started by its exit commands
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from census import inside
from growth import TOLD, Counts, Growth, Series, count_everything

from lab.world import World, open_world, wait_until
from reconciler.engine.native.runtime import bundle, policy
from reconciler.store.events import Retention

_IMAGE, _BOX = "127.0.0.1:5000/web:1", "127.0.0.1:5000/busybox:1"
_PAUSED = {"image": _BOX, "command": ["pause"], "init": True, "restart": "always"}

KEPT_STACK = {
    "apiVersion": "reconcile/v1",
    "name": "kept",
    "networks": {"front": {}},
    "volumes": {"data": {}},
    "containers": {"still": {**_PAUSED, "networks": ["front"], "mounts": ["data:/data"]}},
}
SMALL_STACK = {
    "apiVersion": "reconcile/v1",
    "name": "small",
    "images": {"web": {"from": _IMAGE}},
    "networks": {"front": {}},
    "volumes": {"data": {}},
    "containers": {
        "web": {"image": "web", "networks": ["front"], "mounts": ["data:/data"], "ports": ["127.0.0.1:8080:8080"]}
    },
}
FLAPPING_STACK = {
    "apiVersion": "reconcile/v1",
    "name": "flapping",
    "networks": {"front": {}},
    "containers": {"flap": {**_PAUSED, "networks": ["front"], "stop_grace": "1s"}},
}


def crowd(containers: int) -> dict[str, Any]:
    """So many containers on one network."""
    many = {**_PAUSED, "networks": ["front"], "replicas": containers}
    return {"apiVersion": "reconcile/v1", "name": "crowd", "networks": {"front": {}}, "containers": {"one": many}}


@dataclass
class Watch:
    """One world, and what was counted in it between the rounds."""

    world: World
    out: Callable[[str], None] = print
    series: dict[str, Series] = field(default_factory=dict)

    def begin(self) -> None:
        """The stack that stays, and the root's past."""
        for name, manifest in (("kept", KEPT_STACK), ("small", SMALL_STACK), ("flapping", FLAPPING_STACK)):
            self.world.write(manifest, f"{name}.yaml")
        self.world.run("apply", "kept.yaml", "--yes", check=0)
        self._round()
        with contextlib.closing(sqlite3.connect(self.world.root / "reconcile.db")) as sql, sql:
            past = sql.execute("SELECT at, 'small', key, data FROM events WHERE stack = 'small' ORDER BY id").fetchall()
            for event in itertools.islice(itertools.cycle(past), Retention().keep):
                sql.execute("INSERT INTO events (at, stack, key, data) VALUES (?, ?, ?, ?)", event)
        self.kept = self.world.pid("kept/still")

    def count(self, part: str, number: int) -> None:
        """Note what there is now; what is on its way out has a moment for it."""
        series = self.series.setdefault(part, Series())
        before = series.counts[-1] if series.counts else {}
        counts: Counts = {}

        def settled() -> bool:
            nonlocal counts
            counts = count_everything(self.world)
            return not before or not [name for name in _settling(counts) if counts[name] > before.get(name, 0)]

        with contextlib.suppress(AssertionError):  # it stays: the slope will tell
            wait_until(settled, "nothing is on its way out", seconds=1)
        series.add(number, counts)

    def stacks(self, rounds: int, each: int) -> None:
        """Rounds of one small stack, counted after every so many."""
        began = time.monotonic()
        for number in range(1, rounds + 1):
            self._round()
            if number % each == 0:
                self.world.run("images", "prune", "--all", check=0)
                self.count("stacks", number)
                self.tell("stacks", number, began)

    def _round(self) -> None:
        self.world.run("apply", "small.yaml", "--yes", check=0)
        wait_until(lambda: self.world.fetch("http://127.0.0.1:8080/"), "the page is served")
        self.world.run("delete", "small", "--volumes", "--yes", check=0)

    def crowds(self, rounds: int, containers: int) -> None:
        """Rounds of many containers."""
        self.world.write(crowd(containers), "crowd.yaml")
        began = time.monotonic()
        for number in range(1, rounds + 1):
            self.world.run("apply", "crowd.yaml", "--yes", "--no-wait", check=0)
            running = [one for one in self.world.records("container").values() if one["status"]["phase"] == "running"]
            assert len(running) == containers + 1, f"{len(running)} of {containers + 1} run"
            self.world.run("delete", "crowd", "--volumes", "--yes", check=0)
            self.count("crowds", number)
            self.tell("crowds", number, began)

    def restarts(self, times: int, each: int) -> None:
        """One container is killed, and restarted by its exit command; the store takes its exits in when it is counted."""
        self.world.run("apply", "flapping.yaml", "--yes", check=0)
        began = time.monotonic()
        place = self._bundle_of("flapping/flap")
        pid = self.world.pid("flapping/flap")
        for number in range(1, times + 1):
            self.world.kill(pid)
            pid = next_run(place, pid)
            if number % each == 0:
                status = self.world.record("flapping/flap")["status"]
                assert (status["restarts"], status["pid"]) == (number, pid), str(status)
                self.count("restarts", number)
                self.tell("restarts", number, began)
        self.world.run("delete", "flapping", "--yes", check=0)

    def _bundle_of(self, name: str) -> str:
        [root_id] = self.world.root_ids()
        file = self.world.root / "reconcile.db"
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as sql:
            asked = "SELECT incarnation FROM records WHERE key = ?"
            [[incarnation]] = sql.execute(asked, (f"container/{name}/1",)).fetchall()
        return str(inside(self.world, Path(f"/run/reconcile/{root_id}/bundles/{incarnation}")))

    def tell(self, part: str, number: int, began: float) -> None:
        """A line of figures."""
        took = (time.monotonic() - began) / number
        grown = [one for one in self.series[part].growths() if one.is_leak] if len(self.series[part].rounds) > 4 else []
        self.out(f"{part} {number}, {took:.2f} s each{''.join(f'; {one}' for one in grown)}")

    def leaks(self) -> list[str]:
        """What grew, by name; and what should have stayed and did not."""
        lines = [f"{part}: {one}" for part, series in self.series.items() for one in series.growths() if one.is_leak]
        if self.world.pid("kept/still") != self.kept:
            lines.append("kept/still was started anew, though nobody touched it")
        return lines

    def table(self, part: str) -> str:
        """What moved at all, for people; then what never did."""
        series = self.series[part]
        growths = series.growths()
        lines = [f"{part}: {len(series.rounds)} counts over {series.rounds[-1]} rounds"]
        lines += [f"  {one}" for one in growths if not _never_moved(one)]
        lines += ["  never moved: " + ", ".join(f"{one.name} ({one.first:g})" for one in growths if _never_moved(one))]
        return "\n".join(lines)


def _never_moved(one: Growth) -> bool:
    return not one.slope and one.first == one.last


def _settling(counts: Counts) -> list[str]:
    """Memory never settles, and rows do not change by themselves."""
    return [name for name in counts if not name.startswith(("KiB", "rows", TOLD))]


def next_run(place: str, pid: int) -> int:
    """Wait until the exit command has started the container in this bundle anew: the new run's pid.

    The pause before the next start is taken off, as ten steady seconds would.
    """
    found = 0

    def runs() -> bool:
        nonlocal found
        lock = bundle.wait_for_lock(place)
        try:
            found = int(bundle.read_json(place, bundle.STATE).get("pid", 0))
            rules = policy.read_policy(place)
            if found == pid or rules is None:
                return False
            rules.attempts = 0
            policy.write_policy(place, rules)
            return True
        finally:
            os.close(lock)

    wait_until(runs, "the container is started again", lambda: bundle.read_json(place, bundle.STATE))
    return found


LONG = {"stacks": (500, 10), "crowds": (10, 100), "restarts": (1000, 50)}
"""How many rounds of each part, and how often there is a count (of crowds: how many containers)."""
SHORT = {"stacks": (3, 1), "crowds": (2, 2), "restarts": (4, 2)}


def run_parts(watch: Watch, parts: Mapping[str, tuple[int, int]]) -> None:
    """Some rounds of each part, one after the other."""
    watch.begin()
    for part, (rounds, other) in parts.items():
        getattr(watch, part)(rounds, other)
        watch.out(watch.table(part))


def run_leaks(folder: Path, storage: Path, out: Callable[[str], None]) -> list[str]:
    """The long rounds, in a world of their own: what grew, or was left."""
    world = open_world(folder / "leaks", storage)
    watch = Watch(world, out)
    try:
        run_parts(watch, LONG)
        leaks = watch.leaks()
        world.assert_nothing_left(seconds=10)
    except AssertionError as error:
        return [str(error)]
    finally:
        world.close()
        shutil.rmtree(folder / "leaks", ignore_errors=True)
    return leaks
