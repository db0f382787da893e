"""The matrix of failpoints on the real engine: which cells there are, and what comes of one.

A cell is a step of the scenario (the first apply, one whose images are there, an update, a delete, a boot, an exit), the
n-th hit of a point in it, and what happens there. `list_cells` runs the scenario once with a trace; `run_cell` runs it with
the fault, then without, and says in words what is wrong: two applies must converge, who was not named keeps its pid, data
and secrets are as they were, and after a delete nothing is left. `scripts/torture --only matrix` runs all of them,
`test_real_matrix.py` some.
"""

import hashlib
import random
import shutil
import signal
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.world import World, wait_until
from reconciler.linux import failpoint

ACTIONS = ("kill", "raise", "hang")
STEPS = ("first", "early", "second", "delete", "boot", "exit")
_TERMS = {"kill": "1*kill", "raise": "1*raise(EIO)", "hang": "1*hang"}
_MOST_HITS = 3
"""Of a point that is hit often: the first, one in the middle, the last."""
APPLY = ("apply", "stack.yaml", "--yes")
_IMAGE = {"from": "127.0.0.1:5000/web:1"}


@dataclass(frozen=True)
class Cell:
    """`second converge.settle:after 2 kill`."""

    step: str
    point: str
    nth: int
    action: str

    def __str__(self) -> str:
        return f"{self.step} {self.point} {self.nth} {self.action}"

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """The cell of its own words."""
        step, point, nth, action = text.split()
        return cls(step, point, int(nth), action)

    @property
    def spec(self) -> str:
        """What the environment says."""
        return f"{self.point}={self.nth - 1}*off->{_TERMS[self.action]}"


def manifest(version: int) -> dict[str, Any]:
    """The stack in its two versions: `kept` is named by no change, the others are updated, replaced, deleted, created."""
    first = version == 1
    common = {"image": "web", "networks": ["front"]}
    containers: dict[str, Any] = {
        "kept": {**common, "mounts": ["data:/data"], "ports": ["8080:8080"], "secrets": ["token"]},
        "updated": {**common, "resources": {"memory": "64m" if first else "96m"}},
        "replaced": {**common, "env": {"EDITION": str(version)}, "ports": ["8081:8080"]},
        "deleted" if first else "created": {**common, "command": ["sleep", "1000"], "init": True, "restart": "always"},
    }
    return {
        "apiVersion": "reconcile/v1",
        "name": "cells",
        "images": {"web": _IMAGE},
        "networks": {"front": {}, **({} if first else {"back": {}})},
        "volumes": {"data": {}},
        "secrets": {"token": {"file": "./token"}},
        "containers": containers,
    }


