"""The same archives, as layers of images that podman loads and as layers of ours, hold the same files."""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.peer import Peer, missing_programs
from lab.world import open_world
from reconciler.engine.native.layers import layer, stored
from reconciler.linux import mounts
from tests.layers.tars import new_layout, tar, write
from tests.layers.test_against_gnu_tar import describe, make_members
from tests.linux.spaces import in_mount_namespace

MISSING = missing_programs()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"skipped because {', '.join(MISSING)} is not there: a root with Docker and podman, see tests/lab/peer.py",
    ),
]
BATCH = 25
"""podman reads an archive from its beginning for each image in it."""


def make_archive(seed: int) -> bytes:
    """As the comparison with GNU tar makes them, but for what podman reads otherwise: it refuses a name that is there
    twice, and a file has what the last link to it says. GNU tar and we leave that alone, so links say what their file says.
    """
    chance = random.Random(seed)
    named: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for info, data in make_members(chance):
        if info.islnk():
            file, _ = named[info.linkname]
            info.mode, info.uid, info.gid, info.mtime = file.mode, file.uid, file.gid, file.mtime
        named.setdefault(info.name.removeprefix("./").rstrip("/"), (info, data))
    return tar(*named.values(), format=chance.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))


def save_images(file: Path, layers: dict[str, bytes]) -> None:
    """One archive of many images (docker save), each of one layer."""
    listed = []
    with tarfile.open(file, "w") as archive:

        def add(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

        for name, data in layers.items():
            diff_id = "sha256:" + hashlib.sha256(data).hexdigest()
            config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
            add(f"{name}.json", json.dumps({**config, "config": {"Labels": {"name": name}}}).encode())
            add(f"{name}.tar", data)
            listed.append({"Config": f"{name}.json", "RepoTags": [f"localhost/{name}:1"], "Layers": [f"{name}.tar"]})
        add("manifest.json", json.dumps(listed).encode())


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    world = open_world(tmp_path / "world")
    made = Peer(world)
    yield made
    made.close()
    world.close()


def compare(name: str, ours: dict[str, object], theirs: dict[str, object]) -> Iterator[str]:
    """A line for each path of an archive that differs."""
    for path in sorted(ours.keys() | theirs.keys()):
        if ours.get(path) != theirs.get(path):
            yield f"{name} {path}: {str(ours.get(path))[:300]} is for podman {str(theirs.get(path))[:300]}"


@pytest.mark.parametrize("first", range(0, 200, BATCH))
def test_a8_two_hundred_archives_come_out_as_podman_extracts_them(peer: Peer, tmp_path: Path, first: int) -> None:
    archives = {f"seed{seed}": make_archive(seed) for seed in range(first, first + BATCH)}
    save_images(peer.world.folder / "images.tar", archives)
    peer.podman("load", "--quiet", "--input", "/world/images.tar")
    mounted = json.loads(
        peer.podman("image", "mount", "--format", "json", *(f"localhost/{name}:1" for name in archives)).out
    )
    theirs = {each["Repositories"][0].split("/")[1].split(":")[0]: peer.path(each["mountpoint"]) for each in mounted}
    assert theirs.keys() == archives.keys()
    extracted = {name: describe(path) for name, path in theirs.items()}
    layout = new_layout(tmp_path)
    target = tmp_path / "ours"
    target.mkdir()

    def work() -> None:
        differing: list[str] = []
        for name, data in archives.items():
            diff_id = write(layout, data, form="squashfs")
            mounts.mount_image(stored.image_path(layout, diff_id, "squashfs"), target, "squashfs")
            found = describe(target)
            mounts.unmount(target)
            layer.remove_layer(layout, diff_id)
            differing += list(compare(name, found, extracted[name]))
        assert not differing, "\n".join(differing)

    in_mount_namespace(work)
