"""Programs that are not trusted with time, disk or memory."""

import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.world import wait_until
from reconciler.linux import process
from reconciler.linux.bounded import Ended, end_all, run_bounded
from reconciler.linux.process import CLEAN_ENV


def run(script: str, **how: object) -> Ended:
    given: dict[str, object] = {"seconds": 10.0, "file_size": 1 << 20, "memory": 1 << 30, **how}
    return run_bounded(["/bin/sh", "-c", script], env=CLEAN_ENV, cwd="/", **given)  # type: ignore[arg-type]


def is_there(pid: int) -> bool:
    try:
        return (Path("/proc") / f"{pid}" / "stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def test_how_it_ended_and_what_it_printed() -> None:
    assert run("echo out; echo err >&2; exit 3") == Ended(3, b"out\n", b"err\n")
    assert run("kill -TERM $$").code == -signal.SIGTERM


def test_descriptors_that_are_given_are_its_own(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        assert run("echo there", fds={1: out.fileno()}) == Ended(0, b"", b"")
    assert (tmp_path / "out").read_text() == "there\n"


def test_h1_more_than_it_may_write_print_or_hold_is_cut(tmp_path: Path) -> None:
    assert run(f"head -c 3000000 /dev/zero >{tmp_path}/x").code != 0
    assert (tmp_path / "x").stat().st_size == 1 << 20
    with pytest.raises(OSError, match="printed more than") as caught:
        run("cat /dev/zero", out_size=100_000)
    assert caught.value.errno == errno.EFBIG
    assert len(run("head -c 300000 /dev/zero >&2").err) == 65_536
    assert run("dd if=/dev/zero of=/dev/null bs=500M count=1", memory=100 << 20).code != 0


def test_x6_what_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(TimeoutError):
        run(f"sleep 60 & echo $! >{pids}; sleep 60", seconds=0.3)
    wait_until(lambda: not is_there(int(pids.read_text())), "its child is gone")


def test_what_it_leaves_behind_when_it_ends_is_killed(tmp_path: Path) -> None:
    ended = run("sleep 60 >/dev/null 2>&1 & echo $!")
    assert ended.code == 0
    wait_until(lambda: not is_there(int(ended.out)), "nothing of it is left")


def test_all_of_them_can_be_ended_at_once() -> None:
    found: list[Ended] = []
    threads = [threading.Thread(target=lambda: found.append(run("sleep 60"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(b"sleep" in line for line in _read_children()) == 2, "both run")
    end_all()
    for thread in threads:
        thread.join(5)
    assert [ended.code for ended in found] == [-signal.SIGKILL] * 2


def _read_children() -> Iterator[bytes]:
    """The command lines of our children."""
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            yield Path(f"/proc/{pid}/cmdline").read_bytes()


def test_program_is_waited_for_where_more_than_1024_descriptors_are_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    process.raise_descriptors(2048)
    held = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(1100)]
    try:
        assert run("echo there").out == b"there\n"
        assert process.run(["/bin/echo", "there"], seconds=10) == (0, "there\n")
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
