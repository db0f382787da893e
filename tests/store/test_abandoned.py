"""What a process that was killed while it made a root's key or database leaves beside them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from reconciler.store.store import open_store


def test_x1_what_a_dead_process_was_making_goes_when_a_root_is_opened_to_be_changed(tmp_path: Path) -> None:
    open_store(tmp_path, create=True).close()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    old, young = tmp_path / f"key.new-{process.pid}-aabbccdd", tmp_path / f"reconcile.db.new-{process.pid}-aabbccdd"
    living, other = tmp_path / f"key.new-{os.getpid()}-aabbccdd", tmp_path / "reconcile.db"
    for path in (old, young, living):
        path.write_bytes(b"")
    then = time.time() - 12
    for path in (old, living, other):
        os.utime(path, (then, then))
    open_store(tmp_path).close()
    assert old.exists()  # who only looks removes nothing
    open_store(tmp_path, create=True).close()
    assert [path.exists() for path in (old, young, living, other)] == [False, True, True, True]


def test_x11_what_was_being_made_before_the_boot_goes_though_its_pid_is_another_process_now(tmp_path: Path) -> None:
    open_store(tmp_path, create=True).close()
    before = tmp_path / f"reconcile.db.new-{os.getpid()}-aabbccdd"
    before.write_bytes(b"")
    then = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 1
    os.utime(before, (then, then))
    open_store(tmp_path, create=True).close()
    assert not before.exists()
