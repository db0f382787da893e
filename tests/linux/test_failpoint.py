"""The points themselves: terms in order, both sides of a block, death by signal, nothing where nothing is armed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.linux import failpoint


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoint.arm("")


def hit(name: str) -> int:
    """The errno with which a block at this point ends; 0 where it ends well."""
    try:
        with failpoint.at(name):
            pass
    except OSError as error:
        return error.errno or -1
    return 0


def test_nothing_happens_where_nothing_is_armed() -> None:
    assert hit("a.b") == 0


def test_terms_follow_each_other_by_their_counts() -> None:
    failpoint.arm("a.b=2*off->1*raise(ENOSPC)->1*raise(EIO)")
    assert [hit("a.b") for _ in range(5)] == [0, 0, 28, 5, 0]


def test_a_term_without_a_count_stays() -> None:
    failpoint.arm("a.b=1*off->raise(EIO)")
    assert [hit("a.b") for _ in range(4)] == [0, 5, 5, 5]


def test_after_is_reached_only_where_the_block_ended_well() -> None:
    failpoint.arm("a.b:after=raise(EIO)")
    assert hit("a.b") == 5
    with pytest.raises(KeyError), failpoint.at("a.b"):
        raise KeyError


@pytest.mark.parametrize("text", ["a.b", "a.b=explode", "a.b=raise", "a.b=raise(ENOTHING)", "a.b=kill(3)", "a.b=x*kill"])
def test_what_is_no_term_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"failpoint|literal"):
        failpoint.arm(text)


def run(spec: str) -> subprocess.CompletedProcess[str]:
    program = "from reconciler.linux import failpoint as f\nwith f.at('a.b'): print('inside', flush=True)\nprint('behind')"
    environment = {**os.environ, failpoint.VARIABLE: spec}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("spec", "printed"), [("a.b=kill", ""), ("a.b:after=kill", "inside\n")])
def test_kill_ends_the_process_there(spec: str, printed: str) -> None:
    done = run(spec)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, printed)


def test_trace_names_every_hit(tmp_path: Path) -> None:
    run(f"trace={tmp_path / 'points'}")
    assert [line.split()[1] for line in (tmp_path / "points").read_text().splitlines()] == ["a.b", "a.b:after"]


def test_a_change_is_named_after_who_asked_for_it(tmp_path: Path) -> None:
    """Python's own events are points; a tool of linux/ is passed over for its caller, where there is one."""
    from reconciler.linux import files

    failpoint.arm("linux.files.write_atomic/rename=raise(EIO)")
    with pytest.raises(OSError, match="failpoint linux"):
        files.write_atomic(tmp_path / "a", b"")
    assert list(tmp_path.iterdir()) == []
    failpoint.arm("")
    files.write_atomic(tmp_path / "a", b"")


def test_reading_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    failpoint.arm(f"trace={tmp_path / 'points'}")
    (tmp_path / "a").read_text()
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "points").read_text().split()[1:] == ["python/write"]
