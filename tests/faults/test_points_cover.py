"""Every system call of ours that changes something has a point before it: what strace saw, read against the hits."""

import re
import shutil
import signal
import sys
from pathlib import Path

import matrix
import pytest
import syscalls

from lab.world import World, wait_until
from reconciler.linux import failpoint

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="skipped because strace is not installed")


class Traced:
    """Commands under strace, which stays with what they leave behind until `end`."""

    def __init__(self, scenario: matrix.Scenario, name: str) -> None:
        self.world, self.trace = scenario.world, scenario.trace
        self.log = self.world.folder / f"strace-{name}"
        self.name = name

    def run(self, *command: str) -> None:
        options = ["-I", "2", "-f", "-q", "-y", "-s", "400", "-e", "signal=none", "-e", f"trace={syscalls.CALLS}"]
        armed = f"trace={self.trace}"
        self.process = self.world.spawn(
            ["strace", *options, "-o", str(self.log), "--", sys.executable, "-m", "reconciler.cli.main", *command],
            {failpoint.VARIABLE: armed, failpoint.ON_EXIT: armed},
        )
        wait_until(self._has_ended, f"{command} has ended", seconds=60)

    def _has_ended(self) -> bool:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        first = re.match(r"\d+", text)
        return first is not None and re.search(rf"^{first[0]} +\+\+\+ exited with 0", text, re.MULTILINE) is not None

    def end(self) -> syscalls.Reading:
        if self.process.poll() is None:
            self.world.signal(self.process, signal.SIGTERM)
        self.process.communicate(timeout=20)
        reading = syscalls.Reading(str(self.trace))
        reading.read(self.log)
        return reading


@pytest.mark.root
@needs_strace
def test_x1_every_change_of_state_has_a_point_before_it(world: World) -> None:
    """Create, restart by the exit command, update, replace, back up, delete, prune."""
    scenario = matrix.Scenario(world)
    scenario.begin()
    readings = []
    first = Traced(scenario, "first")
    first.run(*matrix.APPLY)
    before, hits = world.pid("cells/deleted"), len(scenario.hits())
    world.kill(before)
    wait_until(lambda: world.record("cells/deleted")["status"].get("pid") not in (None, 0, before), "it runs again")
    readings.append(first.end())
    assert len(scenario.hits()) > hits, "the exit command is not armed"
    world.write(matrix.manifest(2))
    saved = str(world.folder / "saved.tar")
    delete = ("delete", "cells", "--volumes", "--yes")
    steps = (matrix.APPLY, ("backup", saved), delete, ("images", "prune", "--all"))
    for number, command in enumerate(steps):
        traced = Traced(scenario, str(number))
        traced.run(*command)
        readings.append(traced.end())
    uncovered = [line for reading in readings for line in syscalls.describe(reading)]
    assert uncovered == [], "\n".join(uncovered)
    seen = {call for reading in readings for call in reading.changes}
    # The kinds of change that this scenario is known to make: were one not seen, the reading would be blind.
    assert {"move_mount", "umount2", "rename", "unlink", "mkdir", "rmdir", "link", "symlink", "sendto"} <= seen
    assert seen & {"clone", "clone3", "vfork"}
    assert seen & {"kill", "pidfd_send_signal"}


def test_x1_a_call_without_a_point_since_the_last_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        '10   execve("/usr/bin/python3", ["python3", "-m", "reconciler.cli.main"], 0x0) = 0\n'
        f'10   write(3<{tmp_path}/trace>, "10 a.b.c/rename\\n", 16) = 16\n'
        '10   rename("/a", "/b") = 0\n'
        "10   clone3({flags=CLONE_VM|CLONE_THREAD, stack=0x0}, 88) = 11\n"
        f'11   write(3<{tmp_path}/trace>, "10 a.b.d/unlink\\n", 16) = 16\n'
        '10   unlink("/b" <unfinished ...>\n'
        '11   unlink("/c") = 0\n'
        "10   <... unlink resumed>) = 0\n"
        "11   vfork() = 12\n"
        '12   unlink("/of/a/tool") = 0\n'
    )
    reading = syscalls.Reading(f"{tmp_path}/trace")
    reading.read(tmp_path / "log")
    assert [line.split("(")[0] for line in syscalls.describe(reading)] == ["unlink", "vfork"]
    assert '"/b"' in next(syscalls.describe(reading))
