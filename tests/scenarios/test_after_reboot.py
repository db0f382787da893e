"""After a reboot: as recorded, in order, with the same addresses; nothing from before it is believed."""

import json
import shutil
import signal
from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"


def stack(name: str = "one", **containers: dict[str, Any]) -> dict[str, Any]:
    each = {key: {"image": BOX, "command": ["pause"], "stop_grace": "1s", **spec} for key, spec in containers.items()}
    return {"apiVersion": "reconcile/v1", "name": name, "containers": each}


def given(world: World) -> dict[str, Any]:
    """What each container was given: incarnation, addresses, ports."""
    names = ("incarnation", "addresses", "ports")
    return {key: {name: item["status"][name] for name in names} for key, item in world.records("containers").items()}


def macs(world: World, name: str) -> str:
    return world.run("exec", name, "cat", "/sys/class/net/eth0/address", check=0).out


@pytest.fixture
def shop(world: World) -> World:
    world.use("shop")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def test_x2_everything_comes_back_with_its_addresses_data_and_writable_layer(shop: World):
    shop.run("exec", "store", "touch", "/mark", check=0)
    before, mac = given(shop), macs(shop, "web")
    shop.reboot()
    assert shop.records("containers")["container/shop/web/1"]["status"]["phase"] == "missing"
    assert shop.registry
    shop.signal(shop.registry.process)
    shop.registry.process.wait(10)
    shop.registry = None
    result = shop.run("boot", check=0)
    assert "create   container/shop/web/1" in result.out
    assert given(shop) == before
    assert macs(shop, "web") == mac
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    shop.run("exec", "store", "ls", "/mark", check=0)
    assert len(shop.run("exec", "store", "cat", "/data/starts", check=0).out.split()) == 2
    assert shop.plan("stack.yaml", "--offline")["actions"] == []
    began = {name: shop.record(f"shop/{name}")["status"]["started_at"] for name in ("store", "web")}
    assert began["store"] < began["web"], "in the order of dependencies"


def test_boot_on_a_system_that_runs_does_nothing(shop: World):
    pids = {name: shop.pid(f"shop/{name}") for name in ("store", "web")}
    assert "nothing to do" in shop.run("boot", check=0).out
    assert {name: shop.pid(f"shop/{name}") for name in ("store", "web")} == pids
    monitor = next(pid for pid, command in shop.processes().items() if command.startswith("/usr/bin/conmon"))
    shop.kill(monitor)
    assert shop.run("drift").code == 2
    shop.run("boot", check=0)
    assert {name: shop.pid(f"shop/{name}") for name in ("store", "web")} == pids, "what runs is left alone"


