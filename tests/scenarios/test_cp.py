"""`cp` both ways on real containers: rules, mounts, links that mean harm, tar streams."""

import io
import tarfile
from typing import Any

import pytest

from lab.world import World

pytestmark = pytest.mark.root

BOX = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "0s"}


@pytest.fixture
def box(world: World) -> World:
    it: dict[str, Any] = {**BOX, "mounts": ["data:/data", {"type": "tmpfs", "target": "/memory"}]}
    world.write({"apiVersion": "reconcile/v1", "name": "one", "volumes": {"data": {}}, "containers": {"it": it}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def sh(world: World, script: str) -> str:
    return world.run("exec", "it", "sh", "-c", script, check=0).out


def test_out_and_in_with_volumes_and_tmpfs(box: World):
    sh(
        box,
        "mkdir -p /srv/a/b; echo one >/srv/a/b/file; echo two >/data/two; echo three >/memory/three; chown -R 82:82 /srv",
    )
    box.run("cp", "it:/srv/a", "copied", check=0)
    assert (box.folder / "copied/b/file").read_text() == "one\n"
    assert (box.folder / "copied/b/file").stat().st_uid == 0
    box.run("cp", "it:/srv/a", ".", check=0)
    box.run("cp", "-a", "it:/srv/a/.", "copied", check=0)
    assert (box.folder / "a/b/file").exists()
    assert (box.folder / "copied/b/file").stat().st_uid == 82
    box.run("cp", "it:/data/two", "here", check=0)
    box.run("cp", "it:/memory/three", ".", check=0)
    assert ((box.folder / "here").read_text(), (box.folder / "three").read_text()) == ("two\n", "three\n")
    box.run("cp", "copied", "it:/memory/in", check=0)
    box.run("cp", "here", "it:/data", check=0)
    assert sh(box, "cat /memory/in/b/file /data/here; stat -c %u:%g /memory/in/b/file") == "one\ntwo\n0:0\n"
    box.run("pause", "it", check=0)
    box.run("cp", "here", "it:/tmp/paused", check=0)
    box.run("unpause", "it", check=0)
    assert sh(box, "cat /tmp/paused") == "two\n"


def test_stopped_container_and_its_mounts(box: World):
    sh(box, "echo kept >/file")
    box.run("stop", "it", check=0)
    box.run("cp", "it:/file", "out", check=0)
    assert (box.folder / "out").read_text() == "kept\n"
    box.run("cp", "out", "it:/etc/new", check=0)
    refused = box.run("cp", "it:/data/x", "out", check=1)
    assert "on the mount /data, which is there only while it runs" in refused.err
    box.run("start", "it", check=0)
    assert sh(box, "cat /etc/new") == "kept\n"


def test_tar_streams(box: World):
    sh(box, "mkdir /t; echo one >/t/file; ln -s file /t/link")
    process = box.popen("cp", "it:/t", "-")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert sorted(tar.getnames()) == ["t", "t/file", "t/link"]
    process = box.popen("cp", "-", "it:/tmp")
    _, err = process.communicate(out, timeout=60)
    assert process.returncode == 0, err
    assert sh(box, "cat /tmp/t/file; readlink /tmp/t/link") == "one\nfile\n"
    process = box.popen("cp", "-", "it:/tmp")
    _, err = process.communicate(b"no tar at all" * 100, timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in err


def test_links_follow_only_where_asked(box: World):
    sh(box, "echo text >/file; ln -s /file /link")
    box.run("cp", "it:/link", "kept", check=0)
    assert (box.folder / "kept").is_symlink()
    box.run("cp", "-L", "it:/link", "followed", check=0)
    assert (box.folder / "followed").read_text() == "text\n"


def test_D1_links_in_the_container_never_reach_the_host(box: World):
    canary = box.folder / "canary"
    canary.write_text("the host's own")
    up = "../" * 20
    sh(
        box,
        f"ln -s {box.folder} /abs; ln -s {up}{box.folder} /up; ln -s /proc/self/root /magic; ln -s /abs/canary /f",
    )
    for path in ("/abs/canary", "/up/canary", "/magic/canary", f"/magic{box.folder}/canary", "/f"):
        box.run("cp", "-L", f"it:{path}", "stolen", check=1)
        assert not (box.folder / "stolen").exists()
        process = box.popen("cp", "-L", f"it:{path}", "-")
        assert b"the host's own" not in process.communicate(timeout=60)[0]
    (box.folder / "evil").write_text("evil")
    for path in ("/abs/canary", "/up/canary", "/f"):
        box.run("cp", "evil", f"it:{path}")
        assert canary.read_text() == "the host's own"


def test_D1_folder_that_becomes_a_link_while_it_is_copied(box: World):
    (box.folder / "canary").write_text("the host's own")
    up = "../" * 20 + str(box.folder)
    flip = f"while :; do mv /d/x /d/y; ln -s {up} /d/x; rm -rf /d/x; mv /d/y /d/x; done"
    sh(box, "mkdir -p /d/x; echo inside >/d/x/canary")
    flipping = box.popen("exec", "it", "sh", "-c", flip)
    (box.folder / "evil").write_text("evil")
    for _ in range(15):
        process = box.popen("cp", "it:/d/x/canary", "-")
        assert b"the host's own" not in process.communicate(timeout=60)[0]
        box.run("cp", "evil", "it:/d/x/canary")
        assert (box.folder / "canary").read_text() == "the host's own"
    box.run("stop", "it", check=0)
    flipping.communicate(timeout=30)


def test_what_is_wrong_is_said(box: World):
    assert "no such file" in box.run("cp", "it:/no/such", "x", check=1).err
    assert "no such file" in box.run("cp", "nothing", "it:/x", check=1).err
    assert "must be CONTAINER:PATH" in box.run("cp", "a", "b", check=64).err
    assert "must be CONTAINER:PATH" in box.run("cp", "it:/a", "it:/b", check=64).err
    (box.folder / "f").write_text("x")
    assert "no such folder" in box.run("cp", "f", "it:/new/", check=1).err
    assert "no such file" in box.run("cp", "f", "it:/no/such/place", check=1).err.lower()
    assert "is a file" in box.run("cp", "it:/etc", "f", check=1).err
