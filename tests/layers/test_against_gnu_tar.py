"""The same archives, extracted by GNU tar and made a layer by us, hold the same files."""

import os
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from reconciler.engine.native.layers import erofs, layer, squashfs, stored
from reconciler.engine.tarstream import TarStream
from reconciler.linux import files, mounts
from tests.layers.tars import folder, hardlink, member, new_layout, symlink, tar, write
from tests.linux.spaces import in_mount_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="because owners and mounts need root"),
]

WORDS = ["a", "b", "c", ".d", "e f", "ü", "long-" + "x" * 90]


def make_members(chance: random.Random) -> list[tuple[tarfile.TarInfo, bytes]]:
    """Some members as real archives have them, and contradictions that GNU tar resolves without an error."""
    dirs, plain = [""], []
    members = []
    for number in range(chance.randint(3, 40)):
        parent = chance.choice(dirs)
        name = f"{parent}{chance.choice(WORDS)}{number}"
        how = {"uid": chance.choice([0, 1000, 3_000_000]), "gid": chance.choice([0, 7]), "mtime": chance.randint(1, 2**31)}
        kind = chance.random()
        if kind < 0.25:
            members.append(
                folder(chance.choice(["", "./"]) + name + "/", mode=chance.choice([0o755, 0o1777, 0o700]), **how)
            )
            dirs.append(name + "/")
        elif kind < 0.35:
            members.append(symlink(name, chance.choice(["nowhere", "../up", "/abs/olute", "x" * 130])))
        elif kind < 0.45 and plain:
            members.append(hardlink(name, chance.choice(plain)))
            plain.append(name)
        elif kind < 0.5:
            members.append(member(f"{parent}implied{number}/x/{number}", b"deep", **how))
        elif kind < 0.53:
            members.append(member(name, type=tarfile.FIFOTYPE, mode=0o620, **how))
        elif kind < 0.56:
            members.append(
                member(name, type=tarfile.CHRTYPE, device=(chance.randint(1, 200), chance.randint(0, 255)), **how)
            )
        elif kind < 0.6 and plain:
            members.append(member(chance.choice(plain), b"again %d" % number, **how))
        elif kind < 0.65 and len(dirs) > 1:
            members.append(folder(chance.choice(dirs[1:]), mode=0o750, **how))
        else:
            size = chance.choice([0, 1, 511, 512, 513, 4096, 140_000])
            xattrs = chance.choice([None, None, {"user.a": "x" * chance.choice([1, 900]), "user.b.c": "\n="}])
            mode = chance.choice([0o644, 0o4755, 0o2711, 0])
            members.append(member(name, chance.randbytes(size), mode=mode, xattrs=xattrs, **how))
            plain.append(name)
    return members


def read_xattrs(path: Path) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(path, name) for name in os.listxattr(path) if name.startswith("user.")}
    except OSError:  # A squashfs that has no attributes at all.
        return {}


def describe(top: Path) -> dict[str, object]:
    """All that counts of a tree but the times of folders: GNU tar sets them before it has put everything in."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for path in sorted(top.rglob("*")):
        here, name = path.lstat(), str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(here.st_mode):
            content = (path.read_bytes(), inodes.setdefault(here.st_ino, name), int(here.st_mtime))
        elif stat.S_ISLNK(here.st_mode):
            content = os.readlink(path)  # noqa: PTH115 - as text, not normalized
        if stat.S_ISCHR(here.st_mode):
            content = here.st_rdev
        elif not stat.S_ISLNK(here.st_mode):
            content = (content, read_xattrs(path))
        found[name] = (stat.filemode(here.st_mode), here.st_uid, here.st_gid, content)
    return found


@pytest.mark.parametrize("form", ["squashfs", "erofs", "tree"])
def test_a8_two_hundred_archives_come_out_as_gnu_tar_extracts_them(tmp_path: Path, form: str) -> None:
    if form == "squashfs" and not squashfs.is_usable():
        pytest.skip("because sqfstar is missing")
    if form == "erofs" and not erofs.is_usable():
        pytest.skip("because mkfs.erofs >= 1.8 is missing")
    layout = new_layout(tmp_path)

    def compare(seed: int) -> None:
        chance = random.Random(seed)
        members = make_members(chance)
        format = chance.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
        data = tar(*members, format=format)
        times = {info.name.removeprefix("./"): int(info.mtime) for info, _ in members if info.isdir()}
        extracted, target = tmp_path / f"gnu{seed}", tmp_path / f"ours{seed}"
        extracted.mkdir()
        target.mkdir()
        command = ["tar", "-x", "-p", "--numeric-owner", "--same-owner", "--xattrs", "-C", str(extracted)]
        subprocess.run(command, input=data, check=True, capture_output=True)
        diff_id = write(layout, data, form=form)
        image = stored.image_path(layout, diff_id, form)
        mounts.bind(image, target) if form == "tree" else mounts.mount_image(image, target, form)
        assert describe(target) == describe(extracted), f"seed {seed}"
        assert {name: int((target / name).stat().st_mtime) for name in times} == times, f"seed {seed}"
        mounts.unmount(target)
        files.remove_tree(extracted)
        layer.remove_layer(layout, diff_id)

    def work() -> None:
        os.umask(0o022)
        for seed in range(200):
            compare(seed)

    in_mount_namespace(work)


@pytest.mark.parametrize("how", ["gnu", "posix 0.0", "posix 0.1", "posix 1.0"])
def test_a7_sparse_files_as_gnu_tar_writes_them_are_whole(tmp_path: Path, how: str) -> None:
    """Few holes, and more than one header of old GNU takes."""
    source = tmp_path / "source"
    source.mkdir()
    chance = random.Random(4)
    for name, parts in (("few", 3), ("many", 70), ("end", 0)):
        with (source / name).open("wb") as file:
            for part in range(parts):
                file.seek(part * 65536)
                file.write(chance.randbytes(4096))
            file.truncate(parts * 65536 + 50_000)
    form, _, version = how.partition(" ")
    options = [f"--format={form}", *([f"--sparse-version={version}"] if version else [])]
    command = ["tar", "-c", "--sparse", "--hole-detection=raw", *options, "-C", str(source), "few", "many", "end"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(data) < 500_000, "it is sparse"
    stream = TarStream([data], what="it")
    found = {entry.name.decode(): b"".join(stream.data()) for entry in stream.entries()}
    assert found == {path.name: path.read_bytes() for path in source.iterdir()}