class Scenario:
    """The steps in one world, each cell with a root of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = 0
        (world.folder / "token").write_text("hush\n")

    def begin(self) -> None:
        """A root that nobody has used."""
        while True:
            self.number += 1
            self.world.root = self.world.folder / f"root{self.number}"
            self.trace = self.world.folder / f"run{self.number}" / "trace"
            if not self.trace.parent.exists():
                break
        self.trace.parent.mkdir()
        self.world.write(manifest(1))

    def put_data(self) -> None:
        """What must be there afterwards."""
        self.world.run("exec", "kept", "sh", "-c", "echo precious >/data/row", check=0)

    def lead_up(self, step: str) -> None:
        """What comes before the step that is to fail."""
        if step == "first":
            return
        if step == "early":  # The images are there: containers are made beside their networks.
            whole = manifest(1)
            self.world.write({name: whole[name] for name in ("apiVersion", "name", "images")})
            self.world.run(*APPLY, check=0)
            self.world.write(whole)
            return
        exits = {failpoint.ON_EXIT: self.exits} if step == "exit" else {}
        self.world.run(*APPLY, env=exits, check=0)
        self.put_data()
        if step in ("second", "delete"):
            self.world.write(manifest(2))
        if step == "delete":
            self.world.run(*APPLY, check=0)
        if step == "boot":
            self.world.reboot()

    exits = ""
    """What exit commands are armed with."""

    def command(self, step: str) -> tuple[str, ...]:
        """The command of a step; of `exit` there is none."""
        return {
            "first": APPLY,
            "early": APPLY,
            "second": APPLY,
            "delete": ("delete", "cells", "--volumes", "--yes"),
            "boot": ("boot",),
        }[step]

    def hits(self) -> list[str]:
        """The points that were reached, in order."""
        with suppress(FileNotFoundError):
            return [line.split(" ", 1)[1] for line in self.trace.read_text().splitlines() if " " in line]
        return []


def list_cells(world: World, steps: Sequence[str] = STEPS) -> list[Cell]:
    """All cells, by a run of each step without a fault. The world is as before afterwards."""
    scenario = Scenario(world)
    cells = []
    for step in steps:
        scenario.begin()
        scenario.exits = f"trace={scenario.trace}"
        scenario.lead_up(step)
        if step == "exit":
            _end_container(scenario)
            wait_until(lambda: world.record("cells/deleted")["status"]["phase"] == "running", "it runs again")
        else:
            world.run(*scenario.command(step), env={failpoint.VARIABLE: f"trace={scenario.trace}"}, check=0)
        for point, count in sorted(Counter(scenario.hits()).items()):
            for nth in sorted({1, (count + 1) // 2, count}):
                cells += [Cell(step, point, nth, action) for action in ACTIONS]
        end(scenario)
    return cells


def list_points(cells: Sequence[Cell]) -> dict[str, list[str]]:
    """The points that each step reaches."""
    return {step: sorted({cell.point for cell in cells if cell.step == step}) for step in STEPS}


def choose_cells(cells: Sequence[Cell], count: int, seed: int) -> list[Cell]:
    """Some of them, other ones for another seed."""
    return random.Random(seed).sample(list(cells), min(count, len(cells)))


def order_cells(cells: Sequence[Cell], seed: int, share: tuple[int, int]) -> list[Cell]:
    """One of several shares, in an order that the seed draws.

    A cell's share and place follow from its words alone: two lists are never quite alike, for threads reach some points as
    often as they come to it.
    """

    def draw(cell: Cell) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed} {cell}".encode()).digest()[:8])

    which, shares = share
    return sorted((cell for cell in cells if zlib.crc32(str(cell).encode()) % shares == which - 1), key=draw)


def run_cell(world: World, cell: Cell) -> list[str]:
    """What is wrong after this cell; nothing where all is well. Raises AssertionError where the lab itself fails."""
    scenario = Scenario(world)
    scenario.begin()
    scenario.exits = f"{cell.spec};trace={scenario.trace}"
    scenario.lead_up(cell.step)
    kept = 0 if cell.step in ("first", "early", "boot") else world.pid("cells/kept")
    wrong = []
    if cell.step == "exit":
        _end_container(scenario)
        wait_until(lambda: _reached(scenario, cell), f"{cell} is reached", lambda: "\n".join(scenario.hits()), 20)
        if cell.action == "hang":
            _kill_hanging(scenario)
    else:
        wrong += _fail(scenario, cell)
    version = 1 if cell.step in ("first", "early", "exit", "boot") else 2
    if cell.step == "delete":
        wrong += finish_delete(scenario)
    else:
        wrong += converge(scenario)
        wrong += look(scenario, version, kept=kept, data=cell.step not in ("first", "early"))
    return wrong + end(scenario)


def tells_of_leak(line: str) -> bool:
    """Whether a line of `run_cell` is about what is there and should not be."""
    return line.startswith("left in the root") or "nothing is left" in line.partition("\n")[0]


def _reached(scenario: Scenario, cell: Cell) -> bool:
    return scenario.hits().count(cell.point) >= cell.nth


def _fail(scenario: Scenario, cell: Cell) -> list[str]:
    """Run the step with its fault."""
    world = scenario.world
    environment = {failpoint.VARIABLE: f"{cell.spec};trace={scenario.trace}", "RECONCILE_DEBUG": ""}
    command = scenario.command(cell.step)
    if cell.action != "hang":
        result = world.run(*command, env=environment)
        killed = result.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        if _reached(scenario, cell) and cell.action == "kill" and not killed:
            return [f"it was not killed\n{result}"]
        if "[Errno" in result.err + result.out:
            return [f"the failure is told as Python tells it\n{result}"]
        # A commit that fails raises SQLite's error, not the kernel's: how that is told is tested in nth.py.
        # A step of ours (no slash) has told its own errors where the point stands.
        untold = "mistake in reconcile" in result.err or "the machine refused" in result.err
        if untold and "/" in cell.point and "/commit" not in cell.point:
            return [f"the failure is not told as one\n{result}"]
        return []
    process = world.popen(*command, env=environment)
    try:
        _wait_still(scenario, process, cell)
    finally:
        if process.poll() is None:
            world.signal(process)
        process.communicate(timeout=20)
    return []


def _wait_still(scenario: Scenario, process: Any, cell: Cell) -> None:
    """Until it hangs and nothing else goes on, or it has ended."""
    deadline = time.monotonic() + 60
    seen, since = -1, time.monotonic()
    while process.poll() is None and time.monotonic() < deadline:
        hits = scenario.hits()
        if len(hits) != seen:
            seen, since = len(hits), time.monotonic()
        if _reached(scenario, cell) and time.monotonic() - since > 0.5:
            return
        time.sleep(0.02)  # a poll with a deadline
    assert process.poll() is not None, f"{cell}: it neither hangs nor ends"


def _kill_hanging(scenario: Scenario) -> None:
    for pid, command in scenario.world.processes().items():
        if "onexit" in command and "conmon" not in command.split()[0]:
            scenario.world.kill(pid)


def _end_container(scenario: Scenario) -> None:
    pid = scenario.world.pid("cells/deleted")
    scenario.world.kill(pid)


def converge(scenario: Scenario) -> list[str]:
    """At most two applies, after which a plan has nothing to do."""
    said = []
    for _ in range(2):
        said.append(scenario.world.run(*APPLY))
        if said[-1].code == 0 and not scenario.world.plan("stack.yaml")["actions"]:
            return []
    left = scenario.world.run("plan", "stack.yaml")
    return ["two applies did not converge\n" + "\n".join(map(str, [*said, left]))]


def look(scenario: Scenario, version: int, *, kept: int, data: bool) -> Iterator[str]:
    """What of a version of the stack is not as it should be; `kept`: the pid that the container of this name had."""
    world = scenario.world
    wanted = {f"container/cells/{name}/1" for name in manifest(version)["containers"]}
    records = world.records("containers")
    if set(records) != wanted:
        yield f"containers are {sorted(records)}"
    for key, record in records.items():
        if record["status"]["phase"] != "running":
            yield f"{key} is {record['status']}"
    if kept and records.get("container/cells/kept/1", {}).get("status", {}).get("pid") != kept:
        yield "the container that no change named was started anew"
    seen = world.run("exec", "kept", "sh", "-c", "cat /run/secrets/token; cat /data/row 2>/dev/null")
    if seen.out != ("hush\nprecious\n" if data else "hush\n"):
        yield f"the secret or the data is not as it was\n{seen}"
    for port in (8080, 8081):
        try:
            wait_until(lambda port=port: world.fetch(f"http://127.0.0.1:{port}/"), f"port {port} answers", seconds=5)
        except AssertionError as error:
            yield str(error)
    yield from _count(world, len(wanted))


def _count(world: World, containers: int) -> Iterator[str]:
    """As many of each as there are containers, once those that are on their way out have gone."""
    run = next(iter(Path(f"/proc/{world.holder}/root/run/reconcile").glob("*")))

    def look() -> dict[str, int]:
        processes = [command.split()[0].rpartition("/")[2] for command in world.processes().values()]
        bundles = [path.name for path in (run / "bundles").iterdir()]
        return {
            "conmon": processes.count("conmon"),
            "bundle": len(bundles),
            "namespace": len(list((run / "netns").iterdir())),
            "folder": len(list((world.root / "containers").iterdir())),
            "port of a bridge": sum(link.startswith("v") for link in world.links()) or containers,
        }

    try:
        wait_until(lambda: set(look().values()) == {containers}, "")
    except AssertionError:
        yield f"of {containers} containers there are {look()}, links {sorted(world.links())}"


def finish_delete(scenario: Scenario) -> list[str]:
    """At most two deletes, after which nothing is on record."""
    said = []
    for _ in range(2):
        said.append(scenario.world.run("delete", "cells", "--volumes", "--yes"))
        if not scenario.world.records():
            return []
    return ["two deletes left records\n" + "\n".join(map(str, said))]


def end(scenario: Scenario) -> list[str]:
    """Delete what is there; what is left then."""
    world = scenario.world
    wrong = []
    if world.records():
        gone = world.run("delete", "cells", "--volumes", "--yes")
        wrong += [] if gone.code == 0 else [f"delete failed\n{gone}"]
    world.run("images", "prune", "--all")
    try:
        wait_until(lambda: not world.leftovers(), "nothing is left", lambda: "\n".join(world.leftovers()))
    except AssertionError as error:
        wrong.append(str(error))
    wrong += [f"left in the root: {path.relative_to(world.root)}" for path in _left_in(world.root)]
    shutil.rmtree(world.root)
    return wrong


def _left_in(root: Path) -> list[Path]:
    """Staged files, and what belongs to containers, volumes, layers or images."""
    staged = list(root.rglob("new-*"))
    owned = [path for name in ("containers", "volumes", "networks", "layers") for path in (root / name).glob("*")]
    return sorted({*staged, *(path for path in owned if not path.name.endswith((".lock", "lock")))})
