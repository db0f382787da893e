"""What an operator does with data by accident, on the real kernel: volumes renamed, dropped, lost, left behind."""

from pathlib import Path
from typing import Any

import pytest

from lab.world import World

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"


def stack(volumes: dict[str, Any], *mounts: Any, name: str = "db", **fields: Any) -> dict[str, Any]:
    container = {"image": BOX, "command": ["pause"], "stop_grace": "0s", "mounts": list(mounts), **fields}
    return {"apiVersion": "reconcile/v1", "name": "data", "volumes": volumes, "containers": {name: container}}


def apply(world: World, manifest: dict[str, Any], *flags: str, code: int = 0) -> str:
    world.write(manifest)
    result = world.run("apply", "stack.yaml", "--yes", *flags, check=code)
    return result.out + result.err


@pytest.fixture
def filled(world: World) -> World:
    """A stack whose `db` has written a row into the volume `rows`."""
    apply(world, stack({"rows": {}}, "rows:/data"))
    world.run("exec", "db", "sh", "-c", "echo precious >/data/row", check=0)
    return world


def row(world: World, name: str = "db", path: str = "/data/row") -> str:
    return world.run("exec", name, "cat", path, check=0).out.strip()


def folders(world: World) -> list[Path]:
    return sorted((world.root / "volumes").iterdir())


def test_renamed_volume_is_refused_and_nothing_is_changed(filled: World):
    pid = filled.pid("data/db")
    said = apply(filled, stack({"store": {}}, "store:/data"), code=3)
    assert "moved: {from: rows}" in said
    assert "--accept-data-loss container/data/db/1" in said
    assert filled.run("plan", "stack.yaml").code == 3
    assert filled.pid("data/db") == pid
    assert row(filled) == "precious"
    assert len(folders(filled)) == 1


def test_moved_volume_keeps_its_data(filled: World):
    before = folders(filled)
    moved = stack({"store": {"moved": {"from": "rows"}}}, "store:/data")
    apply(filled, moved)
    assert folders(filled) == before
    assert row(filled) == "precious"
    assert set(filled.records("volumes")) == {"volume/data/store"}
    assert filled.plan("stack.yaml")["actions"] == []
    assert filled.run("drift").code == 0
    apply(filled, stack({"store": {}}, "store:/data"))
    assert row(filled) == "precious"


def test_move_that_was_killed_half_way_is_finished(filled: World):
    filled.write(stack({"store": {"moved": {"from": "rows"}}}, "store:/data", image="127.0.0.1:5000/nothing:1"))
    filled.run("apply", "stack.yaml", "--yes", check=1)
    # As after a kill between the record and the small file in the folder.
    apply(filled, stack({"store": {"moved": {"from": "rows"}}}, "store:/data"))
    assert row(filled) == "precious"
    (folder,) = folders(filled)
    file = folder / "volume.json"
    file.write_text(file.read_text().replace("/store", "/rows"))
    assert "key" in filled.run("drift").out
    apply(filled, stack({"store": {"moved": {"from": "rows"}}}, "store:/data"))
    assert "volume/data/store" in file.read_text()


def test_accepted_loss_goes_through_and_the_old_data_are_kept(filled: World):
    said = apply(filled, stack({"store": {}}, "store:/data"), "--accept-data-loss", "db")
    assert "no longer sees volume/data/rows at /data" in said
    assert filled.run("exec", "db", "ls", "/data", check=0).out == ""
    listed = filled.run("get", "volumes", check=0).out
    line = next(line for line in listed.splitlines() if " rows " in line)
    assert "unowned" in line
    assert "kB" in line, "its size is measured"
    assert "reconcile delete volume/data/rows" in listed
    assert "unowned" not in next(line for line in listed.splitlines() if " store " in line)
    filled.run("delete", "volume/data/rows", "--yes", check=0)
    assert set(filled.records("volumes")) == {"volume/data/store"}


def test_container_under_a_new_name_does_not_lose_the_volume_of_its_image(world: World):
    old = {"image": "127.0.0.1:5000/data:1", "stop_grace": "1s"}
    head = {"apiVersion": "reconcile/v1", "name": "data"}
    apply(world, {**head, "containers": {"db": old}})
    world.run("exec", "db", "sh", "-c", "echo precious >/data/row", check=0)
    said = apply(world, {**head, "containers": {"database": old}}, code=3)
    assert 'moved: {from: "db-1@/data"}' in said
    kept = {"volumes": {"rows": {"moved": {"from": "db-1@/data"}}}}
    apply(world, {**head, **kept, "containers": {"database": {**old, "mounts": ["rows:/data"]}}})
    assert row(world, "database") == "precious"


def test_volume_whose_disk_is_not_mounted_is_not_made_anew(filled: World):
    (folder,) = folders(filled)
    folder.rename(filled.folder / "away")
    said = apply(filled, stack({"rows": {}}, "rows:/data"), code=3)
    assert "its folder is gone" in said
    assert "--accept-data-loss volume/data/rows" in said
    drifted = filled.run("drift")
    assert drifted.code == 2
    assert "volume/data/rows  gone" in drifted.out
    assert folders(filled) == []
    (filled.folder / "away").rename(folder)
    apply(filled, stack({"rows": {}}, "rows:/data"))
    assert row(filled) == "precious"
    folder.rename(filled.folder / "away")
    apply(filled, stack({"rows": {}}, "rows:/data"), "--accept-data-loss", "volume/data/rows")
    assert len(folders(filled)) == 1


def test_volumes_of_a_deleted_stack_are_unowned(filled: World):
    filled.run("delete", "data", "--yes", check=0)
    assert filled.record("volume/data/rows")["status"]["unowned"] is True
    assert "unowned" in filled.run("get", check=0).out
    apply(filled, stack({"rows": {}}, "rows:/data"))
    assert "unowned" not in filled.run("get", check=0).out
    assert row(filled) == "precious"


def test_what_a_replace_discards_is_told_with_its_size(filled: World):
    filled.run("exec", "db", "dd", "if=/dev/zero", "of=/scratch", "bs=1M", "count=3", check=0)
    filled.write(stack({"rows": {}}, "rows:/data", env={"A": "1"}))
    (action,) = filled.plan("stack.yaml")["actions"]
    (note,) = action["notes"]
    assert note.startswith("discards its writable layer (3"), note
    assert "writable layer (3" in filled.run("delete", "data", "--yes", check=0).out
