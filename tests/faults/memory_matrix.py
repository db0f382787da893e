"""The matrix of failpoints on the memory engine: a child that is forked works on a machine of values and is killed there.

The machine is written down at each point that the child reaches and every few milliseconds, so that what the parent finds
is what the kernel would still hold. The store is on a disk (a tmpfs) and gets no chance to clean up either.
"""

import itertools
import os
import pickle
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converge.converge_bench import Bench
from plan.builders import container, stack, volume_at
from reconciler.converge.view import compose_view
from reconciler.engine.memory.machine import Machine
from reconciler.linux import failpoint
from reconciler.model.key import Key, container_key
from reconciler.model.observation import Phase
from reconciler.model.record import Stack
from reconciler.model.spec import NetworkSpec, Resources
from reconciler.store.store import open_store

TERMS = {"kill": "1*kill", "raise": "1*raise(EIO)", "hang": "1*hang"}
_STILL = 0.06
"""Seconds without a hit after which a child that hangs somewhere does nothing else."""


def versions() -> tuple[Stack, Stack]:
    """A stack of which one container is kept, one updated, one replaced, one deleted, one created."""
    data = volume_at("/data", "data")
    kept = container(networks=("front",), mounts=data, ports={"0.0.0.0:8000/tcp": 80})
    common = {"kept": kept}
    first = stack(
        networks={"front": NetworkSpec(), "gone": NetworkSpec()},
        **common,
        updated=container(networks=("front",), resources=Resources(memory=64 << 20)),
        replaced=container(networks=("front",), command=("a",), ports={"0.0.0.0:8001/tcp": 80}),
        deleted=container(networks=("gone",)),
    )
    second = stack(
        networks={"front": NetworkSpec(), "back": NetworkSpec()},
        **common,
        updated=container(networks=("front",), resources=Resources(memory=96 << 20)),
        replaced=container(networks=("front",), command=("b",), ports={"0.0.0.0:8001/tcp": 80}),
        created=container(networks=("back",), mounts=volume_at("/logs", "logs")),
    )
    return first, second


@dataclass(frozen=True)
class Ground:
    """What a step begins with: a root to copy, and a machine written down."""

    root: Path
    machine: bytes
    token: int


def freeze(machine: Machine) -> bytes:
    """A machine without its locks."""
    state = {name: value for name, value in vars(machine).items() if name not in ("lock", "changed")}
    while True:
        with suppress(RuntimeError):  # A dictionary that changes meanwhile: again.
            return pickle.dumps(state)


def thaw(data: bytes) -> Machine:
    """A machine that was written down."""
    machine = Machine()
    vars(machine).update(pickle.loads(data))
    return machine


def open_bench(root: Path, machine: Machine, token: int = 1) -> Bench:
    """Another process that works on what is there: its random numbers are others."""
    return Bench(store=open_store(root, create=True), machine=machine, numbers=itertools.count(token))


STEPS: dict[str, Callable[[Bench], object]] = {
    "first": lambda bench: bench.apply(versions()[0]),
    "second": lambda bench: bench.apply(versions()[1]),
    "delete": lambda bench: bench.delete("blog", *bench_volumes(bench)),
}


def bench_volumes(bench: Bench) -> list[Key]:
    return [key for key in bench.records() if key.startswith("volume/")]


def prepare(folder: Path) -> dict[str, Ground]:
    """What each step begins with."""
    grounds = {}
    bench = open_bench(folder / "root", Machine())
    bench.publish("app", "sha256:" + "a" * 64)
    for number, step in enumerate(STEPS):
        bench.store.close()
        copy = folder / f"before-{step}"
        shutil.copytree(folder / "root", copy)
        grounds[step] = Ground(copy, freeze(bench.machine), 1000 * (number + 1))
        bench = open_bench(folder / "root", bench.machine, 1000 * (number + 1))
        STEPS[step](bench)
        for volume in bench.machine.volumes.values():
            volume.data["row"] = volume.made.key.encode()
    bench.store.close()
    return grounds


