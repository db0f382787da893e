"""Exec, probes, signals and logs in containers that run."""

import os
import pty
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import bundle, conmon, monitor, policy, rotation
from reconciler.engine.native.runtime.inside import NativeInside, log_path
from reconciler.linux import cgroups, process
from reconciler.model.errors import Failed
from reconciler.model.observation import Health, Status
from reconciler.model.record import Made
from reconciler.model.spec import Healthcheck, Logs, Resources
from tests.runtime.bundles import Bundles, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def running(bundles: Bundles) -> tuple[NativeInside, Made]:
    made = bundles.make(env={"COLOUR": "blue"}, workdir="/home/app")
    bundles.run(made)
    return NativeInside(bundles.layout), made


def test_exec_gives_output_and_exit_code(running: tuple[NativeInside, Made], capfd: pytest.CaptureFixture[str]) -> None:
    inside, made = running
    result = inside.exec(made, ["sh", "-c", "echo $COLOUR $EXTRA $PWD; echo oops >&2; exit 42"], env={"EXTRA": "more"})
    assert result.exit_code == 42
    assert tuple(capfd.readouterr()) == ("blue more /home/app\n", "oops\n")


def test_exec_as_a_user_of_the_image(running: tuple[NativeInside, Made], capfd: pytest.CaptureFixture[str]) -> None:
    inside, made = running
    assert (
        inside.exec(made, ["sh", "-c", "id -u; id -g; id -G; echo $HOME; pwd"], user="app", workdir="/tmp").exit_code == 0
    )
    assert capfd.readouterr().out.split("\n")[:-1] == ["1000", "1001", "1001 33", "/home/app", "/tmp"]
    with pytest.raises(Failed, match="no user 'nobody'"):
        inside.exec(made, ["true"], user="nobody")


def test_exec_is_given_no_descriptor_but_its_streams(
    running: tuple[NativeInside, Made], capfd: pytest.CaptureFixture[str]
) -> None:
    """The pipe by which it is hung up is the runtime's."""
    inside, made = running
    assert inside.exec(made, ["sh", "-c", "ls /proc/$$/fd; :"]).exit_code == 0
    assert set(capfd.readouterr().out.split()) <= {"0", "1", "2", "10"}  # busybox's shell may keep one of its own


@pytest.mark.parametrize(("command", "code"), [("no-such", 127), ("/etc/passwd", 126), ("/nowhere/x", 127)])
def test_exec_of_what_cannot_run(running: tuple[NativeInside, Made], command: str, code: int) -> None:
    inside, made = running
    assert inside.exec(made, [command]).exit_code == code


def test_exec_in_a_container_that_does_not_run_says_so(bundles: Bundles) -> None:
    made = bundles.make()
    with pytest.raises(Failed, match="created, not running"):
        NativeInside(bundles.layout).exec(made, ["true"])


def test_exec_reads_nothing_unless_asked(running: tuple[NativeInside, Made], capfd: pytest.CaptureFixture[str]) -> None:
    inside, made = running
    saved, (read_end, write_end) = os.dup(0), os.pipe()
    os.write(write_end, b"typed\n")
    os.close(write_end)
    try:
        os.dup2(read_end, 0)
        assert inside.exec(made, ["cat"]).exit_code == 0
        assert capfd.readouterr().out == ""
        assert inside.exec(made, ["cat"], stdin=True).exit_code == 0
        assert capfd.readouterr().out == "typed\n"
    finally:
        os.dup2(saved, 0)
        os.close(read_end)
        os.close(saved)


def test_exec_with_a_terminal_passes_it_through_with_its_size(running: tuple[NativeInside, Made]) -> None:
    inside, made = running
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            code = inside.exec(
                made,
                ["sh", "-c", "test -t 0 && until stty size; do sleep 0.01; done; read x; echo got $x; exit 5"],
                tty=True,
                stdin=True,
            )
            os._exit(code.exit_code)
        except BaseException as error:  # noqa: BLE001 - a child of fork must not return into pytest
            sys.stderr.write(repr(error))
            os._exit(99)
    import fcntl
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    shown = read_until(terminal, b"33 77")
    os.write(terminal, b"word\n")
    shown += read_until(terminal, b"got word")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5, shown
    os.close(terminal)


def read_until(fd: int, what: bytes) -> bytes:
    shown = b""
    deadline = time.monotonic() + 10
    while what not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([fd], [], [], 0.1)[0]:
            shown += os.read(fd, 4096)
    return shown


def test_kill_sends_a_signal_and_holds_nothing(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "trap 'echo hup' HUP; echo ready; while :; do sleep 0.02; done")
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made))
    inside = NativeInside(bundles.layout)
    inside.kill(made, signal.SIGHUP)
    wait_for(lambda: "hup" in bundles.log(made))
    bundles.halt(made, "hold")
    with pytest.raises(Failed, match="does not run"):
        inside.kill(made, signal.SIGHUP)


