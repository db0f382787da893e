"""Start, stop, kill, end: the real runc and conmon on bundles without networks."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import bundle, lifecycle
from reconciler.linux import cgroups, process
from reconciler.model.errors import LockTimeout, ProgramFailed
from reconciler.model.observation import Phase, altered, missing
from reconciler.model.spec import Resources
from tests.runtime.bundles import Bundles, wait_for

pytestmark = pytest.mark.root


def test_started_container_runs_and_is_gone_after_the_end(bundles: Bundles) -> None:
    made = bundles.make()
    assert bundles.status(made).phase is Phase.CREATED
    started = bundles.run(made)
    assert started.phase is Phase.RUNNING
    assert bundles.status(made).pid == started.pid
    bundles.end(made)
    assert not bundles.monitors()
    assert not process.read_start_time(started.pid)


def test_start_of_a_running_container_leaves_it_alone(bundles: Bundles) -> None:
    made = bundles.make()
    assert bundles.run(made).pid == bundles.run(made).pid


def test_command_that_is_not_in_the_image_says_so_in_the_runtimes_words(bundles: Bundles) -> None:
    made = bundles.make("no-such-program", restart="no")
    with pytest.raises(ProgramFailed) as failed:
        bundles.run(made)
    assert "executable file not found" in failed.value.detail
    assert "command" in failed.value.hint
    now = bundles.status(made)
    assert now.phase is Phase.CREATED
    assert "executable file not found" in now.error


def test_exit_code_and_log_are_kept(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "echo out; echo err >&2; exit 7", restart="no")
    bundles.run(made)
    assert bundles.wait_exited(made).exit_code == 7
    lines = [line.split(" ", 3)[1:] for line in bundles.log(made).splitlines()]
    assert sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"]]


@pytest.mark.parametrize("others", [b"", b"[]", b"\xff", b'{"code": "0", "at": "now"}', b'{"code": 0}', None], ids=repr)
def test_x9_record_of_an_exit_that_somebody_wrote_over_is_not_believed(bundles: Bundles, others: bytes | None) -> None:
    """conmon's own file tells it then."""
    made = bundles.make("sh", "-c", "exit 7", restart="on-failure:1")
    bundles.run(made)
    wait_for(lambda: bundles.status(made).gave_up)
    for name in (bundle.EXIT, bundle.HEALTH):
        file = bundles.path(made) / name
        file.write_bytes(others) if others is not None else file.unlink(missing_ok=True)
    now = bundles.status(made)
    assert (now.phase, now.exit_code, now.restarts, now.gave_up) == (Phase.EXITED, 7, 1, True)
    assert bundles.run(made).phase is Phase.RUNNING
    wait_for(lambda: bundles.status(made).gave_up)
    assert bundles.status(made).exit_code == 7


def test_stop_asks_first_and_kills_after_the_grace(bundles: Bundles) -> None:
    polite = bundles.make("sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.02; done", stop_grace=10.0)
    deaf = bundles.make("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done", stop_grace=0.1)
    for made in (polite, deaf):
        bundles.run(made)
        wait_for(lambda made=made: "ready" in bundles.log(made))
    assert bundles.halt(polite, "hold").exit_code == 3
    assert bundles.halt(deaf, "hold").exit_code == 137


def test_paused_container_is_seen_and_stopped(bundles: Bundles) -> None:
    made = bundles.make()
    bundles.run(made)
    monitor = bundle.read_json(str(bundles.path(made)), bundle.MONITOR)
    os.spawnv(os.P_WAIT, monitor["runtime"], ["runc", "--root", monitor["runtime_root"], "pause", made.incarnation])
    assert bundles.status(made).phase is Phase.PAUSED
    assert bundles.halt(made, "hold").phase is Phase.EXITED


def test_processes_that_outlive_their_first_one_are_gone_with_it(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "sleep 1000 & sleep 1000 & echo ready; exec sleep 1000")
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made))
    cgroup = f"/reconcile-{bundles.layout.root_id}/{made.incarnation}"
    assert len(cgroups.list_processes(cgroup)) == 3
    bundles.end(made)
    assert not cgroups.exists(cgroup)


