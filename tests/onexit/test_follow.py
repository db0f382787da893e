"""What follows an exit, by the real exit command below the real conmon: policies, pauses, marks, and who heals."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import bundle, lifecycle, policy, status
from reconciler.linux import process
from reconciler.model.observation import Phase, Status
from reconciler.model.record import ApplyId
from tests.runtime.bundles import Bundles, this_apply, wait_for

pytestmark = pytest.mark.root


def run_again(bundles: Bundles, made: object, first: int) -> None:
    def runs() -> bool:
        now = bundles.status(made)  # Race: one look, for between two it may have ended.
        return now.phase is Phase.RUNNING and now.pid != first

    wait_for(runs)


def test_killed_container_runs_again_at_once(bundles: Bundles) -> None:
    made = bundles.make()
    first = bundles.run(made)
    bundles.kill(made)
    run_again(bundles, made, first.pid)
    now = bundles.status(made)
    assert (now.restarts, now.exit_code) == (1, 137)


def test_pauses_grow_between_restarts(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "echo run; exit 1")
    bundles.run(made)
    wait_for(lambda: bundles.log(made).count("run") >= 4)
    starts = [line.split()[0] for line in bundles.log(made).splitlines()]
    seconds = [float(text[17:26]) + 60 * float(text[14:16]) for text in starts]
    gaps = [later - earlier for earlier, later in itertools.pairwise(seconds)]
    assert gaps[1] > 0.1
    assert gaps[2] > 0.2
    seen: list[Status] = []
    wait_for(lambda: seen.append(bundles.status(made)) or seen[-1].restarting)
    assert seen[-1].exit_code == 1


@pytest.mark.parametrize(("restart", "code", "runs"), [("no", 1, 1), ("on-failure", 0, 1), ("on-failure:2", 1, 3)])
def test_policy_decides_how_often_it_runs(bundles: Bundles, restart: str, code: int, runs: int) -> None:
    made = bundles.make("sh", "-c", f"echo run; exit {code}", restart=restart)
    bundles.run(made)
    wait_for(lambda: not bundles.monitors())
    now = bundles.status(made)
    assert bundles.log(made).count("run") == runs
    assert (now.phase, now.exit_code, now.gave_up) == (Phase.EXITED, code, restart == "on-failure:2")


def test_start_begins_the_count_anew(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "echo run; exit 1", restart="on-failure:1")
    for runs in (2, 4):
        bundles.run(made)
        wait_for(lambda: bundles.status(made).gave_up)
        wait_for(lambda: not bundles.monitors())
        assert bundles.log(made).count("run") == runs


def test_held_container_stays_down(bundles: Bundles) -> None:
    made = bundles.make()
    bundles.run(made)
    assert bundles.halt(made, "hold").phase is Phase.EXITED
    wait_for(lambda: not bundles.monitors())
    assert bundles.status(made).phase is Phase.EXITED


def test_mark_wakes_and_ends_a_sleeper(bundles: Bundles) -> None:
    made = bundles.make("false")
    bundles.run(made)
    wait_for(lambda: bundles.status(made).restarts >= 5 and bundles.status(made).restarting, 20)  # a pause of 1.6 s
    began = time.monotonic()
    bundles.halt(made, "hold")
    wait_for(lambda: not bundles.monitors())
    assert time.monotonic() - began < 1.2, "it slept on"


def test_start_while_it_sleeps_supersedes_the_sleeper(bundles: Bundles) -> None:
    made = bundles.make("sh", "-c", "test -e /tmp/go && exec sleep 1000; exit 1")
    bundles.run(made)
    wait_for(lambda: bundles.status(made).restarts >= 2)
    path = str(bundles.path(made))
    with lifecycle.locked(path, made.key, doing="test"):
        wait_for(lambda: bundles.status(made).phase is Phase.EXITED)
        (bundles.path(made) / "rootfs/tmp/go").touch()
        now = lifecycle.run(path, made.key)
    wait_for(lambda: len(bundles.monitors()) == 1)
    assert (bundles.status(made).pid, bundles.status(made).restarts) == (now.pid, 0)


def test_stop_by_an_apply_that_goes_on_starts_nothing_behind_its_back(bundles: Bundles) -> None:
    made = bundles.make()
    bundles.run(made)
    bundles.halt(made, "replaced")
    with lifecycle.locked(str(bundles.path(made)), made.key, doing="test"):
        lifecycle.unmark(str(bundles.path(made)))
    wait_for(lambda: not bundles.monitors())
    assert bundles.status(made).phase is Phase.EXITED
    assert bundles.run(made).restarts == 0


def dead_apply() -> tuple[subprocess.Popen[bytes], ApplyId]:
    child = subprocess.Popen(["sleep", "1000"])
    apply = ApplyId(pid=child.pid, start_time=process.read_start_time(child.pid), boot_id=this_apply().boot_id)
    return child, apply


@pytest.mark.parametrize("mark", ["replaced", ""])
def test_what_a_dead_apply_stopped_is_started_again(bundles: Bundles, mark: str) -> None:
    child, apply = dead_apply()
    made = bundles.make(restart="no")
    first = bundles.run(made)
    bundles.halt(made, mark, apply)
    time.sleep(0.2)  # it must not start while the apply lives
    assert bundles.status(made).phase is Phase.EXITED
    child.kill()
    child.wait()
    run_again(bundles, made, first.pid)
    rules = policy.read_policy(str(bundles.path(made)))
    assert rules is not None
    assert rules.mark == ""


def test_replaced_container_stays_down_when_its_successor_runs(bundles: Bundles) -> None:
    child, apply = dead_apply()
    old, new = bundles.make(key="web"), bundles.make(key="web")
    bundles.run(old)
    bundles.halt(old, "replaced", apply)
    bundles.run(new)
    child.kill()
    child.wait()
    wait_for(lambda: len(bundles.monitors()) == 1)
    assert bundles.status(old).phase is Phase.EXITED
    assert bundles.status(new).phase is Phase.RUNNING


def test_gone_container_ends_although_its_exit_command_waited_for_the_lock(bundles: Bundles) -> None:
    made = bundles.make()
    bundles.run(made)
    path = str(bundles.path(made))
    with lifecycle.locked(path, made.key, doing="test"):
        bundles.kill(made)
        wait_for(lambda: (bundles.path(made) / bundle.EXITS / made.incarnation).exists())
        lifecycle.halt(path, mark="gone", apply=this_apply(), number=signal.SIGKILL, grace=0)
    wait_for(lambda: not bundles.monitors())
    assert bundles.status(made).restarts == 0


def test_restart_of_a_program_that_is_gone_is_tried_again_and_says_why(bundles: Bundles) -> None:
    made = bundles.make("/bin/sleep", "1000")
    first = bundles.run(made)
    link = bundles.path(made) / "rootfs/bin/sleep"
    link.unlink()
    bundles.kill(made)
    wait_for(lambda: bundles.status(made).error and bundles.status(made).restarts > 1)
    assert bundles.status(made).restarting
    link.symlink_to("busybox")
    run_again(bundles, made, first.pid)
    assert bundles.status(made).error == ""


def test_exit_command_imports_little(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "reconciler/onexit/__main__.py"
    code = f"import sys; sys.argv = ['x', '{tmp_path}/none']; __file__ = '{script}'; exec(open(__file__).read())"
    code += "; print(' '.join(sorted(sys.modules)))"
    python = str(Path(sys.executable).resolve())
    done = subprocess.run([python, "-I", "-S", "-E", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "reconciler.onexit.follow" in loaded
    heavy = {
        "msgspec",
        "subprocess",
        "json",
        "re",
        "enum",
        "typing",
        "pathlib",
        "contextlib",
        "ctypes",
        "logging",
        "socket",
    }
    assert not loaded & heavy
    assert not {name for name in loaded if name.startswith(("reconciler.model", "reconciler.store"))}


def test_container_that_was_held_is_followed_again_after_its_start(bundles: Bundles) -> None:
    made = bundles.make()
    bundles.run(made)
    bundles.halt(made, "hold")
    with lifecycle.locked(str(bundles.path(made)), made.key, doing="test"):
        lifecycle.unmark(str(bundles.path(made)))
    first = bundles.run(made)
    bundles.kill(made)
    run_again(bundles, made, first.pid)


def test_exit_command_of_a_bundle_that_is_gone_ends_quietly(bundles: Bundles) -> None:
    script = Path(__file__).parents[2] / "reconciler/onexit/__main__.py"
    python = str(Path(sys.executable).resolve())
    for path in (bundles.layout.bundles / "nothing", bundles.path(bundles.make())):
        done = subprocess.run([python, "-I", "-S", "-E", script, path], capture_output=True, text=True, check=True)
        assert done.stdout + done.stderr == ""


def test_want_of_memory_is_known_as_soon_as_the_exit_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply that looked between the monitor's file and the exit command's told of a SIGKILL without its cause."""
    (tmp_path / bundle.EXITS).mkdir()
    (tmp_path / bundle.EXITS / "a1b2").write_text("137")
    monkeypatch.setattr(bundle.cgroups, "count_oom_kills", {"/short": 1, "/ample": 0}.__getitem__)
    run = {"pid": 5, "start_time": 7}
    ended = {name: status.read_exit(str(tmp_path), {"id": "a1b2", "cgroup": name}, run) for name in ("/short", "/ample")}
    assert [(how["code"], how["oom"]) for how in ended.values()] == [(137, True), (137, False)]
