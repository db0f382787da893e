"""The lab itself: its images are the same each time, its worlds are apart from the host and leave nothing."""

import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import canary, images
from lab.registry import PASSWORD, free_port, start_registry
from lab.world import World, wait_until


def test_images_have_the_same_digests_each_time():
    first = {name: image.manifest().digest for name, image in images.lab_images().items()}
    images.lab_images.cache_clear()
    images.busybox_layer.cache_clear()
    assert {name: image.manifest().digest for name, image in images.lab_images().items()} == first
    assert len(set(first.values())) == len(first)


def test_registry_gives_back_what_was_pushed(tmp_path: Path):
    image = images.lab_images()["web:1"]
    registry = start_registry(tmp_path / "storage", tmp_path / "scratch", port=free_port(5200))
    try:
        digest = images.push(registry.url, "web:1", image)
        request = urllib.request.Request(f"{registry.url}/v2/web/manifests/1", headers={"Accept": image.manifest().media})
        with urllib.request.urlopen(request) as answer:
            assert answer.headers["Docker-Content-Digest"] == digest
            assert answer.read() == image.manifest().data
    finally:
        registry.stop()


def test_registry_with_a_password_lets_only_its_user_in(tmp_path: Path):
    registry = start_registry(tmp_path / "storage", tmp_path / "scratch", port=free_port(5300), auth=True)
    try:
        image = images.lab_images()["nocmd:1"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            images.push(registry.url, "nocmd:1", image)
        images.push(registry.url, "nocmd:1", image, auth=images.basic_authorization("lab", PASSWORD))
    finally:
        registry.stop()


def test_archives_hold_the_config_and_every_layer(tmp_path: Path):
    image = images.lab_images()["web:1"]
    images.save_docker(tmp_path / "docker.tar", "web:1", image)
    images.save_oci(tmp_path / "oci.tar", "web:1", image)
    with tarfile.open(tmp_path / "docker.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        assert set(manifest["Layers"]) | {manifest["Config"]} < set(tar.getnames())
    with tarfile.open(tmp_path / "oci.tar") as tar:
        names = set(tar.getnames())
        assert {f"blobs/sha256/{blob.digest[7:]}" for blob in image.layer_blobs()} < names


@pytest.mark.root
def test_world_is_apart_from_the_host(world: World):
    host = {kind: canary.LOOKS[kind]() for kind in ("link", "mount", "table")}
    world.nsenter("ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1")
    world.nsenter("nft", "add", "table", "inet", "lab")
    world.nsenter("mount", "-t", "tmpfs", "tmpfs", "/srv")
    assert {"lab0", "lab1"} == world.links()
    assert world.nsenter("ls", "/sys/class/net").out.split() == ["lab0", "lab1", "lo"]
    assert {kind: canary.LOOKS[kind]() for kind in host} == host
    assert world.nsenter("ls", "/sys/fs/cgroup").out.split() == sorted(os.listdir("/sys/fs/cgroup"))  # noqa: PTH208  # names alone


@pytest.mark.root
def test_world_names_what_was_left_in_it(world: World):
    assert world.leftovers() == []
    world.nsenter("ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1")
    world.nsenter("nft", "add", "table", "inet", "lab")
    world.nsenter("mount", "-t", "tmpfs", "tmpfs", "/srv")
    world.nsenter("sh", "-c", "setsid sleep 100 >/dev/null 2>&1 </dev/null &")
    wanted = ["link", "link", "mount", "process", "table"]
    wait_until(lambda: [line.split()[0] for line in world.leftovers()] == wanted, "all named", world.leftovers)


@pytest.mark.root
def test_registry_of_a_world_answers_only_there(open_a_world: Callable[[str], World]):
    one, other = open_a_world("one"), open_a_world("other")
    for world in (one, other):
        assert "busybox" in world.fetch("http://127.0.0.1:5000/v2/_catalog")
    assert one.fetch("http://127.0.0.1:5999/") == ""


def test_canary_tells_what_is_left_and_what_is_gone():
    before = {"link": frozenset({"lo", "eth0"}), "cgroup": frozenset()}
    after = {"link": frozenset({"lo"}), "cgroup": frozenset({"/sys/fs/cgroup/pids/x"})}
    assert canary.compare(before, after) == ["left behind: cgroup /sys/fs/cgroup/pids/x", "gone: link eth0"]