def check(*test: str, **rest: object) -> Healthcheck:
    return Healthcheck(test=test, **rest)  # type: ignore[arg-type]  # keywords of the check


def test_probe_tells_health_and_observe_remembers_it_for_a_while(bundles: Bundles) -> None:
    made = bundles.make(healthcheck=check("CMD-SHELL", "echo looked; test -e /tmp/well", retries=2, interval=0.01))
    bundles.run(made)
    wait_for(lambda: time.time() > bundles.status(made).started_at + 0.01)
    inside = NativeInside(bundles.layout)
    assert bundles.status(made).health is Health.UNKNOWN
    assert inside.probe(made, timeout=5) == (Health.UNHEALTHY, "looked\n")
    assert bundles.status(made).health is Health.STARTING
    assert inside.probe(made, timeout=5)[0] is Health.UNHEALTHY
    assert bundles.status(made).health is Health.UNHEALTHY
    (bundles.path(made) / "rootfs/tmp/well").touch()
    assert inside.probe(made, timeout=5)[0] is Health.HEALTHY
    assert bundles.status(made).health is Health.HEALTHY


def test_probe_that_hangs_is_killed_with_its_command(bundles: Bundles) -> None:
    made = bundles.make(healthcheck=check("CMD", "sleep", "4321"))
    bundles.run(made)
    began = time.monotonic()
    verdict, text = NativeInside(bundles.layout).probe(made, timeout=0.4)
    assert (verdict, time.monotonic() - began < 3) == (Health.UNHEALTHY, True)
    assert "longer than 0.4 s" in text
    wait_for(lambda: not any(is_sleeping(entry) for entry in Path("/proc").iterdir()))


@pytest.mark.parametrize("hiding", ["sleep 4321", "sleep 4321 & sleep 4321", "setsid sleep 4321 & exec sleep 4321"])
def test_hung_probe_dies_with_all_that_it_started_and_leaves_nothing(bundles: Bundles, hiding: str) -> None:
    made = bundles.make(healthcheck=check("CMD-SHELL", hiding))
    pid = bundles.run(made).pid
    assert NativeInside(bundles.layout).probe(made, timeout=0.4)[0] is Health.UNHEALTHY
    assert not any(is_sleeping(entry) for entry in Path("/proc").iterdir())
    assert cgroups.list_children(monitor.cgroup_path(bundles.layout, made.incarnation)) == set()
    assert list(bundles.path(made).glob("new-*")) == []
    assert bundles.status(made).pid == pid


def test_probe_that_ends_leaves_nothing_in_the_background(bundles: Bundles) -> None:
    made = bundles.make(healthcheck=check("CMD-SHELL", "setsid sleep 4321 >/dev/null 2>&1 & true"))
    bundles.run(made)
    assert NativeInside(bundles.layout).probe(made, timeout=5)[0] is Health.HEALTHY
    assert not any(is_sleeping(entry) for entry in Path("/proc").iterdir())


def is_sleeping(entry: Path) -> bool:
    try:
        return entry.name.isdigit() and (entry / "cmdline").read_bytes() == b"sleep\x004321\x00"
    except OSError:
        return False


def test_probe_of_a_command_that_is_not_there_is_unhealthy_and_says_why(bundles: Bundles) -> None:
    made = bundles.make(healthcheck=check("CMD", "curl", "x"))
    bundles.run(made)
    verdict, text = NativeInside(bundles.layout).probe(made, timeout=5)
    assert verdict is Health.UNHEALTHY
    assert "executable file not found" in text


def read(inside: NativeInside, made: Made, tail: int | None = None, since: float = 0.0) -> list[bytes]:
    return [line.text for line in inside.logs(made, tail=tail, since=since, follow=False, stop=lambda: True)]


def test_logs_are_read_over_rotated_files(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "seq 1 500; echo ready; sleep 1000", logs=Logs(max_size=40_000, keep=2))
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made))
    inside = NativeInside(bundles.layout)
    numbers = [str(number).encode() for number in range(1, 501)]
    assert read(inside, made) == [*numbers, b"ready"]
    # It was above half of its size: reading set it aside, and conmon writes into a new one.
    log = log_path(bundles.layout, made.incarnation)
    assert log.with_name("container.log.1").exists()
    inside.exec(made, ["sh", "-c", "echo more > /proc/1/fd/1"])
    wait_for(lambda: "more" in bundles.log(made))
    assert read(inside, made, tail=3) == [b"500", b"ready", b"more"]
    assert read(inside, made, since=time.time() + 60) == []
    assert not any(line.lost for line in inside.logs(made, tail=None, since=0, follow=False, stop=lambda: True))


def test_log_that_conmon_cut_says_where_lines_are_lost(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "seq 1 3000; echo ready; sleep 1000", logs=Logs(max_size=20_000))
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made))
    inside = NativeInside(bundles.layout)
    lines = list(inside.logs(made, tail=None, since=0, follow=False, stop=lambda: True))
    assert lines[0].lost
    assert not any(line.lost for line in lines[1:])
    assert lines[-1].text == b"ready"


