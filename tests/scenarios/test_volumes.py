"""Volumes, binds and memory: what is copied, what is kept, what may be written."""

import os
import shutil

import pytest

from lab.world import World

pytestmark = pytest.mark.root


@pytest.fixture
def keep(world: World) -> World:
    world.use("volumes")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def sh(world: World, name: str, script: str) -> str:
    return world.run("exec", name, "sh", "-c", script, check=0).out.strip()


def test_first_use_copies_what_the_image_has_with_owners_and_modes(keep: World):
    assert sh(keep, "copied", "cat /data/seed") == "from the image"
    assert sh(keep, "copied", "stat -c '%u %g %a' /data /data/seed") == "82 82 750\n82 82 640"
    assert sh(keep, "copied", "readlink /data/deep/link") == "../seed"
    assert sh(keep, "other", "cat /seen/seed") == "from the image"


def test_copy_happens_once(keep: World):
    sh(keep, "copied", "rm /data/seed; echo mine >/data/own")
    keep.edit(keep.folder / "stack.yaml", "volumes:", "x-note: changed\nvolumes:")
    keep.edit(keep.folder / "stack.yaml", "command: [pause]", "command: [pause, again]")
    keep.edit(keep.folder / "stack.yaml", '    mounts: ["seeded:/data"]', '    env: {A: "1"}\n    mounts: ["seeded:/data"]')
    keep.run("apply", "stack.yaml", "--yes", check=0)
    assert sh(keep, "copied", "ls /data") == "deep\nown"


def test_volume_of_the_image_is_named_in_the_plan_and_kept(world: World):
    world.use("volumes")
    plan = world.plan("stack.yaml")
    implied = [action["key"] for action in plan["actions"] if action["key"].startswith("volume/")]
    assert len(implied) == 3, implied
    world.run("apply", "stack.yaml", "--yes", check=0)
    sh(world, "implied", "echo mine >/data/own")
    world.run("delete", "keep", "--yes", check=0)
    assert len(world.records("volumes")) == 3
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert sh(world, "implied", "cat /data/own") == "mine"


def test_binds_show_the_host_and_read_only_means_it(keep: World):
    assert sh(keep, "other", "cat /conf/app.conf") == "from the host"
    for target in ("/conf/x", "/seen/x"):
        assert keep.run("exec", "other", "touch", target).code != 0
    assert not (keep.folder / "conf/x").exists()


def test_memory_has_its_size_and_mode(keep: World):
    assert sh(keep, "other", "stat -c '%a' /scratch; df -k /scratch | awk 'NR == 2 {print $2}'") == "750\n1024"
    assert keep.run("exec", "other", "dd", "if=/dev/zero", "of=/scratch/x", "bs=1M", "count=2").code != 0


def test_missing_file_beside_the_manifest_is_an_error_of_it_and_nothing_is_made(world: World):
    world.use("volumes")
    shutil.rmtree(world.folder / "conf")
    result = world.run("apply", "stack.yaml", "--yes", check=65)
    assert f"{world.folder}/conf" in result.out + result.err
    assert "container/keep/other/1" not in world.records()


def test_one_volume_goes_when_it_is_named(keep: World):
    sh(keep, "other", "echo kept >/notes/a")
    keep.run("delete", "keep", "--volume", "seeded", "--yes", check=0)
    volumes = keep.records("volumes")
    assert "volume/keep/seeded" not in volumes
    assert "volume/keep/notes" in volumes


def test_nobody_else_on_the_host_looks_into_the_root(keep: World):
    assert keep.root.stat().st_mode & 0o077 == 0
    for folder, _, _ in os.walk(keep.root / "volumes"):
        assert not folder.endswith(("seeded", "notes")), "folders bear generated ids, not names"
        break
    names = [path.name for path in (keep.root / "volumes").iterdir()]
    assert len(names) == 3
    assert not {"seeded", "notes"} & set(names)