def test_boot_mends_what_is_missing_around_what_runs(shop: World):
    pids = {name: shop.pid(f"shop/{name}") for name in ("store", "web")}
    shop.nsenter("nft", "flush", "ruleset")
    shop.run("boot", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert {name: shop.pid(f"shop/{name}") for name in ("store", "web")} == pids


def test_apply_that_comes_first_after_a_reboot_does_the_same(shop: World):
    before = given(shop)
    shop.reboot()
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert given(shop) == before
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert "nothing to do" in shop.run("boot", check=0).out


def test_stop_outlives_a_reboot_and_start_ends_it(shop: World):
    shop.run("stop", "web", "--note", "for the night", check=0)
    address = given(shop)["container/shop/web/1"]["addresses"]
    shop.reboot()
    assert "for the night" in shop.run("boot", check=0).out
    status = shop.record("shop/web")["status"]
    assert status["phase"] == "exited"
    assert status["held"]["kind"] == "stop"
    assert shop.fetch("http://127.0.0.1:8080/") == ""
    assert shop.pid("shop/store")
    assert "nothing to do" in shop.run("boot", check=0).out
    shop.run("start", "web", check=0)
    assert given(shop)["container/shop/web/1"]["addresses"] == address
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_stack_that_is_held_stays_held(shop: World):
    shop.run("stop", "shop", check=0)
    shop.reboot()
    shop.run("boot", check=0)
    assert {item["status"]["phase"] for item in shop.records("containers").values()} == {"exited"}
    shop.run("apply", "stack.yaml", "--yes", "--resume", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_what_ended_and_is_to_rest_stays_ended(world: World):
    """Also where nobody looked between the exit and the reboot: its end is kept under the root."""
    script = ["sh", "-c", "echo x >>/count; [ -e /go ] || exec pause; exit $(cat /go)"]
    world.write(
        stack(
            no={"command": ["sh", "-c", "echo x >>/count; sleep 0.3; exit 3"], "restart": "no"},
            done={"command": ["sh", "-c", "echo x >>/count; sleep 0.3"], "restart": "on-failure"},
            lost={"command": ["sh", "-c", "echo x >>/count; sleep 0.3; exit 4"], "restart": "on-failure:1"},
            cut={"command": script, "restart": "no"},
            steady={"command": script},
        )
    )
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    ends = world.root / "containers"
    wait_until(lambda: len(list(ends.glob("*/ended.json"))) == 3, "three ends are kept", seconds=20)
    world.reboot()
    phases = {key.split("/")[2]: item["status"]["phase"] for key, item in world.records("containers").items()}
    assert phases == {"no": "exited", "done": "exited", "lost": "exited", "cut": "missing", "steady": "missing"}
    world.run("boot", check=0)
    after = {key.split("/")[2]: item["status"] for key, item in world.records("containers").items()}
    assert {name: status["phase"] for name, status in after.items()} == {
        "no": "exited", "done": "exited", "lost": "exited", "cut": "running", "steady": "running",
    }  # fmt: skip
    assert (after["no"]["exit_code"], after["done"]["exit_code"], after["lost"]["gave_up"]) == (3, 0, True)
    assert world.plan("stack.yaml")["actions"] == []
    world.run("start", "no", check=0)
    wait_until(lambda: world.record("one/no")["status"]["phase"] == "exited", "it ran again and ended")
    incarnation = world.record("one/no")["status"]["incarnation"]
    assert (ends / incarnation / "upper/count").read_text() == "x\nx\n"


def test_dependants_wait_for_health_after_a_reboot(world: World):
    check = {"test": ["CMD", "test", "-e", "/ready"], "interval": "100ms", "start_period": "30s", "start_interval": "100ms"}
    first = {"command": ["sh", "-c", "rm -f /ready; sleep 1; touch /ready; exec pause"], "healthcheck": check}
    world.write(stack(first=first, then={"depends_on": {"first": "healthy"}}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.reboot()
    world.run("boot", "--no-wait", check=0)
    began = {name: world.record(f"one/{name}")["status"]["started_at"] for name in ("first", "then")}
    assert began["then"] - began["first"] > 0.9


def test_replace_that_a_power_cut_ended_is_taken_up(shop: World):
    shop.edit(shop.folder / "stack.yaml", "COLOUR: red", "COLOUR: blue")
    process = shop.popen("apply", "stack.yaml", "--yes")
    wait_until(lambda: len(list((shop.root / "containers").iterdir())) > 2, "the new incarnation is being made")
    shop.signal(process, signal.SIGKILL)
    process.communicate()
    shop.reboot()
    shop.run("boot", check=0)
    assert len(list((shop.root / "containers").iterdir())) == 2
    assert shop.run("exec", "store", "env", check=0).out.count("COLOUR=") == 1
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert "COLOUR=blue" in shop.run("exec", "store", "env", check=0).out


def test_failed_start_after_a_reboot_keeps_what_the_container_wrote(world: World):
    (world.folder / "conf").mkdir()
    world.write(stack(it={"mounts": ["./conf:/conf"]}, other={"depends_on": {"it": "started"}}, free={}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.run("exec", "it", "touch", "/mark", check=0)
    world.reboot()
    (world.folder / "conf").rename(world.folder / "away")
    result = world.run("boot", check=1)
    assert "conf" in result.out + result.err
    assert "reconcile boot" in result.err
    assert world.pid("one/free"), "the others run"
    (world.folder / "away").rename(world.folder / "conf")
    world.run("boot", check=0)
    world.run("exec", "it", "ls", "/mark", check=0)
    assert world.pid("one/other")


def test_volume_whose_data_is_gone_is_not_made_anew_by_itself(shop: World):
    volumes = shop.root / "volumes"
    shop.reboot()
    volumes.rename(shop.root / "elsewhere")
    result = shop.run("boot", check=1)
    assert "--accept-data-loss volume/shop/data" in result.out + result.err
    assert not volumes.exists()
    assert shop.record("shop/store")["status"]["phase"] == "missing"
    (shop.root / "elsewhere").rename(volumes)
    shop.run("boot", check=0)
    assert len(shop.run("exec", "store", "cat", "/data/starts", check=0).out.split()) == 2
    shop.reboot()
    shutil.rmtree(volumes)
    shop.run("boot", "--accept-data-loss", "volume/shop/data", check=0)
    assert len(shop.run("exec", "store", "cat", "/data/starts", check=0).out.split()) == 1


def test_x2_layers_that_the_disk_did_not_get_are_pulled_again_by_their_digest(shop: World):
    shop.reboot()
    layer = max((shop.root / "layers").glob("*.squashfs"), default=None, key=lambda path: path.stat().st_size)
    layer = layer or max((shop.root / "layers").glob("*.erofs"), key=lambda path: path.stat().st_size)
    with layer.open("r+b") as file:  # in place: the size and the inode say nothing
        file.seek(4096)
        file.write(bytes(4096))
    shop.run("boot", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


UNSYNCED = (
    "content/sha256/*",
    "layers/*",
    "images/*.json",
    "containers/*/record.json",
    "networks/*.json",
    "locks/*",
    "serial",
)


def test_x2_files_that_a_power_cut_left_empty_are_made_anew(shop: World):
    """What ext4 makes of a new file that was renamed and not synced: its name is there, and nothing in it."""
    shop.run("pull", "127.0.0.1:5000/web:2", check=0)
    shop.reboot()
    files = [path for pattern in UNSYNCED for path in shop.root.glob(pattern) if path.is_file()]
    for path in files:
        path.write_bytes(b"")
    assert len(files) > 20
    shop.run("boot", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    assert shop.plan("stack.yaml")["actions"] == []
    shop.run("images", "prune", check=0)
    shop.run("pull", "127.0.0.1:5000/web:2", check=0)
    assert "web:2" in shop.run("images", "ls", check=0).out


def test_x2_run_directory_of_another_boot_is_not_believed(shop: World):
    """Should it ever survive: pids, monitors and policies in it mean nothing."""
    pids = {name: shop.pid(f"shop/{name}") for name in ("store", "web")}
    shop.new_boot_id()
    shop.run("boot", check=0)
    assert {name: shop.pid(f"shop/{name}") for name in ("store", "web")} != pids
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_boot_says_what_it_does_in_json_and_nothing_on_an_empty_root(shop: World):
    assert shop.run("--root", str(shop.folder / "none"), "boot", check=0).out == "nothing to do\n"
    assert not (shop.folder / "none").exists()
    shop.reboot()
    lines = [json.loads(line) for line in shop.run("boot", "-o", "json", check=0).out.splitlines()]
    assert lines[0]["event"] == "plan"
    assert sum(line["event"] == "done" for line in lines) == 3


def test_finished_job_is_not_run_again_and_one_that_was_cut_short_is(world: World):
    base = {"image": BOX, "stop_grace": "1s", "job": True}
    done = {**base, "command": ["sh", "-c", "echo x >>/data/done"], "mounts": ["data:/data"]}
    cut = {**base, "command": ["sh", "-c", "echo x >>/data/cut; [ -e /data/go ] || exec pause"], "mounts": ["data:/data"]}
    web = {"depends_on": {"done": "completed"}}
    made = stack(web=web)
    made["containers"] |= {"done": done, "cut": cut}
    world.write({**made, "volumes": {"data": {"access": "shared"}}})
    world.run("apply", "stack.yaml", "--yes", "--no-wait", check=0)
    (data,) = (world.root / "volumes").glob("*/data")
    wait_until(lambda: (data / "cut").exists() and world.record("one/web")["status"]["phase"] == "running", "all began")
    world.reboot()
    (data / "go").touch()
    world.run("boot", check=0)
    assert world.pid("one/web")
    assert (data / "done").read_text() == "x\n"
    wait_until(lambda: (data / "cut").read_text() == "x\nx\n", "it ran again")
    wait_until(lambda: world.plan("stack.yaml")["actions"] == [], "nothing is left to do", lambda: world.plan("stack.yaml"))
