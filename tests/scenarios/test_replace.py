"""A new version takes the old one's place, on the real kernel: addresses, MACs, ports, names and pids."""

import json
from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root

CHECK = {"test": ["CMD", "wget", "-q", "-O-", "http://127.0.0.1:8080/"], "interval": "200ms", "retries": 10}
SICK = {"test": ["CMD", "false"], "interval": "100ms", "retries": 2}
WEB = "container/swap/web/1"


def swap(colour: str, order: str, **fields: Any) -> dict[str, Any]:
    """A web server that is replaced when its colour changes, and a client that may ask for it by name."""
    web: dict[str, Any] = {"image": "127.0.0.1:5000/web:1", "env": {"COLOUR": colour}, "stop_grace": "3s"}
    web |= {"healthcheck": CHECK, "update": {"order": order}, "networks": {"default": {"aliases": ["www"]}}}
    if order == "stop-first":
        web["ports"] = ["127.0.0.1:8080:8080"]
    client = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s"}
    return {"apiVersion": "reconcile/v1", "name": "swap", "containers": {"web": web | fields, "client": client}}


def apply(world: World, manifest: dict[str, Any], *, check: int = 0) -> str:
    world.write(manifest)
    return world.run("apply", "stack.yaml", "--yes", check=check).out


def place(world: World) -> tuple[str, str]:
    """Address and MAC, as the container itself has them."""
    shown = world.run("exec", "swap/web", "ip", "-o", "addr", "show", "eth0", check=0).out
    link = world.run("exec", "swap/web", "cat", "/sys/class/net/eth0/address", check=0).out.strip()
    return shown.split("inet ")[1].split("/")[0], link


def resolved(world: World, name: str) -> str:
    """What the client gets for a name."""
    return world.run("exec", "swap/client", "nslookup", name, check=0).out


@pytest.mark.parametrize("why", ["unhealthy", "does not start", "ends at once"])
def test_stop_first_that_fails_brings_the_old_one_back_as_it_was(world: World, why: str):
    apply(world, swap("red", "stop-first"))
    before, were = world.record("swap/web"), place(world)
    broken: dict[str, Any] = {
        "unhealthy": {"healthcheck": SICK},
        "does not start": {"command": ["/no/such/program"]},
        "ends at once": {"command": ["sh", "-c", "echo last words; exit 3"]},
    }[why]
    said = apply(world, swap("blue", "stop-first", **broken), check=1)
    assert "the old one runs again" in said
    if why == "ends at once":
        assert "last words" in said
    after = world.record("swap/web")
    assert after["status"]["incarnation"] == before["status"]["incarnation"]
    assert after["status"]["phase"] == "running"
    assert place(world) == were
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    assert were[0] in resolved(world, "www")
    assert world.run("exec", "swap/web", "env", check=0).out.count("COLOUR=red") == 1
    assert world.run("drift").code == 0
    apply(world, swap("blue", "stop-first"))
    assert place(world) == were


def test_start_first_moves_names_without_a_gap_and_takes_another_address(world: World):
    apply(world, swap("red", "start-first"))
    before, were = world.pid("swap/web"), place(world)
    # Names are asked for until they answer: the resolver listens anew whenever it is told of other names.
    find = "nslookup www 2>/dev/null | sed -n '/^Name/,$s/^Address.* //p' | tail -n 1"
    # Who was slow between question and connection asks again: it is a gap where the name still means that address.
    ask = f'timeout 2 wget -q -O- http://$to:8080/ >/dev/null && echo ok || {{ [ "$({find})" != $to ] || echo gap; }}'
    script = f'while [ ! -e /tmp/end ]; do to=$({find}); [ -z "$to" ] || {{ {ask}; }}; done'
    asking = world.popen("exec", "swap/client", "sh", "-c", script)
    assert asking.stdout
    assert asking.stdout.readline() == b"ok\n"
    apply(world, swap("green", "start-first"))
    apply(world, swap("red", "start-first"))  # with the address that the first one had
    said = apply(world, swap("blue", "start-first"))
    now = place(world)
    world.run("exec", "swap/client", "touch", "/tmp/end", check=0)
    out, _ = asking.communicate(timeout=10)
    assert b"gap" not in out, out
    assert out.count(b"ok") > 3
    assert now[0] != were[0]
    assert now[1] != were[1]
    assert world.pid("swap/web") != before
    assert now[0] in resolved(world, "web")
    assert were[0] not in resolved(world, "www")
    assert "replace" in said
    assert world.plan("stack.yaml")["actions"] == []
    assert world.run("drift").code == 0