def run_child(
    folder: Path, ground: Ground, step: str, armed: str, hangs_at: tuple[str, int] = ("", 0)
) -> tuple[Machine, list[str], bool]:
    """Run a step in a child with failpoints armed: the machine that is left, the hits, and whether it was killed."""
    root, frozen, trace = folder / "root", folder / "machine", folder / "trace"
    shutil.copytree(ground.root, root)
    frozen.write_bytes(ground.machine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Newer Pythons warn of threads; the child makes its own.
        child = os.fork()
    if child == 0:
        _work(root, frozen, ground, step, f"{armed};trace={trace}")
    code = _await(child, trace, *hangs_at)
    return thaw(frozen.read_bytes()), _hits(trace), code == -signal.SIGKILL


def _hits(trace: Path) -> list[str]:
    return [line.partition(" ")[2] for line in trace.read_text().splitlines()] if trace.exists() else []


def _work(root: Path, frozen: Path, ground: Ground, step: str, armed: str) -> None:
    """The child: never returns."""
    try:
        machine, writing, reach, here = thaw(ground.machine), threading.Lock(), failpoint.reach, threading.local()

        def note() -> None:
            with writing:
                staged = frozen.with_suffix(".new")
                staged.write_bytes(freeze(machine))
                staged.rename(frozen)

        def noting(name: str) -> None:
            if getattr(here, "notes", False):  # Our own files are no points.
                return
            here.notes = True
            try:
                note()
            finally:
                here.notes = False
            reach(name)

        failpoint.reach = noting
        bench = open_bench(root, machine, ground.token + 500)
        failpoint.arm(armed)
        with suppress(Exception):
            STEPS[step](bench)
        failpoint.arm("")
        note()
    finally:
        os._exit(0)


def _await(child: int, trace: Path, point: str, nth: int) -> int:
    """Its exit code; one that hangs at the nth hit of a point is killed once it is there and nothing else goes on in it."""
    deadline = time.monotonic() + 30
    size, since = -1, time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        now = trace.stat().st_size if trace.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        still = nth and time.monotonic() - since > _STILL and _hits(trace).count(point) >= nth
        if still or time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.001)  # a poll with a deadline
    assert time.monotonic() < deadline, "the child neither ended nor hung"
    return os.waitstatus_to_exitcode(ended[1])


def look(root: Path, machine: Machine, ground: Ground, step: str) -> Iterator[str]:
    """Go on without faults, and say what is wrong."""
    before = thaw(ground.machine)
    bench = open_bench(root, machine, ground.token + 700)
    try:
        if step == "delete":
            yield from _delete(bench)
            return
        wanted = versions()[1 if step == "second" else 0]
        results = [bench.apply(wanted), bench.apply(wanted)]
        if results[1].failed or bench.lines(wanted)[-1] != "nothing to do":
            yield f"two applies did not converge: {results}, {bench.lines(wanted)}"
        bench.engine.sweep(compose_view(bench.records(), []))
        yield from _compare(bench, wanted, before)
        yield from _delete(bench)
    finally:
        bench.store.close()


def _compare(bench: Bench, wanted: Stack, before: Machine) -> Iterator[str]:
    things = bench.machine.containers.values()
    running = sorted(thing.made.key for thing in things if thing.phase is Phase.RUNNING)
    if running != sorted(key for key in wanted.specs if key.startswith("container/")) or len(running) != len(things):
        yield f"running: {running} of {len(things)}"
    kept = {thing.made.key: thing.pid for thing in before.containers.values()}.get(container_key("blog", "kept"))
    if kept and bench.pids()[container_key("blog", "kept")] != kept:
        yield "the container that no change named was started anew"
    for volume_id, volume in before.volumes.items():
        now = bench.machine.volumes.get(volume_id)
        if now is None or now.data != volume.data:
            yield f"the data of {volume.made.key} is not what it was"
    networks = sorted(thing.made.key for thing in bench.machine.networks.values())
    if networks != sorted(key for key in wanted.specs if key.startswith("network/")) + [
        key for key in networks if key not in wanted.specs
    ]:
        yield f"networks: {networks}"
    if bench.fold().intents:
        yield "an intent is still open"


def _delete(bench: Bench) -> Iterator[str]:
    for _ in range(2):
        folded = bench.fold()
        if folded.intents:
            from reconciler.converge.resume import resume

            resume(folded, bench.ground, bench.events.append)
        bench.delete("blog", *bench_volumes(bench))
    bench.engine.sweep(compose_view(bench.records(), []))
    machine = bench.machine
    left: dict[str, Any] = {
        "containers": machine.containers,
        "networks": machine.networks,
        "ports": machine.open_ports,
        "records": [key for key in bench.records() if not key.startswith("image/")],
    }
    yield from (f"left after two deletes: {kind} {what}" for kind, what in left.items() if what)


def list_cells(folder: Path, grounds: dict[str, Ground], most: int) -> Iterator[tuple[str, str, int, str]]:
    """Step, point, hit and action of every cell; of a point that is hit often the first, one in the middle and the last."""
    for step, ground in grounds.items():
        place = folder / f"trace-{step}"
        place.mkdir()
        _, hits, _ = run_child(place, ground, step, "")
        for point, count in sorted(Counter(hits).items()):
            for nth in sorted({1, (count + 1) // 2, count})[:most]:
                for action in ("kill", "raise", "hang"):
                    yield step, point, nth, action


def run_cell(folder: Path, ground: Ground, step: str, point: str, nth: int, action: str) -> tuple[list[str], bool]:
    """What is wrong after it, and whether the point was reached so often this time."""
    folder.mkdir()
    armed, hangs_at = f"{point}={nth - 1}*off->{TERMS[action]}", (point, nth if action == "hang" else 0)
    machine, hits, killed = run_child(folder, ground, step, armed, hangs_at)
    reached = hits.count(point) >= nth
    wrong = list(look(folder / "root", machine, ground, step))
    if reached and action in ("kill", "hang") and not killed:
        wrong.append("it was not killed")
    shutil.rmtree(folder)
    return wrong, reached
