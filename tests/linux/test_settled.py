"""Whether somebody writes a file just now."""

import os
import subprocess
import sys
from pathlib import Path

from reconciler.linux.settled import is_being_written

ASKS = """
import sys
from pathlib import Path
from reconciler.linux.settled import is_being_written
print("begun", flush=True)
for _ in range(20_000):
    is_being_written(Path(sys.argv[1]))
"""


def test_file_that_is_open_for_writing_is_being_written_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("whole")
    assert not is_being_written(path)
    with path.open("a"):
        assert is_being_written(path)
    assert not is_being_written(path)
    assert not is_being_written(tmp_path / "nothing")


def test_who_asks_lives_through_others_that_open_the_file_at_that_moment(tmp_path: Path) -> None:
    """Each breaks the lease that he holds for an instant."""
    path = tmp_path / "file"
    path.touch()
    asks = subprocess.Popen([sys.executable, "-c", ASKS, str(path)], stdout=subprocess.PIPE)
    assert asks.stdout is not None
    assert asks.stdout.readline() == b"begun\n"
    while asks.poll() is None:
        os.close(os.open(path, os.O_WRONLY))
    asks.stdout.close()
    assert asks.returncode == 0
