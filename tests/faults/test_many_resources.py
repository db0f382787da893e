"""X12: of many resources one always fails. It delays, undoes and touches none of the rest; time and memory are bounded."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converge.converge_bench import Bench
from lab.world import World
from plan.builders import container, stack, volume_at
from reconciler.engine.memory.machine import Machine
from reconciler.model.events import ActionDone
from reconciler.model.key import container_key
from reconciler.model.record import Stack
from reconciler.model.spec import Healthcheck
from reconciler.store.store import open_store

MANY = 10_000
FAILS = container_key("blog", "c77")
SECONDS = 40
"""Of this process's time, for an apply of all: it takes 7; what grows with the square of the number takes minutes."""
MEBIBYTES = 400
"""More memory than before, at the most: it takes 100."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = open_store(tmp_path / "root", create=True)
    made = Bench(store=store, machine=Machine())
    made.publish("app", "sha256:" + "a" * 64)
    yield made
    store.close()


def many() -> Stack:
    """One image, 50 networks, 49 volumes, and containers for the rest."""
    return stack(
        **{
            f"c{number}": container(networks=(f"n{number % 50}",), mounts=volume_at("/data", f"v{number % 49}"))
            for number in range(MANY - 100)
        }
    )


def peak_mebibytes() -> float:
    """Most memory that this process held since `clear_refs` was written."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


@pytest.mark.timeout(300)
def test_x12_of_ten_thousand_resources_one_always_fails_and_the_others_are_as_without_it(bench: Bench) -> None:
    wanted = many()
    assert len(wanted.specs) == MANY
    bench.machine.fail_next("start", FAILS, times=2)
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    before, began = peak_mebibytes(), time.process_time()
    result = bench.apply(wanted)
    took, grew = time.process_time() - began, peak_mebibytes() - before
    assert (len(result.done), result.failed, result.skipped) == (MANY - 1, (FAILS,), ())
    # What runs runs on, and nothing but what failed is planned or called again.
    pids, calls = bench.pids(), len(bench.machine.calls)
    assert len(pids) == MANY - 101
    again = bench.apply(wanted)
    assert (again.done, again.failed) == ((), (FAILS,))
    assert {call.split()[1] for call in bench.machine.calls[calls:]} - {"machine"} == {FAILS}
    assert bench.pids() == pids
    assert took < SECONDS
    assert grew < MEBIBYTES


def test_what_became_healthy_at_the_same_time_opens_one_wave(bench: Bench) -> None:
    """Thirty containers wait for another one each: that is one transaction and one load of the rules, not thirty."""
    settled, settle = [], bench.engine.settle
    bench.engine.settle = lambda view, **names: (settled.append(view), settle(view, **names))[1]  # type: ignore[method-assign]
    check = Healthcheck(test=("CMD", "true"))
    firsts = {f"first{number}": container(networks=("front",), healthcheck=check) for number in range(30)}
    seconds = {
        f"second{number}": container(networks=("front",), depends_on={f"first{number}": "healthy"}) for number in range(30)
    }
    result = bench.apply(stack(**firsts, **seconds))
    assert result.failed == ()
    assert len([event for event in bench.events if isinstance(event, ActionDone)]) == 62
    assert len(settled) < 10


@pytest.mark.root
def test_x12_of_a_hundred_real_resources_one_always_fails_and_the_others_run_on(world: World) -> None:
    box = {"image": "127.0.0.1:5000/busybox:1", "networks": ["front"], "init": True}
    containers: dict[str, Any] = {f"c{number}": {**box, "command": ["pause"]} for number in range(96)}
    containers["c77"] = {**box, "command": ["/no/such/program"], "init": False}
    manifest = {
        "apiVersion": "reconcile/v1",
        "name": "many",
        "networks": {"front": {}, "back": {}},
        "volumes": {"data": {}},
    }
    world.write({**manifest, "containers": containers})
    applied = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "container/many/c77/1" in applied.err + applied.out
    assert "/no/such/program" in applied.err + applied.out
    records = world.records()
    assert len(records) == 99
    pids = {key: one["status"]["pid"] for key, one in records.items() if one["status"]["phase"] == "running"}
    assert len(pids) == 95
    again = world.plan("stack.yaml")["actions"]
    assert [action["key"] for action in again] == ["container/many/c77/1"]
    world.run("apply", "stack.yaml", "--yes", check=1)
    containers["c77"]["command"] = ["sleep", "1000"]
    world.write({**manifest, "containers": containers})
    world.run("apply", "stack.yaml", "--yes", check=0)
    now = {key: one["status"]["pid"] for key, one in world.records("container").items()}
    assert len(now) == 96
    assert {key: pid for key, pid in now.items() if "c77" not in key} == pids
