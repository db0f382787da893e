"""A lost database, a lost key, a backup put back: what comes back of it, and what is said of the rest."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lab.world import World

pytestmark = pytest.mark.root


def lose(world: World) -> None:
    (world.root / "reconcile.db").unlink()


def pids(world: World) -> dict[str, int]:
    return {key: item["status"]["pid"] for key, item in world.records("containers").items()}


def given(world: World) -> dict[str, Any]:
    names = ("incarnation", "addresses", "ports", "link", "subnet", "volume_id", "image")
    return {key: {name: item["status"].get(name) for name in names} for key, item in world.records().items()}


@pytest.fixture
def shop(world: World) -> World:
    path = world.use("shop")
    world.edit(path, "COLOUR: red", "COLOUR: red, TOKEN: '${TOKEN}'")
    world.env["TOKEN"] = "planted-secret"
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def test_commands_on_a_root_without_its_database_name_recover(shop: World):
    lose(shop)
    for command in (("get",), ("apply", "stack.yaml", "--yes"), ("boot",)):
        assert "reconcile recover" in shop.run(*command, check=1).err
    shop.run("recover", check=0)


def test_recovery_keeps_what_runs_and_plans_nothing(shop: World):
    shop.run("exec", "store", "touch", "/data/kept", check=0)
    running, before = pids(shop), given(shop)
    lose(shop)
    result = shop.run("recover", check=0)
    assert "recovered 2 images, 1 network, 1 volume, 2 containers; 2 running" in result.out
    assert "origin" in result.out
    assert pids(shop) == running
    assert given(shop) == before
    assert shop.plan("stack.yaml", "--take-over")["actions"] == []
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert pids(shop) == running
    assert shop.run("exec", "store", "ls", "/data", check=0).out.split() == ["kept", "starts"]
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_recovery_works_after_a_reboot_and_knows_sealed_values(shop: World):
    shop.run("stop", "web", check=0)
    before = given(shop)
    shop.reboot()
    lose(shop)
    shop.run("recover", check=0)
    assert shop.record("shop/web")["status"]["held"]["kind"] == "stop"
    assert given(shop) == before
    shop.run("boot", check=0)
    assert "planted-secret" in shop.run("exec", "store", "env", check=0).out
    assert shop.plan("stack.yaml")["actions"] == []
    for path in shop.root.rglob("*"):
        assert not path.is_file() or b"planted-secret" not in path.read_bytes(), path


def test_recovery_refuses_where_there_is_a_database(shop: World):
    before = pids(shop)
    result = shop.run("recover", check=3)
    assert "mv " in result.err
    assert pids(shop) == before
    assert "id" in shop.run("--root", str(shop.folder / "none"), "recover", check=1).err


def test_recovery_takes_a_damaged_database_s_place_without_its_log(shop: World):
    before = given(shop)
    database = shop.root / "reconcile.db"
    database.rename(shop.root / "reconcile.db.damaged")
    (shop.root / "reconcile.db-wal").write_bytes(b"of another file")
    shop.run("recover", check=0)
    assert given(shop) == before
    assert (shop.root / "reconcile.db-wal.lost").read_bytes() == b"of another file"


def test_recovery_without_the_key_says_which_values_are_lost(shop: World):
    running = pids(shop)
    lose(shop)
    (shop.root / "key").unlink()
    result = shop.run("recover", "-o", "json", check=0).json()
    assert any("sensitive" in problem for problem in result["problems"])
    assert "planted" not in json.dumps(result)
    assert pids(shop) == running
    plan = shop.plan("stack.yaml")
    assert [action["key"] for action in plan["actions"]] == ["container/shop/store/1"]
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert "planted-secret" in shop.run("exec", "store", "env", check=0).out


def test_what_does_not_say_what_it_is_is_named_before_it_goes(shop: World):
    incarnation = shop.record("shop/web")["status"]["incarnation"]
    (shop.root / "containers" / incarnation / "record.json").write_bytes(b"")
    lose(shop)
    result = shop.run("recover", check=0)
    assert incarnation in result.out
    assert "the next apply removes it" in result.out
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert shop.record("shop/web")["status"]["incarnation"] != incarnation
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_files_that_lie_about_themselves_are_not_believed(shop: World):
    """A copied folder, and one of another root."""
    containers = shop.root / "containers"
    incarnation = shop.record("shop/web")["status"]["incarnation"]
    shutil.copytree(containers / incarnation, containers / "0123456789ab", symlinks=True, ignore=_only_record)
    lose(shop)
    result = shop.run("recover", check=0)
    assert "it says that it is another" in result.out
    assert len(pids(shop)) == 2


def _only_record(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name != "record.json"] if Path(folder).name != "0123456789ab" else []
