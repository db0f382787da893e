"""What others change by hand is named by `drift`, mended by `apply`, and nothing else is touched."""

import os
import re
from collections.abc import Callable

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def shop(world: World) -> World:
    world.use("shop")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def ports_of_bridge(world: World) -> list[str]:
    """veths that sit on a bridge."""
    listed = world.nsenter("ip", "-o", "link", "show", "type", "veth").out
    return re.findall(r"^\d+: ([^@:]+)@?[^:]*:.* master ", listed, re.MULTILINE)


def bridge(world: World) -> str:
    return re.findall(r"^\d+: ([^@:]+):", world.nsenter("ip", "-o", "link", "show", "type", "bridge").out)[0]


def port_off_the_bridge(world: World) -> None:
    for link in ports_of_bridge(world):
        world.nsenter("ip", "link", "set", link, "nomaster")


def link_down(world: World) -> None:
    world.nsenter("ip", "link", "set", bridge(world), "down")


def bridge_removed(world: World) -> None:
    world.nsenter("ip", "link", "delete", bridge(world))


def gateway_removed(world: World) -> None:
    world.nsenter("ip", "address", "flush", "dev", bridge(world))


def veth_removed(world: World) -> None:
    world.nsenter("ip", "link", "delete", ports_of_bridge(world)[0])


def route_inside_removed(world: World) -> None:
    pid = world.pid("shop/web")
    world.nsenter("nsenter", "-t", str(pid), "-n", "ip", "route", "delete", "default")


def address_inside_removed(world: World) -> None:
    pid = world.pid("shop/web")
    world.nsenter("nsenter", "-t", str(pid), "-n", "ip", "address", "delete", "10.40.0.10/24", "dev", "eth0")


def tables_flushed(world: World) -> None:
    world.nsenter("nft", "flush", "ruleset")


def one_rule_removed(world: World) -> None:
    listed = world.nsenter("nft", "-a", "list", "ruleset").out
    table = chain = ""
    for line in listed.splitlines():
        if found := re.match(r"table (\w+ \S+) \{", line):
            table = found[1]
        if found := re.match(r"\s+chain (\S+) \{", line):
            chain = found[1]
        found = re.search(r"# handle (\d+)$", line)
        if found and chain and "dnat" in line:
            world.nsenter("nft", "delete", "rule", *table.split(), chain, "handle", found[1])
            return
    pytest.fail(listed)


def aardvark_killed(world: World) -> None:
    [pid] = [pid for pid, command in world.processes().items() if "aardvark-dns" in command]
    world.kill(pid)
    wait_until(lambda: pid not in world.processes(), "aardvark-dns has ended")


def names_removed(world: World) -> None:
    for folder, _, files in os.walk(f"/proc/{world.holder}/root/run/reconcile"):
        if folder.endswith("/names"):
            for file in files:
                if not file.endswith(".pid"):
                    os.unlink(os.path.join(folder, file))  # noqa: PTH108, PTH118  # through /proc/PID/root


IN_PLACE: list[Callable[[World], None]] = [
    port_off_the_bridge,
    link_down,
    bridge_removed,
    gateway_removed,
    veth_removed,
    route_inside_removed,
    address_inside_removed,
    tables_flushed,
    one_rule_removed,
    aardvark_killed,
    names_removed,
]


@pytest.mark.parametrize("harm", IN_PLACE, ids=lambda harm: harm.__name__)
def test_x9_drift_is_named_and_mended_with_the_same_pids(shop: World, harm: Callable[[World], None]):
    before = {name: shop.pid(f"shop/{name}") for name in ("web", "store")}
    harm(shop)
    drift = shop.run("drift", check=2)
    assert drift.out.strip()
    plan = shop.plan("stack.yaml")
    assert {action["reason"] for action in plan["actions"]} <= {"drifted", "gone-from-machine"}, plan
    assert plan["actions"]
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert {name: shop.pid(f"shop/{name}") for name in before} == before
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert "It works" in shop.run("exec", "store", "timeout", "3", "wget", "-q", "-O", "-", "http://www:8080/", check=0).out
    assert shop.run("drift").code == 0
    assert shop.plan("stack.yaml")["actions"] == []


def test_x9_dead_monitor_is_a_restart_in_the_plan_with_that_reason(shop: World):
    before = {name: shop.pid(f"shop/{name}") for name in ("web", "store")}
    monitors = [pid for pid, command in shop.processes().items() if "conmon" in command]
    assert len(monitors) == 2
    shop.kill(monitors[0])
    wait_until(lambda: monitors[0] not in shop.processes(), "the monitor is gone")
    [action] = shop.plan("stack.yaml")["actions"]
    assert (action["verb"], action["reason"]) == ("restart", "drifted")
    assert [change["path"] for change in action["changes"]] == ["/parts/monitor"]
    shop.run("apply", "stack.yaml", "--yes", check=0)
    same = [name for name, pid in before.items() if shop.pid(f"shop/{name}") == pid]
    assert len(same) == 1, "only the one without a monitor was restarted"
    assert shop.plan("stack.yaml")["actions"] == []


def test_x9_everything_killed_at_once_comes_back(shop: World):
    for pid in shop.processes():
        shop.kill(pid)
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert shop.plan("stack.yaml")["actions"] == []
    assert len(shop.run("exec", "store", "cat", "/data/starts", check=0).out.split()) >= 2


def test_x9_run_folder_unmounted_and_emptied_as_after_a_reboot(shop: World):
    for pid in shop.processes():
        shop.kill(pid)
    script = "for m in $(awk '{print $5}' /proc/self/mountinfo | grep -F /run/reconcile/ | sort -r); do umount -l $m; done"
    shop.nsenter("sh", "-c", f"{script}; rm -rf /run/reconcile/*")
    shop.nsenter(
        "sh",
        "-c",
        "for l in $(ls /sys/class/net); do [ $l = lo ] || ip link delete $l; done; nft flush ruleset",
        check=False,
    )
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert shop.record("shop/web")["status"]["addresses"] == {"front": ["10.40.0.10"]}
    assert shop.plan("stack.yaml")["actions"] == []
