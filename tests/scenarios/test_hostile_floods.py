"""What one container can take from the machine and from others, with default limits: processes, log, memory, disk. B6.

How others' answers slow down meanwhile is measured by `tests/bench/neighbours.py`, not here.
"""

import os
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, wait_until
from scenarios.hostile import BUSYBOX, apply, interpreter

pytestmark = pytest.mark.root

QUIET: dict[str, Any] = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s"}
FORKS = """
import os, sys
born = 0
try:
    while True:
        if os.fork() == 0:
            os.closerange(0, 3)
            os.read(os.pipe()[0], 1)
        born += 1
except OSError as error:
    print("after", born, error.strerror, flush=True)
os.read(os.pipe()[0], 1)
"""
CAP_SYS_RESOURCE = 1 << 24


def logged(world: World, name: str) -> str:
    return world.run("logs", name).out


def phase(world: World, name: str) -> str:
    return str(world.record(f"one/{name}")["status"]["phase"])


def assert_neighbour_is_well(world: World, pid: int) -> None:
    """It has never been restarted, it answers, and others can be started beside it."""
    assert world.pid("one/quiet") == pid
    assert world.run("exec", "quiet", "echo", "well", check=0).out == "well\n"
    assert world.run("run", "--rm", BUSYBOX, "echo", "well", check=0).out == "well\n"


def test_b6_fork_bomb_without_a_limit_of_its_own_stops_at_the_default_one(world: World):
    binds, python = interpreter()
    bomb = {**QUIET, "command": [*python, "-c", FORKS], "mounts": binds, "restart": "no"}
    apply(world, {"quiet": QUIET, "bomb": bomb})
    pid = world.pid("one/quiet")
    wait_until(lambda: "after" in logged(world, "bomb"), "the bomb has met its limit", seconds=60)
    assert "after 4095 Resource temporarily unavailable" in logged(world, "bomb")
    assert_neighbour_is_well(world, pid)
    # The limit is no wall for who must end it.
    world.run("kill", "bomb", check=0)
    wait_until(lambda: phase(world, "bomb") == "exited", "it has ended", seconds=30)
    assert_neighbour_is_well(world, pid)


@pytest.mark.parametrize(
    "command",
    [
        "yes 0123456789012345678901234567890123456789 | head -c 50000000",
        "tr '\\0' a </dev/zero | head -c 50000000",
        "yes '' | head -c 1000000",
    ],
    ids=["lines", "no newline", "empty lines"],
)
def test_b6_log_never_takes_more_than_its_bound_whatever_is_written(world: World, command: str):
    logs = {"max_size": "2M", "keep": 2}
    words = ["sh", "-c", f"{command}; echo; echo over"]
    apply(world, {"flood": {**QUIET, "command": words, "restart": "no", "logs": logs}})
    largest = 0

    def measure() -> int:
        nonlocal largest
        (folder,) = world.root.glob("containers/*/logs")
        sizes = []
        for path in folder.iterdir():
            try:
                sizes.append(path.stat().st_blocks * 512)
            except FileNotFoundError:  # rotated just now
                continue
        largest = max(largest, sum(sizes))
        return largest

    wait_until(lambda: measure() and phase(world, "flood") == "exited", "it has written everything", seconds=90)
    assert measure() > 100_000, "all of it may have come between two looks"
    assert largest <= 3 * 2_100_000, "the log and the two that are kept"
    assert world.run("logs", "--tail", "1", "flood", check=0).out == "over\n"
    assert len(world.run("logs", "flood", check=0).out) <= 3 * 2_100_000


def test_b6_memory_beyond_its_limit_ends_who_took_it_and_nobody_else(world: World):
    eater = {**QUIET, "command": ["tail", "/dev/zero"], "restart": "no", "resources": {"memory": "32M"}}
    hoarder = {**eater, "command": ["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=60; echo code $?; exec pause"]}
    apply(world, {"quiet": QUIET})
    pid = world.pid("one/quiet")
    containers = {"quiet": QUIET, "eater": eater, "hoarder": hoarder}
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": containers})
    assert "out of memory" in world.run("apply", "stack.yaml", "--yes", check=1).out
    assert world.record("one/eater")["status"]["exit_code"] == 137
    # A tmpfs counts as who fills it.
    wait_until(lambda: "code" in logged(world, "hoarder") or phase(world, "hoarder") == "exited", "it tried", seconds=30)
    assert "code 0" not in logged(world, "hoarder")
    assert_neighbour_is_well(world, pid)


def test_b6_when_memory_is_short_the_kernel_takes_a_container_before_its_monitor(world: World):
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    if not int(held.split()[1], 16) & CAP_SYS_RESOURCE:
        pytest.skip("skipped because nobody may lower a score here (CAP_SYS_RESOURCE)")
    apply(world, {"quiet": QUIET})

    def score(pid: int) -> int:
        return int((world.proc / str(pid) / "oom_score_adj").read_text())

    monitor = next(pid for pid, command in world.processes().items() if "conmon" in command.split(" ")[0])
    assert score(monitor) < score(world.pid("one/quiet")) == 0


def test_b6_disk_that_a_container_filled_stops_neither_its_neighbour_nor_its_removal(world: World):
    """The root on a small file system, which a container fills through its writable layer."""
    small = world.folder / "small"
    small.mkdir()
    world.nsenter("mount", "-t", "tmpfs", "-o", "size=64M,mode=0700", "tmpfs", str(small))
    world.env["RECONCILE_ROOT"] = str(small)
    world.root = Path(f"/proc/{world.holder}/root{small}")
    apply(world, {"quiet": QUIET, "fill": QUIET})
    assert "No space left" in world.run("exec", "fill", "dd", "if=/dev/zero", "of=/x", "bs=1M", "count=100", check=1).err
    assert os.statvfs(world.root).f_bavail < 64
    pid = world.pid("one/quiet")
    assert world.run("exec", "quiet", "echo", "well", check=0).out == "well\n"
    world.run("exec", "fill", "rm", "/x", check=0)
    world.run("delete", "container/one/fill/1", "--yes", check=0)
    assert_neighbour_is_well(world, pid)
    world.run("delete", "one", "--volumes", "--yes", check=0)
    world.run("delete", "run", "--volumes", "--yes")
    world.run("images", "prune", "--all", check=0)
    world.nsenter("umount", str(small))
