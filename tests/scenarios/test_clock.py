"""X4: the clock is set back or forward under a stack that runs; in this world only (`lab/clock.py`)."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.clock import Clock
from lab.world import World, wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="skipped because gcc is not installed"),
]

slow = pytest.mark.skipif(not os.environ.get("RECONCILE_SLOW"), reason="skipped because RECONCILE_SLOW is not set")
DAY = 86_400
LOOKS = (("get",), ("status",), ("describe", "web"), ("history", "clock"), ("events",), ("get", "-o", "wide"))


def stack(version: int) -> dict[str, Any]:
    box = {"image": "127.0.0.1:5000/busybox:1", "networks": ["front"]}
    web = {
        "image": "127.0.0.1:5000/web:1",
        "networks": {"front": {"aliases": ["www"]}},
        "ports": ["8080:8080"],
        "env": {"VERSION": str(version)},
        "healthcheck": {"test": ["CMD", "true"], "interval": "1h"},
    }
    failing = {**box, "command": ["sh", "-c", "exit 3"], "restart": "always"}
    return {
        "apiVersion": "reconcile/v1",
        "name": "clock",
        "networks": {"front": {}},
        "containers": {"web": web, "steady": {**box, "command": ["pause"]}, "failing": failing},
    }


def policy_file(world: World, name: str) -> Path:
    incarnation = world.record(f"clock/{name}")["status"]["incarnation"]
    (file,) = Path(f"/proc/{world.holder}/root/run/reconcile").glob(f"*/bundles/{incarnation}/policy.json")
    return file


def restarts_often(policy: Path, times: int) -> int:
    """Until it was restarted so often; how many of them count as one row."""
    wait_until(
        lambda: json.loads(policy.read_text())["restarts"] >= times,
        "it was restarted again and again",
        policy.read_text,
        40,
    )
    return int(json.loads(policy.read_text())["attempts"])


@pytest.mark.parametrize("jump", [-2 * DAY, pytest.param(10 * DAY, marks=slow)], ids=["back", "forward"])
def test_x4_clock_that_jumps_neither_stops_nor_hurries_anything(world: World, jump: int):
    clock = Clock(world)
    world.write(stack(1))
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    policy = policy_file(world, "failing")
    attempts = restarts_often(policy, 4)
    steady = world.pid("clock/steady")

    clock.jump(jump)
    # Neither is the pause as long as the jump, nor is what failed taken for steady, its count begun anew.
    assert restarts_often(policy, attempts + 2) >= attempts + 2
    for look in LOOKS:
        said = world.run(*look).out
        assert not re.search(r"(^|\s)-\d", said), said
        found = [int(seconds) for seconds in re.findall(r"restarts in (\d+)s", said)]
        assert all(seconds <= 60 for seconds in found), said
    assert world.plan("stack.yaml")["actions"] == []

    # Of two incarnations the younger one is the new one, also where the clock says otherwise.
    before = world.record("clock/web")
    world.write(stack(2))
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    after = world.record("clock/web")
    assert after["status"]["incarnation"] != before["status"]["incarnation"]
    wait_until(lambda: "It works" in world.fetch("http://127.0.0.1:8080/"), "the page is served")
    assert (
        world.record("clock/web")["status"]["addresses"]["front"][0] in world.run("exec", "steady", "nslookup", "www").out
    )
    assert world.plan("stack.yaml")["actions"] == []
    assert world.pid("clock/steady") == steady

    clock.jump(0)
    assert world.plan("stack.yaml")["actions"] == []
    assert world.pid("clock/steady") == steady
