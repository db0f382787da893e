"""What many stacks cost a controller, in CPU of this process: no kernel, the memory engine. Prints a table.

`python tests/controller/scale_bench.py [--stacks 1000] [--first]`. With `--first` each stack is applied by itself first, as
a controller does over a folder that is new to it: that takes minutes. `--look 500`, as root: a look at so many unchanged
containers of the kernel.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conftest import fill_storage
from controller.conftest import Controlled
from lab.world import World, open_world
from reconciler.controller.policy import Policy
from reconciler.converge import workers
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Published
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish, load
from reconciler.verbs.root import Root, opened_root

LOOK = """\
import sys, time
from pathlib import Path
from reconciler.verbs.look import look
from reconciler.verbs.root import opened_root
with opened_root(Path(sys.argv[1])) as root:
    look(root)
    for _ in range(7):
        begun = time.process_time()
        look(root)
        print(time.process_time() - begun)
"""
MANY = """\
apiVersion: reconcile/v1
name: many
networks: {{default: {{subnet: 10.77.0.0/22}}}}
containers:
  it: {{image: "127.0.0.1:5000/busybox:1", command: [pause], stop_grace: 0s, replicas: {count}}}
"""


def show(what: str, act: Callable[[], object]) -> None:
    """A row."""
    cpu, wall = time.process_time(), time.perf_counter()
    act()
    print(f"{what}: {time.process_time() - cpu:.2f} s of CPU, {time.perf_counter() - wall:.2f} s", flush=True)


def measure_stacks(root: Root, folder: Path, count: int, *, first: bool) -> None:
    """All rows over so many stacks."""
    assert isinstance(root.engine, MemoryEngine)
    root.engine.machine.registry = {"docker.io/library/box:1": Published(digest="sha256:b0")}
    controlled = Controlled(root, folder, Policy())
    for number in range(count):
        controlled.write(f"s{number}")
    source = f"source {folder}"
    if first:
        show(f"{count} stacks, each by itself", lambda: controlled.run(1))
    else:
        stacks = load([folder], variables={}, environment={})
        named = [mine(stack, folder) for stack in stacks]
        show(f"{count} stacks in one apply", lambda: apply(root, Wish(stacks=named), ApplyOptions(yes=True), face=Face()))
    controlled.begin()
    show("started anew, until it knows that nothing is to be done", lambda: controlled.keeper.work(source))
    show("the folder read, nothing changed", lambda: controlled.keeper.work(source))
    controlled.write("s7", command="b")
    show("a changed file noticed", lambda: controlled.keeper.work(source))
    show("its stack applied", lambda: controlled.keeper.work("stack s7"))
    assert controlled.commands()["s7"] == "b"
    show("a look at everything", lambda: controlled.keeper.work("all"))


def mine(stack, folder: Path):  # type: ignore[no-untyped-def]
    """A stack as the folder's own."""
    from msgspec import structs

    return structs.replace(stack, origin=f"source:{folder}")


def measure_look(top: Path, count: int) -> None:
    """A look at so many containers that run."""
    fill_storage(top / "storage", top)
    world = open_world(top / "world", top / "storage")
    try:
        world.write(MANY.format(count=count))
        begun = time.perf_counter()
        world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
        print(f"{count} containers applied: {time.perf_counter() - begun:.1f} s", flush=True)
        print_looks(world, count)
        world.run("delete", "many", "--yes", check=0)
    finally:
        world.close()


def print_looks(world: World, count: int) -> None:
    """The row."""
    times = [float(line) for line in world.nsenter(sys.executable, "-c", LOOK, str(world.root)).out.split()]
    median = statistics.median(times)
    print(f"a look at {count} unchanged: median {median:.3f} s of CPU ({min(times):.3f} to {max(times):.3f})", flush=True)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--stacks", type=int, default=1000)
    words.add_argument("--first", action="store_true")
    words.add_argument("--look", type=int, default=0)
    asked = words.parse_args()
    top = Path(tempfile.mkdtemp(prefix="bench-scale-"))
    try:
        if asked.look:
            measure_look(top, asked.look)
            return 0
        folder = top / "stacks"
        folder.mkdir()
        seen_at_once = mock.patch("reconciler.converge.waits.SEEN_AFTER", 0.0)  # Nobody waits here for that second.
        with (
            opened_root(top / "root", create=True, engine="memory") as root,
            mock.patch.object(workers, "GATHER", 0),
            seen_at_once,
        ):
            measure_stacks(root, folder, asked.stacks, first=asked.first)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
