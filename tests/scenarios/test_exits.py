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
