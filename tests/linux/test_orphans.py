"""Orphans that are adopted: the one that was wanted, and daemons that others started meanwhile."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lab.world import wait_until
from reconciler.linux import orphans, process
from reconciler.linux.orphans import AdoptingOrphans

pytestmark = pytest.mark.root


def start_daemon(seconds: str) -> int:
    """What goes into the background and has nobody; its pid."""
    line = f"setsid sleep {seconds} >/dev/null 2>&1 & echo $!"
    return int(subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def test_wanted_one_is_ours_to_reap_and_a_stranger_is_reaped_when_it_has_ended() -> None:
    with AdoptingOrphans() as adopting:
        mine, stranger = start_daemon("600"), start_daemon("601")
        wait_until(lambda: os.getsid(stranger) == stranger and os.getsid(mine) == mine, "both are daemons")
        assert parent_of(mine) == parent_of(stranger) == os.getpid()
        with AdoptingOrphans():  # Of another thread, which ends before we know which is ours.
            pass
        adopting.keep(mine)
        with AdoptingOrphans():
            pass
    assert stranger in orphans._strangers
    assert mine not in orphans._strangers
    os.kill(mine, signal.SIGKILL)
    wait_until(lambda: process.read_start_time(mine) == 0, "it has ended")
    with AdoptingOrphans():
        pass
    assert adopting.reap(mine) == -signal.SIGKILL
    os.kill(stranger, signal.SIGKILL)
    wait_until(lambda: process.read_start_time(stranger) == 0, "it has ended")
    with AdoptingOrphans(), AdoptingOrphans():
        pass
    assert not Path(f"/proc/{stranger}").exists()
    later = start_daemon("602")
    assert parent_of(later) != os.getpid()
    os.kill(later, signal.SIGKILL)


def test_tree_is_killed_whatever_it_ignores() -> None:
    line = "trap '' HUP TERM; sleep 603 & sh -c 'sleep 604; true' & wait"
    started = subprocess.Popen(["sh", "-c", line])
    wait_until(lambda: len(process._read_descendants(started.pid)) == 3, "all of it runs")
    below = process._read_descendants(started.pid)
    process.kill_tree(started.pid)
    assert started.wait() == -signal.SIGKILL
    wait_until(lambda: all(process.read_start_time(pid) == 0 for pid in below), "what it started has ended")