def test_rotated_files_beyond_the_kept_ones_go(bundles: Bundles, tmp_path: Path) -> None:
    log = tmp_path / "container.log"
    for number in range(5):
        log.write_text(str(number))
        rotation.shift(str(log), keep=2)
    assert sorted(path.name for path in tmp_path.glob("container.log*")) == ["container.log.1", "container.log.2"]
    assert (tmp_path / "container.log.1").read_text() == "4"


def test_followed_log_goes_on_over_rotations_and_restarts_until_the_end(bundles: Bundles) -> None:
    made = bundles.make(
        "sh", "-c", "echo first; while ! test -e /tmp/go; do sleep 0.01; done; seq 1 200; exit 0", restart="no"
    )
    bundles.run(made)
    inside = NativeInside(bundles.layout)
    seen: list[bytes] = []

    def follow() -> None:
        seen.extend(line.text for line in inside.logs(made, tail=10, since=0, follow=True, stop=lambda: False))

    reader = threading.Thread(target=follow)
    reader.start()
    wait_for(lambda: "first" in bundles.log(made))
    rotation.rotate(str(bundles.path(made)), {**bundle.read_json(str(bundles.path(made)), bundle.MONITOR), "max_size": 1})
    (bundles.path(made) / "rootfs/tmp/go").touch()
    reader.join(timeout=20)
    assert not reader.is_alive()
    assert seen == [b"first", *(str(number).encode() for number in range(1, 201))]


def test_line_without_an_end_is_bounded_and_marked_partial(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "seq 1 5000 | while read x; do echo -n 0123456789; done; echo; echo ready; sleep 1000")
    bundles.run(made)
    wait_for(lambda: "ready" in bundles.log(made))
    lines = list(NativeInside(bundles.layout).logs(made, tail=None, since=0, follow=False, stop=lambda: True))
    assert lines[0].partial
    assert sum(len(line.text) for line in lines[:-1]) == 50_000


def test_fork_bomb_stays_inside_its_limit_b6(bundles: Bundles) -> None:
    made = bundles.make(
        "sh",
        "-c",
        "i=0; while test $i -lt 40; do sleep 1000 & i=$((i+1)); done; echo all",
        restart="no",
        resources=Resources(pids=20),
    )
    bundles.run(made)
    wait_for(lambda: "fork" in bundles.log(made))
    assert "all" not in bundles.log(made)


def test_one_that_is_created_for_its_restart_is_waited_for(bundles: Bundles) -> None:
    """As between the end of a run and the start of the next, for some milliseconds."""
    made = bundles.make("sh", "-c", "exit 7", restart="no")
    path = str(bundles.path(made))
    settings = bundle.read_json(path, bundle.MONITOR)
    state = conmon.create(path, settings)
    policy.write_policy(path, policy.Policy(restart="no", restarts=1))
    waits: list[Future[Status]] = []
    with ThreadPoolExecutor(1) as threads:
        inside = NativeInside(bundles.layout)
        conmon.begin(path, settings, state, lambda: waits.append(threads.submit(inside.wait, made, seconds=30)))
        assert waits[0].result().exit_code == 7


def test_only_what_a_dead_exec_left_in_this_container_is_killed(
    running: tuple[NativeInside, Made], bundles: Bundles
) -> None:
    inside, made = running
    path, ours = bundles.path(made), os.getpid()
    own = min(cgroups.list_processes(bundle.read_json(str(path), bundle.MONITOR)["cgroup"]))
    dead = "4194303-1"
    alive = f"{ours}-{process.read_start_time(ours)}"
    other = subprocess.Popen(["sleep", "60"])
    for name, pid in ((f"{alive}-aa", own), (f"{dead}-bb", other.pid), (f"{dead}-cc", own), ("mine", own)):
        (path / f"new-exec-{name}.json").write_text("{}")
        (path / f"new-exec-{name}.pid").write_text(str(pid))
    os.utime(path / f"new-exec-{dead}-cc.pid", (1, 1))  # Written long before the process with that number began.
    assert list(inside.end_abandoned()) == []
    assert sorted(each.stem for each in path.glob("new-exec-*.json")) == [f"new-exec-{alive}-aa", "new-exec-mine"]
    assert process.is_alive(own, process.read_start_time(own))
    assert other.poll() is None
    other.kill()
    other.wait()


def test_what_we_ignore_is_not_ignored_inside(bundles: Bundles, capfd: pytest.CaptureFixture[str]) -> None:
    """As under nohup(1), and in the background of a shell; a shell could never trap them. The runtime sees to it."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGINT)}
    try:
        made = bundles.make("sh", "-c", "grep SigIgn /proc/self/status; exec sleep 1000")
        bundles.run(made)
        wait_for(lambda: "SigIgn" in bundles.log(made))
        NativeInside(bundles.layout).exec(made, ["grep", "SigIgn", "/proc/self/status"])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for text in (bundles.log(made), capfd.readouterr().out):
        assert int(text.split()[-1], 16) & 0b11 == 0
