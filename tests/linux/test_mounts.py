"""Mounts by the new API, in a mount namespace of their own."""

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from reconciler.linux import mounts
from tests.linux.spaces import in_mount_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="because mounts need root"),
]


def points() -> dict[str, mounts.MountEntry]:
    return {entry.point: entry for entry in mounts.read_mountinfo()}


def test_a_tmpfs_has_its_size_mode_and_attributes_and_goes(tmp_path: Path) -> None:
    target = tmp_path / "with space"
    target.mkdir()

    def work() -> None:
        mounts.mount_tmpfs(target, size=1 << 20, mode=0o750)
        mounts.make_private(target)
        entry = points()[str(target)]
        assert entry.fstype == "tmpfs"
        assert "size=1024k" in entry.super_options
        assert {"nosuid", "nodev"} <= set(entry.options.split(","))
        assert entry.propagation == ""
        assert target.stat().st_mode & 0o777 == 0o750
        assert mounts.is_mount_point(target)
        mounts.unmount(target)
        assert not mounts.is_mount_point(target)
        with pytest.raises(OSError, match="unmount") as raised:
            mounts.unmount(target)
        assert raised.value.errno == errno.EINVAL

    in_mount_namespace(work)


def test_a_secret_tmpfs_is_never_swapped_out_where_the_kernel_can_do_that(tmp_path: Path) -> None:
    able = tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2]) >= (6, 4)

    def work() -> None:
        mounts.mount_tmpfs(tmp_path, secret=True)
        assert ("noswap" in points()[str(tmp_path)].super_options) == able
        mounts.unmount(tmp_path)
        assert not mounts.is_mount_point(tmp_path)

    in_mount_namespace(work)


def test_a_read_only_bind_is_a_mount_point_that_refuses_writes(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()

    def work() -> None:
        mounts.bind(source, target, attributes=mounts.RDONLY | mounts.NOSUID)
        assert mounts.is_mount_point(target)
        assert points()[str(target)].read_only
        (source / "a").write_text("x")
        with pytest.raises(OSError, match="Read-only"):
            (target / "b").write_text("x")
        mounts.unmount(target, lazy=True)

    in_mount_namespace(work)


def test_a_sealed_squashfs_frees_its_loop_device_with_the_mount(tmp_path: Path) -> None:
    content, image, target = tmp_path / "content", tmp_path / "image", tmp_path / "target"
    content.mkdir()
    target.mkdir()
    (content / "hello").write_text("world")
    subprocess.run(["mksquashfs", content, image, "-quiet", "-no-progress"], check=True, capture_output=True)

    def work() -> None:
        mounts.mount_image(image, target, "squashfs")
        assert (target / "hello").read_text() == "world"
        entry = points()[str(target)]
        backing = Path(f"/sys/dev/block/{entry.device}/loop/backing_file")
        assert backing.read_text().strip() == str(image)
        assert entry.read_only
        mounts.unmount(target)
        assert not backing.exists()

    in_mount_namespace(work)


def test_an_erofs_mounts_from_its_file_without_a_loop_device(tmp_path: Path) -> None:
    content, image, target = tmp_path / "content", tmp_path / "image", tmp_path / "target"
    content.mkdir()
    target.mkdir()
    (content / "hello").write_text("world")
    subprocess.run(["mkfs.erofs", image, content], check=True, capture_output=True)

    def work() -> None:
        mounts.mount_image(image, target, "erofs")
        assert (target / "hello").read_text() == "world"
        mounts.unmount(target)

    in_mount_namespace(work)


@pytest.mark.parametrize("count", [1, 120])
@pytest.mark.parametrize("way", ["new", "classic"])
def test_an_overlay_of_many_lowers_shows_the_topmost(tmp_path: Path, count: int, way: str) -> None:
    lowers = []
    for number in range(count):
        folder = tmp_path / f"a-rather-long-name-of-a-layer-{number:060}"
        folder.mkdir()
        (folder / "which").write_text(str(number))
        (folder / f"of-{number}").touch()
        lowers.append(folder)
    for name in ("upper", "work", "target"):
        (tmp_path / name).mkdir()
    make = mounts.mount_overlay if way == "new" else classic_overlay

    def work() -> None:
        target = tmp_path / "target"
        make(target, lowers=lowers, upper=tmp_path / "upper", work=tmp_path / "work")
        assert (target / "which").read_text() == "0"
        assert (target / f"of-{count - 1}").exists()
        (target / "new").touch()
        assert (tmp_path / "upper" / "new").exists()
        mounts.unmount(target)

    in_mount_namespace(work)


def classic_overlay(target: Path, *, lowers: list[Path], upper: Path, work: Path) -> None:
    options = [("upperdir", str(upper)), ("workdir", str(work))]
    mounts._mount_overlay_classic(str(target), lowers, options, "overlay", 0)


def test_what_the_kernel_did_not_like_is_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()

    def work() -> None:
        with pytest.raises(OSError, match="overlay") as raised:
            mounts.mount_overlay(tmp_path / "target", lowers=[tmp_path / "nowhere"])
        assert raised.value.errno == errno.ENOENT
        with pytest.raises(OSError, match="nonsense"):
            mounts.mount("tmpfs", tmp_path / "target", [("nonsense", "1")])

    in_mount_namespace(work)
