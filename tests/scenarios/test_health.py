"""Health checks on a bridge, on the host's network and on none: commands and ports, Docker's numbers, who is told what."""

from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root

WEB = {"image": "127.0.0.1:5000/web:1", "stop_grace": "0s"}
FAST = {"interval": "200ms", "timeout": "1s", "retries": 2}


def stack(**containers: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "reconcile/v1", "name": "one", "containers": {n: {**WEB, **c} for n, c in containers.items()}}


def health(world: World, name: str) -> str:
    return str(world.record(f"one/{name}")["status"]["health"])


def test_ports_are_asked_on_every_kind_of_network(world: World):
    httpd = ["httpd", "-f", "-h", "/srv/www", "-p"]
    world.write(
        stack(
            page={"healthcheck": {"http": ":8080/healthz"}},
            port={"healthcheck": {"tcp": 8080}},
            lonely={"networks": ["none"], "healthcheck": {"http": {"port": 8080, "status": "200"}}},
            host={"networks": ["host"], "command": [*httpd, "18080"], "healthcheck": {"http": 18080}},
        )
    )
    world.run("apply", "stack.yaml", "--yes", "--timeout", "20s", check=0)
    assert {name: health(world, name) for name in ("page", "port", "lonely", "host")} == dict.fromkeys(
        ("page", "port", "lonely", "host"), "healthy"
    )
    assert world.plan("stack.yaml")["actions"] == []


def test_port_that_does_not_answer_as_it_should_fails_the_apply(world: World):
    world.write(stack(page={"healthcheck": {"http": ":8080/nothing", **FAST}}, port={"healthcheck": {"tcp": 1, **FAST}}))
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "unhealthy after 2 tries: 404 Not Found" in result.err + result.out
    assert "unhealthy after 2 tries: 10." in result.err + result.out
    assert health(world, "page") in ("unhealthy", "unknown")  # which it is after some seconds
    wait_until(lambda: health(world, "page") == "unknown", "nobody probes any more")


def test_long_interval_keeps_no_apply_waiting_and_early_failures_do_not_count(world: World):
    late = ["sh", "-c", "sleep 1; exec httpd -f -h /srv/www -p 8080"]
    world.write(stack(late={"command": late, "healthcheck": {"http": 8080, "retries": 1, "interval": "1h"}}))
    world.run("apply", "stack.yaml", "--yes", "--timeout", "20s", check=0)
    assert health(world, "late") == "healthy"


def test_failures_in_the_start_period_do_not_count(world: World):
    late = ["sh", "-c", "sleep 2; touch /ready; exec pause"]
    check = {"test": ["CMD", "test", "-e", "/ready"], "interval": "100ms", "retries": 1}
    world.write(stack(late={"command": late, "healthcheck": {**check, "start_period": "30s", "start_interval": "50ms"}}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.run("delete", "one", "--yes", check=0)
    world.write(stack(late={"command": late, "healthcheck": check}))
    assert "unhealthy after 1 tries" in world.run("apply", "stack.yaml", "--yes", check=1).out


def test_images_own_check_is_kept_beside_what_the_manifest_says_of_it(world: World):
    image = {"image": "127.0.0.1:5000/web:health"}
    world.write(stack(it={**image, "healthcheck": {"on_unhealthy": "nothing"}}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    spec = world.record("one/it")["spec"]["healthcheck"]
    assert (spec["test"][0], spec["interval"], spec["on_unhealthy"]) == ("CMD", 1.0, "nothing")
    pid = world.pid("one/it")
    world.write(stack(it={**image, "healthcheck": {"retries": 9}}))
    assert [action["verb"] for action in world.plan("stack.yaml")["actions"]] == ["update"]
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.record("one/it")["spec"]["healthcheck"]["retries"] == 9
    assert world.pid("one/it") == pid
    world.write(stack(it={"healthcheck": {"retries": 9}}))
    assert "no health check" in world.run("plan", "stack.yaml").out


def test_hung_check_is_killed_with_all_that_it_started(world: World):
    world.write(stack(it={"healthcheck": {"test": "setsid sleep 4321 & sleep 4321", **FAST, "timeout": "300ms"}}))
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "it took longer than 0.3 s" in result.err + result.out
    assert not [command for command in world.processes().values() if "4321" in command]
