"""What a process that was killed while it made a root's key or database leaves beside them."""

import os
import subprocess
import sys
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
    for path in (old, living, other):
        os.utime(path, (1, 1))
    open_store(tmp_path).close()
    assert old.exists()  # who only looks removes nothing
    open_store(tmp_path, create=True).close()
    assert [path.exists() for path in (old, young, living, other)] == [False, True, True, True]
