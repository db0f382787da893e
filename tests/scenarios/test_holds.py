"""By hand on the real kernel: stop, pause and their holds, on a container, an index and a stack, beside an apply."""

import json
import socket
from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root

BOX = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s"}
TICK = ["sh", "-c", "while :; do echo tick; sleep 0.05; done"]


def stack(**containers: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconcile/v1", "name": "one", "containers": {n: {**BOX, **c} for n, c in containers.items()}}


@pytest.fixture
def one(world: World) -> World:
    manifest = stack(tick={"command": TICK})
    manifest["containers"]["web"] = {"image": "127.0.0.1:5000/web:1", "ports": ["127.0.0.1:8080:8080"]}
    world.write(manifest)
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def phase(world: World, name: str) -> str:
    return str(world.record(f"one/{name}")["status"]["phase"])


def lines(world: World) -> int:
    return world.run("logs", "tick", check=0).out.count("tick")


def test_paused_container_stands_still_keeps_its_pid_and_its_port_and_goes_on(one: World):
    pids = {name: one.pid(f"one/{name}") for name in ("web", "tick")}
    one.run("pause", "tick", "--note", "snapshot", check=0)
    status = one.record("one/tick")["status"]
    assert (status["phase"], status["pid"], status["drift"]) == ("paused", pids["tick"], [])
    assert (status["held"]["kind"], status["held"]["why"]) == ("pause", "snapshot")
    before = lines(one)
    one.run("exec", "web", "sleep", "0.3", check=0)
    assert lines(one) == before
    one.run("pause", "one", check=0)
    with one.network(), socket.create_connection(("127.0.0.1", 8080), timeout=2) as asking:
        asking.settimeout(0.5)
        asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises(TimeoutError):
            asking.recv(1)
        one.run("unpause", "one", check=0)
        asking.settimeout(5)
        assert asking.recv(8) == b"HTTP/1.1"
    assert {name: one.pid(f"one/{name}") for name in ("web", "tick")} == pids
    wait_until(lambda: lines(one) > before, "it ticks again")
    assert one.plan("stack.yaml")["actions"] == []
    assert one.record("one/tick")["status"]["held"] is None


def test_hold_is_shown_everywhere_and_survives_applies(one: World):
    pid = one.pid("one/tick")
    one.run("pause", "tick", "--note", "snapshot", check=0)
    plan = one.run("plan", "stack.yaml", check=0).out
    assert "held: pause by root" in plan
    assert "(snapshot)" in plan
    assert "`reconcile unpause`" in plan
    assert "paused, held: pause by root" in one.run("get", check=0).out
    described = one.run("describe", "tick", check=0).out
    assert "kind: pause" in described
    assert "why: snapshot" in described
    one.run("apply", "stack.yaml", "--yes", check=0)
    assert phase(one, "tick") == "paused"
    manifest = json.loads((one.folder / "stack.yaml").read_text())
    manifest["containers"]["tick"]["stop_grace"] = "2s"
    one.write(manifest)
    assert [action["verb"] for action in one.plan("stack.yaml")["actions"]] == ["update"]
    one.run("apply", "stack.yaml", "--yes", check=0)
    assert (phase(one, "tick"), one.record("one/tick")["status"]["pid"]) == ("paused", pid)
    one.run("apply", "stack.yaml", "--yes", "--resume", check=0)
    assert (one.pid("one/tick"), one.record("one/tick")["status"]["held"]) == (pid, None)


def test_pause_of_nobodys_is_drift_that_is_mended_with_the_same_pid(one: World):
    pid, incarnation = one.pid("one/tick"), one.record("one/tick")["status"]["incarnation"]
    run = f"/run/reconcile/{one.root_ids()[0]}/runc"
    one.nsenter("runc", "--root", run, "pause", incarnation)
    assert "tick/1  process: running → paused  (apply: update)" in one.run("drift", check=2).out
    [action] = one.plan("stack.yaml")["actions"]
    assert (action["verb"], action["reason"]) == ("update", "drifted")
    one.run("apply", "stack.yaml", "--yes", check=0)
    assert one.pid("one/tick") == pid


def test_stop_of_a_paused_one_stops_it_and_the_hold_is_a_stop(one: World):
    one.run("pause", "tick", check=0)
    one.run("stop", "tick", "--note", "enough", check=0)
    status = one.record("one/tick")["status"]
    assert (status["phase"], status["held"]["kind"], status["held"]["why"]) == ("exited", "stop", "enough")
    assert one.run("unpause", "tick", check=1).err.count("is not paused") == 1
    assert "held by a stop" in one.run("restart", "tick", check=1).err
    one.run("start", "tick", check=0)
    assert phase(one, "tick") == "running"


def test_start_ends_a_pause_too(one: World):
    pid = one.pid("one/tick")
    one.run("pause", "tick", check=0)
    one.run("start", "tick", check=0)
    assert one.pid("one/tick") == pid


def test_exec_into_a_paused_one_and_pause_of_one_that_does_not_run_are_refused(one: World):
    one.run("pause", "tick", check=0)
    result = one.run("exec", "tick", "true", check=125)
    assert "is not running (paused)" in result.err
    assert "reconcile unpause tick" in result.err
    one.run("stop", "tick", check=0)
    assert "is not running (exited)" in one.run("pause", "tick", check=1).err
    assert one.record("one/tick")["status"]["held"]["kind"] == "stop"


def test_killed_while_paused_it_ends_and_its_hold_keeps_it_down(one: World):
    one.run("pause", "tick", check=0)
    one.run("kill", "tick", check=0)
    wait_until(lambda: phase(one, "tick") == "exited", "it has ended")
    assert one.plan("stack.yaml")["actions"] == []
    one.run("unpause", "tick", check=0)
    assert phase(one, "tick") == "running"


def test_replace_and_delete_of_a_paused_one(one: World):
    one.run("pause", "one", check=0)
    one.edit(one.folder / "stack.yaml", "sleep 0.05", "sleep 0.06")
    assert "stays stopped by its hold (pause by root" in one.run("plan", "stack.yaml", check=2).out
    one.run("apply", "stack.yaml", "--yes", check=0)
    assert phase(one, "tick") == "created"
    one.run("unpause", "tick", check=0)
    assert phase(one, "tick") == "running"
    one.run("pause", "tick", check=0)
    one.run("delete", "one", "--yes", check=0)
    assert [key for key in one.records() if key.startswith("container/")] == []


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "kill", "pause", "unpause"])
def test_names_of_a_container_an_index_and_a_stack(one: World, verb: str):
    for name in ("tick", "tick/1", "one/tick", "one/tick/1", "one"):
        if verb == "unpause":
            one.run("pause", name, check=0)
        one.run(verb, name, *(["--signal", "CONT"] if verb == "kill" else []), check=0)
        wanted = {"stop": "exited", "pause": "paused"}.get(verb, "running")
        assert phase(one, "tick") == wanted, name
        one.run("start", "one", check=0)


