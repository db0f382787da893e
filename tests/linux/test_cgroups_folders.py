"""Cgroups on the real kernel, in whichever version it has."""

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.linux import cgroups, process

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="because cgroups need root")]


@pytest.fixture
def group() -> Iterator[str]:
    path = f"/reconcile-test-{secrets.token_hex(4)}"
    yield path
    cgroups.kill(path, seconds=5)
    assert cgroups.remove(path)
    assert not cgroups.exists(path)


@pytest.fixture
def sleeper() -> Iterator[int]:
    pid = os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"])
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_made_cgroup_holds_a_process_in_every_hierarchy(group: str, sleeper: int) -> None:
    cgroups.create(f"{group}/inner")
    cgroups.create(f"{group}/inner")
    assert cgroups.list_children(group) == {"inner"}
    assert all(os.path.isdir(folder) for folder in cgroups.list_folders(f"{group}/inner"))  # noqa: PTH112
    cgroups.move(sleeper, f"{group}/inner")
    assert cgroups.list_processes(group) == {sleeper}
    places = [line.split(":", 2)[2] for line in Path(f"/proc/{sleeper}/cgroup").read_text().splitlines()]
    assert set(places) == {f"{group}/inner"}
    assert cgroups.find_place(sleeper, "memory") == f"{group}/inner"


def test_cgroup_with_a_process_is_not_removed_until_it_is_killed(group: str, sleeper: int) -> None:
    cgroups.create(group)
    cgroups.move(sleeper, group)
    assert not cgroups.remove(group, seconds=0.02)
    cgroups.remove_if_empty(group)
    start = process.read_start_time(sleeper)
    cgroups.kill(group, seconds=0.02)
    assert process.wait_gone(sleeper, start, seconds=5)


def test_what_is_gone_is_no_error() -> None:
    path = f"/reconcile-test-{secrets.token_hex(4)}"
    assert cgroups.kill(path, seconds=0)
    assert cgroups.remove(path)
    cgroups.remove_if_empty(path)
    cgroups.thaw(path)
    assert cgroups.list_children(path) == set()
    assert cgroups.read_limits(path) == {}
    assert not cgroups.is_frozen(path)
    assert cgroups.count_oom_kills(path) == 0
    assert cgroups.find_place(2**22 + 1, "memory") == ""


def test_pid_that_left_the_cgroup_is_not_killed(group: str, sleeper: int) -> None:
    cgroups.create(group)
    cgroups.create(f"{group}-other")
    cgroups.move(sleeper, f"{group}-other")
    cgroups._kill_member(sleeper, group)  # what a stale list of pids leads to
    assert os.waitpid(sleeper, os.WNOHANG) == (0, 0)
    cgroups.move(sleeper, group)
    assert cgroups.remove(f"{group}-other")


def test_child_is_moved_out_of_every_cgroup_that_confines_us(group: str) -> None:
    cgroups.create(group)
    child = subprocess.Popen(["sleep", "60"])
    try:
        before = places_of(os.getpid())
        cgroups.move_out(child.pid, group)
        after = places_of(child.pid)
        assert all(after[names] == group for names, place in before.items() if place != "/")
        assert group in after.values()
        assert places_of(os.getpid()) == before
    finally:
        child.kill()
        child.wait()


def places_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {names: place for _, names, place in (line.split(":", 2) for line in lines)}
