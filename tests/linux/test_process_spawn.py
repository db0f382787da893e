"""Processes named beyond doubt, started with nothing of ours, waited for with a deadline."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.world import wait_until
from reconciler.linux import process


def test_start_time_names_a_process_and_a_zombie_is_dead() -> None:
    pid = os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"])
    start = process.read_start_time(pid)
    assert process.is_alive(pid, start)
    assert not process.is_alive(pid, start + 1)
    assert process.send_signal(pid, start, signal.SIGKILL)
    assert process.wait_gone(pid, start, seconds=5)
    assert not process.is_alive(pid, start)
    os.waitpid(pid, 0)
    assert not process.send_signal(pid, start, signal.SIGKILL)
    assert process.open_pidfd(pid, start) == -1


def test_signal_with_another_start_time_goes_nowhere_x11() -> None:
    pid = os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"])
    try:
        assert not process.send_signal(pid, process.read_start_time(pid) + 1, signal.SIGKILL)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_wait_ends_at_its_deadline() -> None:
    began = time.monotonic()
    assert not process.wait_gone(os.getpid(), process.read_start_time(os.getpid()), seconds=0.05)
    assert 0.04 < time.monotonic() - began < 2


def test_child_gets_the_environment_the_folder_and_the_descriptors_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED", "1")
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    script = "pwd; env | sort; ls -l /proc/self/fd | grep -c ."
    pid = process.spawn(["/bin/sh", "-c", script], env={"A": "b"}, cwd="/usr", fds={1: write_end, 7: write_end})
    os.close(write_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with os.fdopen(read_end) as file:
        words = file.read().split()
    assert words[0] == "/usr"
    assert "A=b" in words
    assert not any("PLANTED" in word for word in words)


def test_child_does_not_inherit_pythons_ignored_signals() -> None:
    code, output = process.run(["/bin/grep", "SigIgn", "/proc/self/status"], seconds=5)
    pythons = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert (code, int(output.split()[1], 16) & pythons) == (0, 0)


def test_x6_run_gives_code_and_words_and_kills_what_hangs() -> None:
    assert process.run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], seconds=5) == (3, "out\nerr\n")
    assert process.run(["/bin/sh", "-c", "kill -9 $$"], seconds=5)[0] == -9
    assert process.run(["/nonexistent/program"], seconds=5)[0] == 127
    with pytest.raises(TimeoutError, match=r"/bin/sleep did not end within 0\.1 s"):
        process.run(["/bin/sleep", "1000"], seconds=0.1)


def test_x6_what_closes_its_output_and_hangs_is_killed_too() -> None:
    with pytest.raises(TimeoutError, match=r"did not end within"):
        process.run(["/bin/sh", "-c", "exec >&- 2>&-; exec sleep 1000"], seconds=0.2)


@pytest.mark.parametrize(("code", "words"), [(3, "it ended with 3"), (-9, "it was killed by SIGKILL"), (-63, "signal 63")])
def test_x6_ends_are_told_in_words(code: int, words: str) -> None:
    assert process.describe_end(code).endswith(words)


def test_endless_output_is_bounded() -> None:
    code, output = process.run(["/bin/sh", "-c", "head -c 10000000 /dev/zero"], seconds=20)
    assert (code, len(output)) == (0, 65_536)


def test_work_apart_is_waited_for_as_long_as_said_and_goes_on(tmp_path: Path) -> None:
    """From a process of one thread, as a command is."""
    script = f"""
import os, time
from reconciler.linux.process import work_apart
def slow():
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(0.4)
    open({str(tmp_path / "ended")!r}, "w").close()
    return b"late"
began = time.monotonic()
assert work_apart(lambda: b"x" * 200_000, patience=20, longest=20) == b"x" * 200_000
assert work_apart(lambda: 1 / 0, patience=20, longest=20) == b""
assert work_apart(slow, patience=0.05, longest=20) == b""
assert not os.path.exists({str(tmp_path / "ended")!r})
assert work_apart(lambda: time.sleep(60), patience=20, longest=1) == b""
assert time.monotonic() - began < 15
"""
    # Its pipes are at their ends once it has ended: what goes on holds none of them.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    wait_until((tmp_path / "ended").exists, "it goes on")
