"""Roots of containers on the real kernel: layers mounted once, shared, and gone with the last that uses them."""

import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layers import layer, stored
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.snapshots import mounts as layer_mounts
from reconciler.engine.native.snapshots import stack
from reconciler.linux import mounts
from reconciler.model.errors import ContentError, Failed
from reconciler.model.key import container_key
from reconciler.model.observation import PRESENT
from reconciler.model.record import Made, View
from reconciler.model.spec import ContainerSpec
from tests.layers.tars import folder, member, new_layout, symlink, tar, write
from tests.linux.spaces import in_mount_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="because mounts need root"),
    pytest.mark.skipif(layer.choose_form() == "tree", reason="because neither sqfstar nor mkfs.erofs >= 1.8 is here"),
]

ONE, TWO = "0123456789ab", "ba9876543210"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return new_layout(tmp_path)


@pytest.fixture
def image(layout: Layout) -> list[str]:
    base = tar(
        folder("./", mode=0o1755, uid=7, gid=8),
        folder("etc/"),
        member("etc/a", b"base"),
        member("etc/b", b"base"),
        folder("gone/"),
        member("gone/x", b"base"),
        folder("covered/"),
        member("covered/old", b"base"),
        member("bin/sh", b"#!", mode=0o4755),
    )
    top = tar(
        folder("etc/"),
        member("etc/a", b"top"),
        member("etc/.wh.b"),
        member(".wh.gone"),
        folder("covered/"),
        member("covered/.wh..wh..opq"),
        member("covered/new", b"top"),
    )
    return [write(layout, base), write(layout, top)]


def ours(layout: Layout) -> list[str]:
    return [entry.point for entry in mounts.read_mountinfo() if entry.point.startswith(f"{layout.run}/")]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def made(incarnation: str) -> Made:
    return Made(key=container_key("blog", "web"), spec=ContainerSpec(image="x"), incarnation=incarnation)


def test_a_root_shows_the_layers_and_keeps_what_is_written(layout: Layout, image: list[str]) -> None:
    def work() -> None:
        root = stack.mount_root(layout, ONE, image)
        assert (root / "etc" / "a").read_bytes() == b"top"
        assert names(root) == ["bin", "covered", "etc"]
        assert names(root / "etc") == ["a"]
        assert names(root / "covered") == ["new"]
        assert (root / "bin" / "sh").stat().st_mode & 0o7777 == 0o4755
        found = root.stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o1755, 7, 8)
        (root / "etc" / "a").write_bytes(b"mine")
        assert stack.mount_root(layout, ONE, image) == root
        assert stack.writable_size(layout, ONE) > 0
        stack.unmount_root(layout, ONE)
        root = stack.mount_root(layout, ONE, image)
        assert (root / "etc" / "a").read_bytes() == b"mine"
        stack.unmount_root(layout, ONE)
        stack.remove_writable(layout, ONE)
        assert names(layout.containers) == []

    in_mount_namespace(work)


def test_layers_are_mounted_once_and_go_with_the_last_root(layout: Layout, image: list[str]) -> None:
    def work() -> None:
        stack.mount_root(layout, ONE, image)
        stack.mount_root(layout, TWO, image)
        assert len(ours(layout)) == 4
        stack.unmount_root(layout, ONE)
        assert len(ours(layout)) == 3
        stack.unmount_root(layout, TWO)
        stack.unmount_root(layout, TWO)
        assert ours(layout) == []
        assert names(layout.layer_mounts) == []

    in_mount_namespace(work)


def test_many_threads_mounting_and_unmounting_leave_nothing(layout: Layout, image: list[str]) -> None:
    def once(number: int) -> None:
        incarnation = f"{number:012x}"
        root = stack.mount_root(layout, incarnation, image)
        assert (root / "etc" / "a").read_bytes() == b"top"
        stack.unmount_root(layout, incarnation)
        stack.remove_writable(layout, incarnation)

    def work() -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(once, range(64)))
        assert ours(layout) == []
        assert threading.active_count() == 1

    in_mount_namespace(work)


def test_a_layer_that_is_not_here_is_named(layout: Layout, image: list[str]) -> None:
    absent = "sha256:" + "0" * 64

    def work() -> None:
        with pytest.raises(ContentError, match=absent):
            stack.mount_root(layout, ONE, [image[0], absent])
        stack.unmount_root(layout, ONE)
        assert ours(layout) == []

    in_mount_namespace(work)


