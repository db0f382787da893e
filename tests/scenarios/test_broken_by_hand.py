"""What root does by hand beneath running containers: each harm is named, and one apply mends all of them, pids kept."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def shop(world: World) -> World:
    """The shop, with a secret and a limit for its web server."""
    stack = world.use("shop")
    world.edit(stack, "containers:\n", "secrets:\n  token: {env: TOKEN}\ncontainers:\n")
    world.edit(stack, "    image: web\n", "    image: web\n    secrets: [token]\n    resources: {memory: 64M}\n")
    world.env["TOKEN"] = "swordfish"
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


class Hand:
    """Where what is harmed lies."""

    def __init__(self, world: World, name: str = "shop/web") -> None:
        self.world = world
        [self.root_id] = world.root_ids()
        status = world.record(name)["status"]
        self.pid, self.incarnation = status["pid"], status["incarnation"]
        self.run = Path(f"/proc/{world.holder}/root/run/reconcile/{self.root_id}")
        self.bundle = self.run / "bundles" / self.incarnation

    def sh(self, script: str) -> None:
        """With $RUN, $BUNDLE, $INC and $PID, as seen in the world."""
        run, inc = f"/run/reconcile/{self.root_id}", self.incarnation
        names = f"ROOT={self.world.root} RUN={run} BUNDLE={run}/bundles/{inc} INC={inc} PID={self.pid}"
        self.world.nsenter("sh", "-ec", f"{names}\n{script}")


def pids(world: World) -> dict[str, int]:
    records = world.records("containers")
    return {name: records[f"container/shop/{name}/1"]["status"]["pid"] for name in ("web", "store")}


IN_PLACE = {
    "web/1  bundle: config.json": "echo nobody >$BUNDLE/config.json",
    "web/1  exit-command": "rm $BUNDLE/on-exit",
    "web/1  contents: /run/secrets/token": "for f in $BUNDLE/contents/*; do echo herring >$f; done",
    "web/1  limits/pids": "echo 7 >$(ls -d /sys/fs/cgroup/pids/reconcile-*/$INC /sys/fs/cgroup/reconcile-*/$INC "
    "2>/dev/null)/pids.max",
    "web/1  log": "rm -r $ROOT/containers/$INC/logs",
    "web/1  netns": "umount -l $RUN/netns/$INC",
    "mount: layers": "umount -l $(ls -d $RUN/layers/* | head -1)",
    "front  forwarding": "echo 0 >/proc/sys/net/ipv4/ip_forward",
    "front  ipv6": "for link in /proc/sys/net/ipv6/conf/b*; do echo 0 >$link/disable_ipv6; done",
    "front  rules": "nft flush chain inet $(nft list tables | sed -n 's/table inet //p') passing",
    "web/1  port/127.0.0.1:8080/tcp": "nft flush map inet $(nft list tables | sed -n 's/table inet //p') published",
    "link/front: hairpin on": "bridge link set dev $(ls /sys/class/net/b*/brif | head -1) hairpin off",
}


def test_x9_harm_of_twelve_kinds_at_once_is_named_part_by_part_and_mended_by_one_apply_with_the_same_pids(shop: World):
    before = pids(shop)
    hand = Hand(shop)
    for script in IN_PLACE.values():
        hand.sh(script)
    named = shop.run("drift", check=2).out
    missed = [part for part in IN_PLACE if part not in named]
    assert not missed, named
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert pids(shop) == before
    assert shop.run("drift", check=0).out == "no drift\n"
    assert shop.plan("stack.yaml")["actions"] == []
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert "It works" in shop.run("exec", "store", "timeout", "3", "wget", "-q", "-O", "-", "http://www:8080/", check=0).out
    assert shop.run("exec", "web", "cat", "/run/secrets/token", check=0).out == "swordfish"
    shop.run("exec", "web", "sh", "-c", "echo heard >/proc/1/fd/1", check=0)
    wait_until(lambda: "heard" in shop.run("logs", "web", check=0).out, "its log goes on")
    hand.sh("kill -KILL $PID")
    wait_until(lambda: shop.record("shop/web")["status"].get("restarts") == 1, "its exit command has started it again")


def test_what_a_container_writes_into_its_own_etc_is_no_drift_and_stays(shop: World):
    """As a VPN client does with its resolv.conf; a start gives it ours again."""
    shop.run(
        "exec", "store", "sh", "-c", "echo 203.0.113.7 vpn >>/etc/hosts; echo nameserver 203.0.113.7 >/etc/resolv.conf"
    )
    assert shop.run("drift", check=0).out == "no drift\n"
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert "vpn" in shop.run("exec", "store", "cat", "/etc/hosts", check=0).out
    shop.run("restart", "store", check=0)
    assert "203.0.113.7" not in shop.run("exec", "store", "cat", "/etc/hosts", "/etc/resolv.conf", check=0).out


BY_RESTART: dict[str, tuple[str, Callable[[World, Hand], object]]] = {
    "contents: /run/secrets/token as written → /run/secrets/token another file": (
        "a secret, as an editor saves it",
        lambda _, hand: hand.sh("for f in $BUNDLE/contents/*; do echo herring >$f~; mv $f~ $f; done"),
    ),
    "mount: folder upper there → folder upper missing": (
        "what it wrote",
        lambda world, hand: hand.sh(f"rm -r {world.root}/containers/$INC/upper"),
    ),
    "process: running → created": ("the record of its run", lambda _, hand: hand.sh("echo 7 >$BUNDLE/state.json")),
}


def test_x9_what_can_not_be_mended_beneath_a_process_restarts_that_one_alone_with_the_reason(shop: World):
    for named, (what, harm) in BY_RESTART.items():
        before = pids(shop)
        harm(shop, Hand(shop))
        assert shop.run("drift", check=2).out == f"container/shop/web/1  {named}  (apply: restart)\n", what
        shop.run("apply", "stack.yaml", "--yes", check=0)
        after = pids(shop)
        assert after["store"] == before["store"], what
        assert after["web"] != before["web"], what
        assert "It works" in shop.fetch("http://127.0.0.1:8080/"), what
    assert shop.run("drift", check=0).out == "no drift\n"
    assert shop.run("exec", "web", "cat", "/run/secrets/token", check=0).out == "swordfish"
    programs = [command for command in shop.processes().values() if "httpd" in command and "conmon" not in command]
    assert len(programs) == 2, "one init and one web server"


def test_x9_the_runtime_by_hand_pauses_kills_and_deletes_and_the_container_runs_on(shop: World):
    before = pids(shop)
    hand = Hand(shop)
    hand.sh("runc --root $RUN/runc pause $INC")
    assert "process: running → paused  (apply: update)" in shop.run("drift", check=2).out
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert pids(shop) == before
    for restarts, verb in enumerate(("kill $INC KILL", "delete --force $INC"), start=1):
        hand.sh(f"runc --root $RUN/runc {verb}")
        wait_until(lambda: shop.record("shop/web")["status"].get("restarts") == restarts, verb)  # noqa: B023
        wait_until(lambda: "It works" in shop.fetch("http://127.0.0.1:8080/"), "it serves")
        assert shop.run("drift", check=0).out == "no drift\n", verb
    assert shop.pid("shop/store") == before["store"]
    assert re.search(r"137 SIGKILL", shop.run("events").out)


def test_x9_a_root_that_lost_its_id_is_refused_with_the_way_back_and_nothing_is_made_twice(shop: World):
    before, processes = pids(shop), shop.processes()
    file = Path(f"/proc/{shop.holder}/root{shop.root}/id")
    file.unlink()
    for command in (["apply", "stack.yaml", "--yes"], ["drift"], ["delete", "shop", "--yes"]):
        refused = shop.run(*command)
        assert refused.code == 1, str(refused)
        assert "this root has lost its id" in refused.err
    assert shop.processes() == processes
    assert not file.exists()
    [way] = re.findall(r"`(touch .*)`", refused.err)
    shop.nsenter("sh", "-c", way)
    assert shop.run("drift", check=0).out == "no drift\n"
    assert pids(shop) == before