def test_stop_while_an_apply_waits_for_it_is_obeyed(world: World):
    slow = {"healthcheck": {"test": ["CMD", "test", "-e", "/ready"], "interval": "200ms", "start_period": "60s"}}
    world.write(stack(slow=slow, other={}))
    applying = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: "container/one/slow/1" in world.records(), "it is on record")
    wait_until(lambda: phase(world, "slow") == "running", "it runs")
    world.run("stop", "slow", "--note", "not now", check=0)
    out, err = applying.communicate(timeout=60)
    assert applying.returncode == 0, out.decode() + err.decode()
    assert b"stop by root while it was waited for" in out + err
    assert phase(world, "slow") == "exited"
    assert world.plan("stack.yaml")["actions"] == []


def test_stop_while_an_apply_replaces_it_reaches_the_new_one(world: World):
    world.write(stack(it={}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    slow = {"healthcheck": {"test": ["CMD", "test", "-e", "/ready"], "interval": "200ms", "start_period": "60s"}}
    world.write(stack(it={**slow, "env": {"A": "1"}}))
    old = world.record("one/it")["status"]["incarnation"]
    applying = world.popen("apply", "stack.yaml", "--yes")
    running = lambda: [c for c in world.processes().values() if "conmon" in c and old not in c]  # noqa: E731
    wait_until(running, "the new one runs")
    world.run("stop", "it", check=0)
    out, err = applying.communicate(timeout=60)
    assert applying.returncode == 0, out.decode() + err.decode()
    assert phase(world, "it") == "exited"
    assert not [c for c in world.processes().values() if "sleep 2147483647" in c]
    assert world.plan("stack.yaml")["actions"] == []
