"""Volumes that are mounts: tmpfs, a folder, a device; what is missing, refused, secret, and left."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, open_world

pytestmark = pytest.mark.root

BOX = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "0s"}


def stack(opts: dict[str, Any], **more: Any) -> dict[str, Any]:
    box = {**BOX, "mounts": ["data:/data"]}
    return {
        "apiVersion": "reconcile/v1",
        "name": "one",
        "volumes": {"data": {"driver_opts": opts, **more} if opts else more},
        "containers": {"it": box},
    }


def inside(world: World, *command: str) -> str:
    return world.run("exec", "it", *command, check=0).out


def place(world: World) -> str:
    return str(world.root / "volumes" / world.record("volume/one/data")["status"]["volume_id"] / "data")


@pytest.fixture
def device(world: World) -> Iterator[str]:
    """A loop device with an ext4 on it."""
    image = world.folder / "disk"
    subprocess.run(["truncate", "-s", "16M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    name = subprocess.run(["losetup", "--show", "-f", image], check=True, capture_output=True, text=True).stdout.strip()
    yield name
    subprocess.run(["losetup", "-d", name], check=True)


def test_tmpfs_is_mounted_with_its_options_shared_and_unmounted(world: World):
    manifest = stack({"type": "tmpfs", "o": "size=4M,mode=0700,noexec"})
    manifest["containers"]["other"] = manifest["containers"]["it"]
    world.write(manifest)
    world.run("apply", "stack.yaml", "--yes", check=0)
    [line] = [line for line in inside(world, "cat", "/proc/mounts").splitlines() if " /data " in line]
    for word in ("tmpfs", "size=4096k", "nosuid", "nodev", "noexec", "mode=700"):
        assert word in line
    inside(world, "touch", "/data/here")
    assert world.run("exec", "other", "ls", "/data", check=0).out == "here\n"
    assert world.plan("stack.yaml")["actions"] == []
    world.run("delete", "one", "--volumes", "--yes", check=0)
    assert "/volumes/" not in world.nsenter("cat", "/proc/mounts").out


def test_folder_of_the_machine_keeps_what_is_in_it_over_the_delete(world: World):
    folder = world.folder / "srv"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    world.write(stack({"type": "none", "o": "bind,ro", "device": str(folder)}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(world, "cat", "/data/kept") == "kept"
    assert world.run("exec", "it", "touch", "/data/new").code != 0
    world.run("delete", "one", "--volumes", "--yes", check=0)
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_device_is_mounted_and_comes_back_when_it_was_taken_off(world: World, device: str):
    world.write(stack({"type": "ext4", "device": device}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    inside(world, "sh", "-c", "echo data >/data/file")
    pid = world.pid("one/it")
    world.nsenter("umount", place(world))
    assert "volume/one/data  mount: present → missing" in world.run("drift", check=2).out
    [action] = world.plan("stack.yaml")["actions"]
    assert (action["verb"], action["key"], action["reason"]) == ("update", "volume/one/data", "drifted")
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.pid("one/it") == pid
    assert world.nsenter("cat", f"{place(world)}/file").out == "data\n"
    # A start by itself mounts it too, so that nothing is ever written beneath.
    world.run("stop", "it", check=0)
    world.nsenter("umount", place(world))
    world.run("start", "it", check=0)
    assert inside(world, "cat", "/data/file") == "data\n"
    world.run("delete", "one", "--volumes", "--yes", check=0)
    assert device not in world.nsenter("cat", "/proc/mounts").out


def test_after_a_reboot_it_is_mounted_again_and_a_pause_holds(world: World, device: str):
    world.write(stack({"type": "ext4", "device": device}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    inside(world, "sh", "-c", "echo data >/data/file; sync")
    world.run("pause", "it", "--note", "moving", check=0)
    world.reboot()
    world.run("boot", check=0)
    status = world.record("one/it")["status"]
    assert (status["phase"] in ("created", "exited", "missing"), status["held"]["kind"]) == (True, "pause")
    assert world.nsenter("cat", f"{place(world)}/file").out == "data\n"
    world.run("unpause", "it", check=0)
    assert inside(world, "cat", "/data/file") == "data\n"


@pytest.mark.parametrize(
    ("opts", "words", "hint"),
    [
        ({"type": "nosuchfs", "device": "x"}, "No such device", "this kernel has no file system nosuchfs"),
        ({"type": "none", "o": "bind", "device": "/no/such"}, "No such file", "/no/such must exist"),
        ({"type": "ext4", "device": "/dev/zero"}, "mount /dev/zero (ext4)", "dmesg"),
        ({"type": "tmpfs", "o": "siez=1M"}, "siez", "correct type, o and device"),
    ],
)
def test_what_can_not_be_mounted_says_why_and_leaves_nothing(world: World, opts: dict[str, str], words: str, hint: str):
    world.write(stack(opts))
    out = world.run("apply", "stack.yaml", "--yes", check=1).out
    assert words in out
    assert hint in out
    assert "container/one/it/1" not in world.records()
    assert "/volumes/" not in world.nsenter("cat", "/proc/mounts").out


def test_F4_password_of_a_share_is_shown_and_kept_nowhere(world: World):
    secret = "hunter2-and-more"
    opts = {"type": "cifs", "o": f"username=u,password={secret}", "device": "//127.0.0.1/share"}
    path = world.write(stack(opts), "m/stack.yaml")
    said = [world.run("plan", str(path)), world.run("apply", str(path), "--yes"), world.run("events", "-o", "json")]
    said += [world.run("get", "volumes", "-o", "json"), world.run("describe", "volume/data"), world.run("history", "one")]
    assert said[1].code == 1
    assert not [result for result in said if secret in result.out + result.err]
    found = subprocess.run(["grep", "-rl", secret, str(world.root)], capture_output=True, text=True)
    assert found.stdout == ""
    where = Path(f"/proc/{world.holder}/root/run/reconcile")
    assert subprocess.run(["grep", "-rl", secret, str(where)], capture_output=True, text=True).stdout == ""


def test_change_of_what_is_mounted_is_refused_with_the_steps(world: World):
    world.write(stack({"type": "tmpfs"}))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.write(stack({"type": "tmpfs", "o": "size=8M"}))
    assert "declare a volume under a new name" in world.run("apply", "stack.yaml", "--yes", check=3).err


def test_size_is_refused_where_the_file_system_bounds_nothing(world: World):
    world.write(stack({}, size="10M"))
    result = world.run("apply", "stack.yaml", "--yes")
    if result.code == 0:  # this machine's own root has project quotas
        assert world.run("exec", "it", "dd", "if=/dev/zero", "of=/data/x", "bs=1M", "count=20").code != 0
        return
    assert "volume/one/data: size: " in result.err
    assert "bounds no folder" in result.err
    assert "prjquota" in result.err
    assert world.records() == {}


@pytest.fixture
def bounded(tmp_path: Path, lab_storage: Path) -> Iterator[World]:
    """A world whose root lies on a file system with project quotas."""
    image, place = tmp_path / "image", tmp_path / "place"
    image.touch()
    os.truncate(image, 400 << 20)
    place.mkdir()
    features = ["-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"]
    subprocess.run(["mkfs.ext4", "-q", *features, str(image)], check=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", str(image), str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("skipped because this kernel mounts no ext4 with project quotas (tests/vm/run has one that does)")
    try:
        world = open_world(place / "world", lab_storage)
        try:
            yield world
            world.assert_nothing_left()
        finally:
            world.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_size_bounds_a_volume_and_changes_in_place(bounded: World):
    def apply(size: str) -> None:
        stack = {"volumes": {"data": {"size": size}}, "containers": {"a": {**BOX, "mounts": ["data:/data"]}}}
        bounded.write({"apiVersion": "reconcile/v1", "name": "bounded", **stack})
        bounded.run("apply", "stack.yaml", "--yes", check=0)

    def fill() -> str:
        return bounded.run("exec", "a", "dd", "if=/dev/zero", "of=/data/x", "bs=1M", "count=20", check=1).err

    apply("5M")
    pid, said = bounded.pid("bounded/a"), fill()
    assert "Disk quota exceeded" in said
    assert "4+0 records out" in said
    apply("12M")
    assert "11+0 records out" in fill()
    assert bounded.pid("bounded/a") == pid
    assert bounded.plan("stack.yaml")["actions"] == []