def test_pid_of_another_process_is_never_signalled(bundles: Bundles) -> None:
    """X11: the pid was reused; its start time is another."""
    made = bundles.make()
    bundles.run(made)
    bundles.halt(made, "hold")
    stranger = os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "1000"])
    try:
        path = str(bundles.path(made))
        bundle.write_json(path, bundle.STATE, {**bundles.state(made), "pid": stranger})
        bundles.halt(made, "gone", number=signal.SIGKILL)
        assert os.waitpid(stranger, os.WNOHANG) == (0, 0), "the stranger was killed"
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_lock_that_is_not_had_names_its_holder(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bundles.make()
    monkeypatch.setattr(lifecycle, "_LOCK_SECONDS", 0.05)
    path = str(bundles.path(made))
    with (
        lifecycle.locked(path, made.key, doing="start"),
        pytest.raises(LockTimeout, match=rf"pid {os.getpid()} .*start {made.key}"),
        lifecycle.locked(path, made.key, doing="stop"),
    ):
        pytest.fail("two held one lock")


def test_conmon_and_runtime_get_nothing_of_the_caller(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "planted")
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, False)
    made = bundles.make()
    bundles.run(made)
    for pid in (bundles.state(made)["monitor"], bundles.status(made).pid):
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
            assert b"planted" not in file.read()
        targets = set()
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it opens and closes while we look
                targets.add(str(fd.readlink()))
        assert f"pipe:[{os.fstat(write_end).st_ino}]" not in targets
    monitor = bundles.state(made)["monitor"]
    assert os.readlink(f"/proc/{monitor}/cwd") == str(bundles.path(made))  # noqa: PTH115
    assert {os.readlink(f"/proc/{monitor}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}  # noqa: PTH115
    assert cgroups.find_place(int(str(monitor)), "memory") == f"/reconcile-{bundles.layout.root_id}/monitors"
    os.close(read_end)
    os.close(write_end)


def test_end_finds_what_runs_when_the_bundle_was_lost(bundles: Bundles) -> None:
    made = bundles.make()
    pid = bundles.run(made).pid
    cgroup = f"/reconcile-{bundles.layout.root_id}"
    lifecycle.end_without_bundle(
        f"{cgroup}/{made.incarnation}", f"{cgroup}/monitors", made.incarnation, str(bundles.layout.runc)
    )
    wait_for(lambda: not bundles.monitors())
    assert not process.read_start_time(pid)
    assert not cgroups.exists(f"{cgroup}/{made.incarnation}")


def test_dead_monitor_is_a_missing_part_that_takes_a_restart(bundles: Bundles) -> None:
    from reconciler.engine.native.runtime import status

    made = bundles.make()
    bundles.run(made)
    path = str(bundles.path(made))
    assert {part.state for part in status.read_parts(path, made, bundles.status(made)).values()} == {"present"}
    monitor = int(str(bundles.state(made)["monitor"]))
    os.kill(monitor, signal.SIGKILL)
    wait_for(lambda: not process.read_start_time(monitor))
    now = bundles.status(made)
    assert now.phase is Phase.RUNNING
    assert status.read_parts(path, made, now)["monitor"] == missing("restart")
    bundles.kill(made)
    wait_for(lambda: bundles.status(made).phase is Phase.EXITED)
    now = bundles.status(made)
    assert (now.exit_code, now.restarting) == (None, False)
    assert status.read_parts(path, made, now)["process"] == missing("restart")


def test_limits_changed_by_hand_are_named(bundles: Bundles) -> None:
    from reconciler.engine.native.runtime import limits, status

    made = bundles.make(resources=Resources(memory=64 << 20, cpus=0.5, pids=50))
    pid = bundles.run(made).pid
    path = str(bundles.path(made))
    assert "limits/pids" not in status.read_parts(path, made, bundles.status(made))
    cgroup = f"/reconcile-{bundles.layout.root_id}/{made.incarnation}"
    with open(f"{cgroups.find_controller('pids')}{cgroup}/pids.max", "w") as file:  # noqa: PTH123
        file.write("77")
    assert status.read_parts(path, made, bundles.status(made))["limits/pids"] == altered("pids", "50", "77")
    limits.ensure_limits(path, made, pid=pid)
    assert cgroups.read_limits(cgroup) == {"memory": str(64 << 20), "pids": "50", "cpu": "50000/100000"}


def test_memory_limit_ends_in_an_oom_kill_that_is_told(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "x=x; while :; do x=$x$x; done", restart="no", resources=Resources(memory=16 << 20))
    bundles.run(made)
    now = bundles.wait_exited(made)
    wait_for(lambda: bundles.status(made).oom_killed)
    assert now.exit_code == 137