def test_a_damaged_layer_is_not_mounted_after_an_unclean_boot(layout: Layout, image: list[str]) -> None:
    facts = stored.read_facts(layout, image[0])
    assert facts is not None
    path = stored.image_path(layout, image[0], facts.form)
    deadline = threading.enumerate()
    for thread in deadline:
        if thread.name == "layer-sha256":
            thread.join()
    record = layout.layers / f"{image[0][7:]}.json"
    record.write_text(record.read_text().replace(stored.read_boot_id(), "an earlier boot"))
    assert stored.has_layer(layout, image[0])

    def right() -> None:
        stack.mount_root(layout, ONE, image)
        found = stored.read_facts(layout, image[0])
        assert found is not None
        assert found.synced

    in_mount_namespace(right)
    record.write_text(record.read_text().replace('"synced":true', '"synced":false'))
    with path.open("r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(b"damage")
    os.utime(path, (1, 1))

    def wrong() -> None:
        with pytest.raises(ContentError, match="damaged"):
            stack.mount_root(layout, ONE, image)

    in_mount_namespace(wrong)


def test_an_image_without_layers_and_one_with_a_layer_twice_have_roots(layout: Layout, image: list[str]) -> None:
    def work() -> None:
        root = stack.mount_root(layout, ONE, [])
        assert names(root) == []
        assert root.stat().st_mode & 0o7777 == 0o755
        root = stack.mount_root(layout, TWO, [image[0], image[1], image[0]])
        assert (root / "etc" / "a").read_bytes() == b"base"

    in_mount_namespace(work)


def test_sixty_layers_make_a_root(layout: Layout) -> None:
    layers = [write(layout, tar(member(f"file-{number}", b"x"), member("last", b"%d" % number))) for number in range(60)]

    def work() -> None:
        root = stack.mount_root(layout, ONE, layers)
        assert (root / "last").read_bytes() == b"59"
        assert len(names(root)) == 61
        stack.unmount_root(layout, ONE)

    in_mount_namespace(work)


def test_an_opaque_root_hides_all_that_is_below(layout: Layout, image: list[str]) -> None:
    top = write(layout, tar(member("only", b"x"), member(".wh..wh..opq")))

    def work() -> None:
        root = stack.mount_root(layout, ONE, [*image, top])
        assert names(root) == ["only"]

    in_mount_namespace(work)


def test_A6_devices_of_an_image_can_not_be_opened(layout: Layout) -> None:
    image = write(layout, tar(member("null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666)))

    def work() -> None:
        root = stack.mount_root(layout, ONE, [image])
        with pytest.raises(PermissionError):
            (root / "null").read_bytes()

    in_mount_namespace(work)


def test_A3_writing_to_a_hard_link_changes_no_lower_layer(layout: Layout, image: list[str]) -> None:
    def work() -> None:
        root = stack.mount_root(layout, ONE, image)
        (root / "etc" / "link").hardlink_to(root / "etc" / "a")
        (root / "etc" / "link").write_bytes(b"changed")
        other = stack.mount_root(layout, TWO, image)
        assert (other / "etc" / "a").read_bytes() == b"top"

    in_mount_namespace(work)


def test_what_is_gone_or_another_is_named(layout: Layout, image: list[str]) -> None:
    def observe() -> object:
        return stack.observe_roots(layout, {ONE: image}, Glimpse(layout))[ONE]

    def work() -> None:
        assert observe().state == "missing"
        root = stack.mount_root(layout, ONE, image)
        assert observe() is PRESENT
        mounts.unmount(layer_mounts.mount_point(layout, image[0]))
        part = observe()
        assert (part.state, part.field, part.mend) == ("altered", "layers", "in-place")
        assert image[0] in part.old
        stack.mount_root(layout, ONE, image)
        assert observe() is PRESENT
        mounts.mount_tmpfs(root)
        assert (observe().old, observe().new, observe().mend) == ("overlay", "tmpfs", "restart")
        stack.unmount_root(layout, ONE)
        assert observe().state == "missing"
        assert ours(layout) == []

    in_mount_namespace(work)


def test_what_a_crash_left_is_found_and_removed_and_nothing_else(layout: Layout, image: list[str]) -> None:
    def work() -> None:
        stack.mount_root(layout, ONE, image)
        stack.mount_root(layout, TWO, image)
        view = View(made=(made(ONE),))
        found = stack.strays(layout, view, Glimpse(layout))
        assert {stray.name for stray in found} == {
            f"{layout.bundles}/{TWO}/rootfs",
            f"{layout.containers}/{TWO}",
        }
        for stray in found:
            stack.remove_stray(layout, stray)
        assert stack.strays(layout, view, Glimpse(layout)) == []
        assert len(ours(layout)) == 3
        # A kill between the note of a user and its mount, and one between the last unmount and its layers'.
        layer_mounts.hold_layers(layout, TWO, image)
        stack.unmount_root(layout, ONE)
        for stray in stack.strays(layout, View(), Glimpse(layout)):
            stack.remove_stray(layout, stray)
        assert ours(layout) == []
        assert names(layout.containers) == []

    in_mount_namespace(work)


def test_an_incarnation_that_is_none_becomes_no_path(layout: Layout) -> None:
    for name in ("../../etc", "", "0123456789AB", "0123456789ab\n"):
        with pytest.raises(Failed, match="12 hex digits"):
            stack.mount_root(layout, name, [])
        with pytest.raises(Failed, match="12 hex digits"):
            stack.remove_writable(layout, name)


def test_a_link_in_an_image_does_not_lead_the_overlay_out(layout: Layout, tmp_path: Path) -> None:
    image = write(layout, tar(symlink("etc", str(tmp_path)), symlink("out", "../../../../../../../etc")))

    def work() -> None:
        root = stack.mount_root(layout, ONE, [image])
        assert (root / "etc").is_symlink()
        stack.unmount_root(layout, ONE)

    in_mount_namespace(work)
