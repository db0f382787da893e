"""A lost database, a lost key, a backup put back: what comes back of it, and what is said of the rest."""

import json
import os
import shutil
import subprocess
import sys
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


# ---------------------------------------------------------------- backup and restore


def fill(world: World) -> None:
    """Everything that a volume may hold."""
    script = """
    cd /data; mkdir -p deep/er; echo one >deep/er/file; ln deep/er/file hard; ln -s deep/er/file soft; ln -s /etc/passwd out
    mkfifo pipe; chown 82:83 deep; chmod 2750 deep; chmod 4711 hard; touch -d '2001-02-03 04:05:06' deep/er/file deep
    """
    world.run("exec", "store", "sh", "-ec", script, check=0)


def listing(world: World) -> str:
    script = "cd /data; find . | sort | while read f; do stat -c '%n %F %a %u %g %h %s %Y %N' $f; done"
    return world.run("exec", "store", "sh", "-c", script, check=0).out


def test_backup_while_everything_runs_and_restore_on_another_machine(shop: World, open_a_world: Any):
    fill(shop)
    shop.run("exec", "store", "touch", "/data/user-attribute", check=0)
    volume = shop.root / "volumes" / shop.records()["volume/shop/data"]["status"]["volume_id"]
    inside = Path(f"/proc/{shop.holder}/root{volume}/data/user-attribute")
    os.setxattr(inside, "user.note", b"\x00\xff binary")
    before, running, data = given(shop), pids(shop), listing(shop)
    result = shop.run("backup", "host.tar", "--volumes", check=0)
    assert "1 stack" in result.out
    assert "1 volume with data" in result.out
    archive = shop.folder / "host.tar"
    assert archive.stat().st_mode & 0o777 == 0o600
    assert b"planted-secret" not in archive.read_bytes()
    assert pids(shop) == running

    other = open_a_world("other")
    other.env["TOKEN"] = "planted-secret"
    shutil.copytree(shop.folder, other.folder, dirs_exist_ok=True, ignore=_all_but)
    result = other.run("restore", "host.tar", check=0)
    assert other.root_ids() != shop.root_ids()
    assert f"it was {shop.root_ids()[0]}" in result.out
    other.run("boot", check=0)
    after = given(other)
    for key in before:
        for name in ("incarnation", "addresses", "ports", "subnet", "volume_id", "image"):
            assert after[key][name] == before[key][name], (key, name)
    same = [line for line in data.splitlines() if not line.startswith(("./starts", ". "))]
    assert [line for line in listing(other).splitlines() if not line.startswith(("./starts", ". "))] == same
    volume = other.root / "volumes" / other.records()["volume/shop/data"]["status"]["volume_id"]
    inside = Path(f"/proc/{other.holder}/root{volume}/data/user-attribute")
    assert os.getxattr(inside, "user.note") == b"\x00\xff binary"
    assert "It works" in other.fetch("http://127.0.0.1:8080/")
    assert "planted-secret" in other.run("exec", "store", "env", check=0).out
    assert other.plan("stack.yaml", "--take-over")["actions"] == []
    assert len(other.run("history", "shop", "-o", "json", check=0).json()) == 1
    assert other.run("boot", check=0).out == "nothing to do\n"
    other.assert_nothing_left()


def _all_but(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name not in ("stack.yaml", "host.tar")]


def test_backup_through_a_pipe_and_beside_the_old_root(shop: World):
    shop.nsenter("sh", "-c", f"{sys.executable} -m reconciler.cli.main backup - --volumes 2>said >piped.tar")
    assert "1 volume with data" in (shop.folder / "said").read_text()
    place = str(shop.folder / "second")
    with (shop.folder / "piped.tar").open("rb") as archive:
        process = subprocess.run(
            [*shop.enter, sys.executable, "-m", "reconciler.cli.main", "restore", "-", "--root", place],
            stdin=archive, capture_output=True, env=shop.environment(), check=False,
        )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert b"still runs on this machine" in process.stdout
    # Both on one machine: the second meets what the first holds, and takes nothing from it.
    before = pids(shop)
    result = shop.run("--root", place, "boot", check=1)
    assert "overlap" in result.out + result.err or "10.40.0.0/24" in result.out + result.err
    assert pids(shop) == before
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    shop.run("--root", place, "delete", "shop", "--yes", "--volumes", check=0)


def test_restore_writes_over_nothing(shop: World):
    shop.run("backup", "host.tar", check=0)
    before = given(shop)
    assert "--root" in shop.run("restore", "host.tar", check=3).err
    assert given(shop) == before
    assert shop.run("restore", "none.tar", "--root", str(shop.folder / "new")).code == 64
    assert shop.run("backup", "none/host.tar", check=1).err
    assert shop.run("--root", str(shop.folder / "none"), "backup", "x.tar", check=1).err


def test_restored_records_without_volumes_do_not_start_on_empty_ones(shop: World):
    shop.run("backup", "host.tar", check=0)
    place = str(shop.folder / "second")
    shop.run("delete", "shop", "--yes", check=0)
    result = shop.run("restore", "host.tar", "--root", place, check=0)
    assert "volume/shop/data" in result.out
    assert "--accept-data-loss volume/shop/data" in shop.run("--root", place, "boot", check=1).out
    shop.run("--root", place, "boot", "--accept-data-loss", "volume/shop/data", check=0)
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    shop.run("--root", place, "delete", "shop", "--yes", "--volumes", check=0)


def test_configs_and_secrets_outlive_a_lost_database_and_a_reboot(world: World):
    (world.folder / "token.txt").write_text("planted-secret")
    box = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s"}
    world.write(
        {
            "apiVersion": "reconcile/v1",
            "name": "one",
            "configs": {"conf": {"content": "colour = red\n"}},
            "secrets": {"token": {"file": "./token.txt"}},
            "containers": {"it": {**box, "configs": [{"source": "conf", "target": "/etc/conf"}], "secrets": ["token"]}},
        }
    )
    world.run("apply", "stack.yaml", "--yes", check=0)
    (world.folder / "token.txt").unlink()
    world.reboot()
    lose(world)
    world.run("recover", check=0)
    world.run("boot", check=0)
    assert world.run("exec", "it", "cat", "/run/secrets/token", "/etc/conf", check=0).out == "planted-secretcolour = red\n"
    (world.folder / "token.txt").write_text("planted-secret")
    assert world.plan("stack.yaml")["actions"] == []
    for path in world.root.rglob("*"):
        assert not path.is_file() or b"planted-secret" not in path.read_bytes(), path