@pytest.mark.parametrize("why", ["unhealthy", "does not start"])
def test_start_first_that_fails_never_touches_the_old_one(world: World, why: str):
    apply(world, swap("red", "start-first"))
    pid, were = world.pid("swap/web"), place(world)
    broken: dict[str, Any] = {"unhealthy": {"healthcheck": SICK}, "does not start": {"command": ["/no/such/program"]}}[why]
    said = apply(world, swap("blue", "start-first", **broken), check=1)
    assert "the old one was not touched and runs" in said
    assert (world.pid("swap/web"), place(world)) == (pid, were)
    assert were[0] in resolved(world, "www")
    assert world.run("drift").code == 0
    assert len([line for line in world.processes().values() if "conmon" in line]) == 2


def bundles(world: World) -> list[dict[str, Any]]:
    """policy and state of each bundle of the web server, as they are on the tmpfs."""
    folder = next((world.proc / "1/root/run/reconcile").iterdir()) / "bundles"
    found = []
    for path in folder.iterdir():
        monitor = path / "monitor.json"
        if monitor.exists() and json.loads(monitor.read_text())["key"] == WEB:
            state = path / "state.json"
            found.append(json.loads(state.read_text()) if state.exists() else {})
    return found


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_replace_that_is_killed_while_it_waits_for_health_is_taken_up(world: World, order: str):
    apply(world, swap("red", order))
    old = world.record("swap/web")["status"]
    world.write(swap("blue", order, healthcheck={**SICK, "retries": 1000}))
    process = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: len(bundles(world)) == 2 and all(each.get("pid") for each in bundles(world)), "the new one runs")
    world.signal(process)
    process.communicate(timeout=10)
    world.write(swap("red", order))
    world.run("apply", "stack.yaml", "--yes", check=0)
    now = world.record("swap/web")["status"]
    assert now["phase"] == "running"
    assert (now["pid"] == old["pid"]) == (order == "start-first"), "who started first was never touched"
    assert world.plan("stack.yaml")["actions"] == []
    assert len(bundles(world)) == 1
    assert place(world)[0] in resolved(world, "www")


def test_killed_between_stop_and_start_the_old_one_heals_by_itself(world: World):
    """Nobody of ours runs any more: its own exit command finds the apply dead."""
    stubborn = {"image": "127.0.0.1:5000/busybox:1", "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}
    apply(world, swap("red", "stop-first", **stubborn, healthcheck={"test": ["NONE"]}, stop_grace="2s"))
    incarnation = world.record("swap/web")["status"]["incarnation"]
    pid = world.pid("swap/web")
    world.write(swap("blue", "stop-first", **stubborn, healthcheck={"test": ["NONE"]}, stop_grace="2s"))
    process = world.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: len(bundles(world)) == 2, "the new one is prepared")
    world.kill(pid)
    world.signal(process)
    process.communicate(timeout=10)
    wait_until(lambda: world.record("swap/web")["status"]["phase"] == "running", "it runs again")
    assert len([each for each in bundles(world) if each.get("pid")]) >= 1
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.record("swap/web")["status"]["incarnation"] != incarnation
    assert len(bundles(world)) == 1


def test_no_wait_and_timeout_say_what_they_did(world: World):
    apply(world, swap("red", "stop-first"))
    never = {"healthcheck": {**SICK, "retries": 1000, "interval": "100ms"}}
    world.write(swap("blue", "stop-first", **never))
    failed = world.run("apply", "stack.yaml", "--yes", "--timeout", "1s", check=1)
    assert "not healthy after 1 s" in failed.out
    assert "the old one runs again" in failed.out
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    assert "COLOUR=blue" in world.run("exec", "swap/web", "env", check=0).out


def test_only_who_says_so_restarts_with_what_it_depends_on(world: World):
    def trio(colour: str) -> dict[str, Any]:
        manifest = swap(colour, "stop-first")
        box = manifest["containers"]["client"]
        follows = {**box, "depends_on": {"web": {"condition": "healthy", "restart": True}}}
        manifest["containers"] |= {"follower": follows, "other": {**box, "depends_on": {"web": "healthy"}}}
        return manifest

    apply(world, trio("red"))
    world.run("exec", "follower", "touch", "/tmp/mark", check=0)
    before = {name: world.record(f"swap/{name}")["status"] for name in ("follower", "other", "web")}
    said = apply(world, trio("blue"))
    after = {name: world.record(f"swap/{name}")["status"] for name in before}
    assert "because it asks to follow web, which is started anew" in said
    assert after["other"]["pid"] == before["other"]["pid"]
    assert after["follower"]["pid"] != before["follower"]["pid"]
    assert after["follower"]["incarnation"] == before["follower"]["incarnation"]
    assert after["follower"]["started_at"] > after["web"]["started_at"]
    world.run("exec", "follower", "ls", "/tmp/mark", check=0)
    assert world.plan("stack.yaml")["actions"] == []
