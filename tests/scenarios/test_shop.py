"""The main job, from text to running containers and back, on the real kernel."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from lab.images import lab_images
from lab.world import World, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def shop(world: World) -> Path:
    path = world.use("shop")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return path


def by_key(plan: dict[str, Any]) -> dict[str, Any]:
    return {action["key"]: action for action in plan["actions"]}


def test_plan_changes_nothing_and_names_every_creation(world: World):
    world.use("shop")
    plan = world.plan("stack.yaml")
    assert {action["verb"] for action in plan["actions"]} == {"create"}
    assert set(by_key(plan)) == {
        "image/shop/web",
        "image/shop/box",
        "network/shop/front",
        "volume/shop/data",
        "container/shop/store/1",
        "container/shop/web/1",
    }
    assert not world.root.exists()
    assert world.run("apply", "stack.yaml", "--dry-run").code == 2
    assert not world.root.exists()


def test_apply_serves_the_page_and_then_has_nothing_to_do(world: World, shop: Path):
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    assert "It works" in world.fetch("http://10.40.0.10:8080/")
    before = {name: world.pid(f"shop/{name}") for name in ("web", "store")}
    assert world.plan("stack.yaml")["actions"] == []
    world.run("apply", "stack.yaml", check=0)
    assert {name: world.pid(f"shop/{name}") for name in before} == before
    assert world.run("drift").code == 0


def test_records_say_what_runs_by_digest_and_address(world: World, shop: Path):
    web = world.record("shop/web")
    assert web["status"]["image"] == lab_images()["web:1"].manifest().digest
    assert web["status"]["addresses"] == {"front": ["10.40.0.10"]}
    assert web["status"]["restarts"] == 0
    assert (web["kind"], web["stack"], web["name"], web["index"]) == ("container", "shop", "web", 1)


def test_changed_field_replaces_only_its_container(world: World, shop: Path):
    web, store = world.pid("shop/web"), world.pid("shop/store")
    world.edit(shop, "COLOUR: red", "COLOUR: blue")
    plan = world.plan("stack.yaml")
    [action] = plan["actions"]
    assert (action["verb"], action["key"], action["reason"]) == ("replace", "container/shop/store/1", "field-changed")
    assert action["changes"] == [{"path": "/env/COLOUR", "from": "red", "to": "blue", "effect": "replace"}]
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.pid("shop/web") == web
    assert world.pid("shop/store") != store
    assert "blue" in world.run("exec", "store", "env", check=0).out


def test_changed_image_replaces_its_container_and_shows_the_new_page(world: World, shop: Path):
    store = world.pid("shop/store")
    world.edit(shop, "/web:1", "/web:2")
    actions = by_key(world.plan("stack.yaml"))
    assert actions["container/shop/web/1"]["verb"] == "replace"
    assert "container/shop/store/1" not in actions
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert "second edition" in world.fetch("http://127.0.0.1:8080/")
    assert world.pid("shop/store") == store


def test_failed_replace_leaves_the_old_container_running(world: World, shop: Path):
    web = world.pid("shop/web")
    world.edit(shop, "/web:1", "/badcmd:1")
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "/no/such/program" in result.err + result.out, str(result)
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    assert world.pid("shop/web") != 0
    world.edit(shop, "/badcmd:1", "/web:1")
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.plan("stack.yaml")["actions"] == []
    assert web  # it may have been started again, so its pid is not compared


def test_killed_container_is_back_without_any_daemon(world: World, shop: Path):
    web = world.pid("shop/web")
    world.run("kill", "web", check=0)
    wait_until(lambda: "It works" in world.fetch("http://127.0.0.1:8080/"), "the page is back")
    status = world.record("shop/web")["status"]
    assert (status["phase"], status["restarts"]) == ("running", 1)
    assert status["pid"] != web
    assert world.plan("stack.yaml")["actions"] == []
    assert "137" in world.run("events", check=0).out


def test_what_leaves_the_manifest_is_deleted_and_its_volume_kept(world: World, shop: Path):
    web = world.pid("shop/web")
    text = shop.read_text()
    head, _, rest = text.partition("volumes:")
    shop.write_text(
        head + "containers:\n  web:" + rest.partition("  web:")[2].replace("    depends_on: {store: started}\n", "")
    )
    assert world.run("apply", "stack.yaml").code == 3
    plan = by_key(world.plan("stack.yaml"))
    assert plan["container/shop/store/1"]["verb"] == "delete"
    assert "volume/shop/data" not in plan
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.pid("shop/web") == web
    assert "container/shop/store/1" not in world.records()
    assert "volume/shop/data" in world.records()


def test_delete_leaves_the_volume_and_the_next_apply_finds_its_data(world: World, shop: Path):
    world.run("delete", "shop", "--yes", check=0)
    assert set(world.records()) == {"volume/shop/data"}
    assert world.fetch("http://127.0.0.1:8080/") == ""
    assert [line for line in world.leftovers() if line.split()[0] not in ("run", "mount")] == []
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert len(world.run("exec", "store", "cat", "/data/starts", check=0).out.split()) == 2


def test_delete_with_volumes_takes_them_and_says_how_large_they_are(world: World, shop: Path):
    refused = world.run("delete", "shop", "--volumes", check=3)
    assert "shop" in refused.err
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    result = world.run("delete", "shop", "--volumes", "--yes", check=0)
    assert "data" in result.out + result.err
    assert world.records() == {}
    assert list((world.root / "volumes").iterdir()) == []


def test_second_stack_of_the_same_name_from_elsewhere_is_refused(world: World, shop: Path):
    other = world.write(shop.read_text(), "other/stack.yaml")
    result = world.run("apply", str(other), "--yes", check=3)
    assert "stack.yaml" in result.err
    assert "--take-over" in result.err
    world.run("apply", str(other), "--yes", "--take-over", check=0)
    assert world.run("plan", str(other)).code == 0


def test_saved_plan_is_applied_and_refused_once_it_is_stale(world: World, shop: Path):
    world.edit(shop, "COLOUR: red", "COLOUR: blue")
    world.run("plan", "stack.yaml", "--out", "saved.plan", check=2)
    world.run("apply", "saved.plan", "--yes", check=0)
    assert "blue" in world.run("exec", "store", "env", check=0).out
    stale = world.run("apply", "saved.plan", "--yes", check=3)
    assert "stale" in stale.err


def test_apply_killed_at_any_moment_is_finished_by_the_next_one(world: World):
    world.use("shop")
    for delay in (0.15, 0.35, 0.55, 0.8):
        process = world.popen("apply", "stack.yaml", "--yes", "--no-wait")
        try:
            process.wait(delay)
        except Exception:  # noqa: BLE001  # subprocess.TimeoutExpired: it is still at work, as wanted
            world.signal(process, signal.SIGKILL)
        process.communicate()
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.plan("stack.yaml")["actions"] == []
    assert "It works" in world.fetch("http://127.0.0.1:8080/")


def test_plan_and_get_answer_in_json_that_their_schemas_allow(world: World, shop: Path):
    jsonschema = pytest.importorskip("jsonschema")
    schemas = Path(__file__).resolve().parents[2] / "schemas"
    world.edit(shop, "COLOUR: red", "COLOUR: blue")
    plan = world.run("plan", "stack.yaml", "-o", "json", check=2)
    got = world.run("get", "-o", "json", check=0)
    for name, result in (("plan", plan), ("get", got)):
        jsonschema.validate(result.json(), json.loads((schemas / f"{name}.schema.json").read_text()))
