"""Lock files against a real registry: tags that move, digests that go, a registry that is down."""

import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from lab import images as lab
from lab.world import World

pytestmark = pytest.mark.root


@pytest.fixture
def repository(tmp_path: Path, world: World) -> str:
    """A repository that no other world touches: the storage is shared."""
    name = "lock" + "".join(letter for letter in tmp_path.name.lower() if letter.isalnum())
    move(world, name, "busybox:1")
    return name


def move(world: World, repository: str, image: str) -> str:
    """Let the tag `1` name an index over an image of this platform and one of another."""
    found = lab.lab_images()
    with world.network():
        return lab.push_index("http://127.0.0.1:5000", f"{repository}:1", [found["foreign:1"], found[image]])


def put(world: World, repository: str, **more: Any) -> None:
    image = {"from": f"127.0.0.1:5000/{repository}:1", **more}
    web = {"image": "app", "command": ["pause"], "stop_grace": "0s"}
    world.write({"apiVersion": "reconcile/v1", "name": "blog", "images": {"app": image}, "containers": {"web": web}})


def test_tag_that_moves_changes_nothing_until_the_lock_does(world: World, repository: str):
    put(world, repository, pull="always")
    world.run("lock", "stack.yaml", check=0)
    world.run("apply", "stack.yaml", "--yes", check=0)
    pid = world.pid("blog/web")
    moved = move(world, repository, "web:2")
    assert world.run("apply", "stack.yaml", check=0).out == "nothing to do\n"
    out = world.run("plan", "stack.yaml", check=0).out
    assert f"the tag has moved since it was locked: {out.split('locked: ')[1][:19]} → {moved[:19]}" in out
    assert world.run("plan", "stack.yaml", "--offline", check=0).out == "nothing to do\n"
    assert "moved" in world.run("lock", "--update", "app", "stack.yaml", check=0).out
    assert moved in (world.folder / "stack.yaml.lock").read_text()
    assert "/image" in world.run("plan", "stack.yaml", check=2).out
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.pid("blog/web") != pid


def test_registry_that_is_down_is_not_missed(world: World, repository: str):
    put(world, repository, pull="always")
    world.run("lock", "stack.yaml", check=0)
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.registry is not None
    world.signal(world.registry.process)
    for command in (["apply", "stack.yaml"], ["plan", "stack.yaml"]):
        assert world.run(*command, check=0).out == "nothing to do\n"
    assert world.run("lock", "stack.yaml", check=0).out.count("kept") == 1
    assert world.run("lock", "stack.yaml", "--update").code == 1


def test_digest_that_is_gone_is_an_error_that_names_the_way_out(world: World, repository: str):
    put(world, repository)
    world.run("lock", "stack.yaml", check=0)
    digest = (world.folder / "stack.yaml.lock").read_text().split()[-1]
    with world.network():
        url = f"http://127.0.0.1:5000/v2/{repository}/manifests/{digest}"
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=10).close()
    moved = move(world, repository, "web:2")
    said = world.run("apply", "stack.yaml", "--yes", check=1).err
    assert "no such image" in said
    assert f"`reconcile lock --update 127.0.0.1:5000/{repository}:1 stack.yaml`" in said
    assert world.records() == {}
    world.run("lock", "--update", f"127.0.0.1:5000/{repository}:1", "stack.yaml", check=0)
    assert moved in (world.folder / "stack.yaml.lock").read_text()
    world.run("apply", "stack.yaml", "--yes", check=0)


def test_file_is_its_manifests_owners_and_readable(world: World, repository: str):
    put(world, repository)
    manifest = world.folder / "stack.yaml"

    os.chown(manifest, 1234, 1234)
    world.run("lock", "stack.yaml", check=0)
    found = (world.folder / "stack.yaml.lock").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1234, 0o644)
    assert sorted(path.name for path in world.folder.glob("*stack.yaml*")) == ["stack.yaml", "stack.yaml.lock"]


def test_damaged_file_is_a_bad_manifest_for_every_verb(world: World, repository: str):
    put(world, repository)
    (world.folder / "stack.yaml.lock").write_text("locked: []\n")
    for command in (["validate"], ["plan"], ["apply", "--yes"], ["lock"]):
        assert "stack.yaml.lock:1:1" in world.run(*command, "stack.yaml", check=65).err
