"""Stops, starts, kills, exits: who decides what runs."""

from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root


def stack(**container: Any) -> dict[str, Any]:
    base = {"image": "127.0.0.1:5000/busybox:1", "stop_grace": "1s"}
    return {"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": {**base, **container}}}


@pytest.fixture
def exits(world: World) -> World:
    world.use("exits")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def test_exit_zero_without_restart_is_done_and_planned_no_more(exits: World):
    status = exits.record("exits/done")["status"]
    assert (status["phase"], status["exit_code"]) == ("exited", 0)
    assert exits.plan("stack.yaml")["actions"] == []
    assert "finished" in exits.run("logs", "done", check=0).out


def test_stop_holds_over_apply_and_start_ends_it(exits: World):
    exits.run("stop", "steady", check=0)
    assert exits.record("exits/steady")["status"]["phase"] == "exited"
    result = exits.run("apply", "stack.yaml", "--yes", check=0)
    assert "held" in result.out + result.err
    assert exits.record("exits/steady")["status"]["phase"] == "exited"
    assert exits.run("drift").code == 0
    exits.run("start", "steady", check=0)
    assert exits.pid("exits/steady")
    assert exits.plan("stack.yaml")["actions"] == []


def test_apply_resume_ends_a_hold(exits: World):
    exits.run("stop", "exits", check=0)
    exits.run("apply", "stack.yaml", "--yes", "--resume", check=0)
    assert exits.pid("exits/steady")


def test_restart_keeps_the_container_and_changes_its_process(exits: World):
    pid = exits.pid("exits/steady")
    exits.run("exec", "steady", "touch", "/mark", check=0)
    exits.run("restart", "steady", check=0)
    assert exits.pid("exits/steady") != pid
    exits.run("exec", "steady", "ls", "/mark", check=0)


def test_kill_with_a_signal_that_it_handles_ends_it_and_it_is_back(exits: World):
    pid = exits.pid("exits/steady")
    exits.run("kill", "-s", "TERM", "steady", check=0)
    wait_until(lambda: exits.record("exits/steady")["status"]["restarts"] == 1, "it was started again")
    assert exits.pid("exits/steady") != pid


def test_policies_decide_what_follows_a_failure(world: World):
    world.write(stack(command=["sh", "-c", "echo once; exit 7"], restart="no"))
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "7" in result.err + result.out
    assert "once" in result.err + result.out, "the last log lines are shown"
    world.run("delete", "one", "--yes", check=0)
    world.write(stack(command=["false"], restart="on-failure:2"))
    world.run("apply", "stack.yaml", "--yes", check=1)
    wait_until(lambda: world.record("one/it")["status"].get("gave_up"), "it gave up", lambda: world.record("one/it"))
    assert world.record("one/it")["status"]["restarts"] == 2
    assert world.plan("stack.yaml")["actions"] == []
    assert "gave up" in world.run("get", check=0).out


def test_container_that_keeps_ending_fails_the_apply_and_backs_off(world: World):
    world.write(stack(command=["sh", "-c", "echo again; exit 3"]))
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "3" in result.err + result.out
    wait_until(lambda: world.record("one/it")["status"]["restarts"] >= 2, "it is started again and again")
    world.run("stop", "it", check=0)
    assert world.record("one/it")["status"]["phase"] == "exited"


def test_unhealthy_container_fails_the_apply_and_healthy_one_is_waited_for(world: World):
    healthy = {"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": {"image": "127.0.0.1:5000/web:health"}}}
    world.write(healthy)
    world.run("apply", "stack.yaml", "--yes", check=0)
    healthy["containers"]["it"]["image"] = "127.0.0.1:5000/web:sick"
    world.write(healthy)
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "unhealthy" in result.err + result.out


def test_dependent_starts_once_its_dependency_is_healthy(world: World):
    check = {"test": ["CMD", "test", "-e", "/ready"], "interval": "100ms", "start_period": "30s", "start_interval": "100ms"}
    base = {"image": "127.0.0.1:5000/busybox:1", "stop_grace": "0s"}
    first = {**base, "command": ["sh", "-c", "sleep 1; touch /ready; exec pause"], "healthcheck": check}
    then = {**base, "command": ["pause"], "depends_on": {"first": "healthy"}}
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": {"first": first, "then": then}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    began = {name: world.record(f"one/{name}")["status"]["started_at"] for name in ("first", "then")}
    assert began["first"] < began["then"]


def test_pause_before_a_restart_is_shown_and_start_begins_anew(world: World):
    world.write(stack(command=["sh", "-c", "exit 3"]))
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    wait_until(lambda: world.record("one/it")["status"]["restarts"] >= 5, "it backs off", seconds=30)
    wait_until(lambda: "restarts in" in world.run("get", check=0).out, "the pause is shown", seconds=30)
    wait_until(lambda: world.record("one/it")["status"]["restart_at"], "and when it ends")
    assert "exit_code: 3" in world.run("describe", "container/it", check=0).out
    assert world.plan("stack.yaml")["actions"] == [], "its exit command is at work"
    assert world.run("drift").code == 0
    world.write(stack(command=["sh", "-c", "exit 3"], restart="on-failure:1"))
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    wait_until(lambda: world.record("one/it")["status"]["gave_up"], "it gave up", seconds=70)
    assert world.run("drift").code == 0
    world.run("start", "it", check=0)
    wait_until(lambda: world.record("one/it")["status"]["gave_up"], "it gave up again")
    assert world.record("one/it")["status"]["restarts"] == 1, "the count began anew"


def test_signal_and_want_of_memory_are_told(world: World):
    world.write(stack(command=["pause"], restart="no"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.run("kill", "it", check=0)
    wait_until(lambda: world.record("one/it")["status"]["phase"] == "exited", "it has ended")
    assert world.record("one/it")["status"]["signal"] == "SIGKILL"
    assert "exited (137 SIGKILL)" in world.run("get", check=0).out
    assert world.plan("stack.yaml")["actions"] == []


def test_stop_of_one_whose_turn_has_not_come_is_obeyed(world: World):
    """Its dependency is waited for; what is stopped meanwhile is replaced and stays stopped."""
    flags = world.folder / "flags"
    flags.mkdir()
    check = {"test": "test -e /flags/$$V", "interval": "100ms", "start_period": "60s", "start_interval": "100ms"}
    base = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "0s"}

    def both(version: str) -> dict[str, Any]:
        first = {**base, "env": {"V": version}, "healthcheck": check, "mounts": ["./flags:/flags"]}
        then = {**base, "env": {"V": version}, "depends_on": {"first": "healthy"}}
        return {"apiVersion": "reconcile/v1", "name": "one", "containers": {"first": first, "then": then}}

    (flags / "one").touch()
    world.write(both("one"))
    world.run("apply", "stack.yaml", "--yes", check=0)
    old = world.record("one/then")["status"]["incarnation"]
    world.write(both("two"))
    waiting = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: len(list(world.root.glob("containers/*"))) == 3, "the new one of first is prepared")
    world.run("stop", "then", "--note", "look at it", check=0)
    (flags / "two").touch()
    out, err = waiting.communicate(timeout=100)
    assert waiting.returncode == 0, (out, err)
    status = world.record("one/then")["status"]
    assert status["phase"] != "running"
    assert status["held"]["why"] == "look at it"
    assert status["incarnation"] != old
    world.run("start", "then", check=0)
    assert world.run("exec", "then", "sh", "-c", "echo $V", check=0).out == "two\n"
