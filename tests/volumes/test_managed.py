"""Volumes: data stays until it is asked for by name, and what an image brings in never leads out."""

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.points import failing
from reconciler.engine.native.drivers.volume import VolumeDriver
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes import binds, managed
from reconciler.linux import files, paths
from reconciler.model.errors import Failed
from reconciler.model.events import Event
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import Phase
from reconciler.model.record import Grants, Made
from reconciler.model.spec import VolumeSpec
from tests.layers.tars import new_layout

ID = "v4k2m9x0q7ab"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="because owners and devices need root")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return new_layout(tmp_path)


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "var/lib/db").mkdir(parents=True)
    return root


def ignore(event: Event) -> None:
    """Nobody listens."""


def made(volume_id: str = ID, **labels: str) -> Made:
    return Made(
        key=make_key(Kind.VOLUME, "blog", "data"), spec=VolumeSpec(labels=labels), grants=Grants(volume_id=volume_id)
    )


def create(layout: Layout, volume_id: str = ID) -> Path:
    VolumeDriver(layout).create(made(volume_id), uses={}, emit=ignore)
    return managed.volume_data(layout, volume_id)


def test_create_is_idempotent_and_delete_keeps_data_until_it_is_asked_for(layout: Layout) -> None:
    driver = VolumeDriver(layout)
    data = create(layout)
    (data / "precious").write_text("x")
    create(layout)
    driver.delete(made())
    assert (data / "precious").read_text() == "x"
    assert driver.observe([made()], Glimpse(layout))[made().key].phase is Phase.PRESENT
    assert driver.measure(made()) > 0
    driver.delete(made(), data=True)
    driver.delete(made(), data=True)
    assert list(layout.volumes.iterdir()) == []
    assert driver.observe([made()], Glimpse(layout))[made().key].phase is Phase.MISSING
    assert driver.measure(made()) == 0


@pytest.mark.parametrize("step", ["ensure_volume/mkdir", "_write/rename", "_write/write"])
def test_x1_volume_that_could_not_be_made_leaves_nothing(layout: Layout, step: str) -> None:
    with (
        failing(f"engine.native.volumes.managed.{step}=1*raise(ENOSPC)"),
        pytest.raises(Failed, match="No space left on device"),
    ):
        create(layout)
    assert list(layout.volumes.glob("*")) == []


def test_the_file_beside_the_data_says_whose_it_is_and_is_mended(layout: Layout) -> None:
    driver = VolumeDriver(layout)
    data = create(layout)
    file = data.parent / "volume.json"
    found = managed.read_volume(layout, ID)
    assert found is not None
    assert (found.key, found.root_id) == ("volume/blog/data", layout.root_id)
    file.unlink()
    status = driver.observe([made()], Glimpse(layout))[made().key]
    assert status.parts["file"].state == "missing"
    driver.update(made(), made(tier="db"), uses={}, emit=ignore)
    assert driver.observe([made()], Glimpse(layout))[made().key].parts["file"].state == "present"
    assert (managed.read_volume(layout, ID) or found).spec.labels == {"tier": "db"}


def test_D4_others_on_the_host_can_not_look_in(layout: Layout) -> None:
    data = create(layout)
    assert stat.S_IMODE(data.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((data.parent / "volume.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../x", ".", "", "a" * 300, "A", "a/b", "a\n"])
def test_D2_a_volume_id_that_is_none_becomes_no_path(layout: Layout, name: str) -> None:
    for call in (managed.volume_data, managed.remove_volume, managed.read_volume):
        with pytest.raises(Failed, match="not one that we generate"):
            call(layout, name)


def test_D2_a_subpath_that_is_a_link_out_stays_inside(layout: Layout, tmp_path: Path) -> None:
    data = create(layout)
    (tmp_path / "secret").mkdir()
    (data / "web").mkdir()
    (data / "out").symlink_to(tmp_path / "secret")
    (data / "up").symlink_to("../../../../web")
    for subpath in ("out", "missing", "../../../../secret"):
        with pytest.raises(Failed, match="subpath"):
            managed.open_subpath(layout, ID, subpath)
    for subpath in ("web", "up", "../../web", ""):
        number = managed.open_subpath(layout, ID, subpath)
        try:
            assert Path(f"/proc/self/fd/{number}").readlink().is_relative_to(data)
        finally:
            os.close(number)


@needs_root
def test_first_use_fills_a_new_volume_with_owner_mode_and_links(layout: Layout, rootfs: Path) -> None:
    source = rootfs / "var/lib/db"
    (source / "sub").mkdir(mode=0o710)
    (source / "sub" / "file").write_text("x")
    (source / "sub" / "file").chmod(0o640)
    os.chown(source / "sub" / "file", 70, 71)
    (source / "again").hardlink_to(source / "sub" / "file")
    (source / "link").symlink_to("/etc/shadow")
    os.mkfifo(source / "fifo")
    os.setxattr(source / "sub", "user.note", b"n")
    os.utime(source / "sub", ns=(5, 5_000_000_000))
    os.chown(source, 999, 998)
    source.chmod(0o1770)
    data = create(layout)
    assert managed.copy_up(layout, ID, rootfs=rootfs, target="/var/lib/db")
    assert sorted(entry.name for entry in data.iterdir()) == ["again", "fifo", "link", "sub"]
    top, file = data.stat(), (data / "sub" / "file").stat()
    assert (top.st_uid, top.st_gid, stat.S_IMODE(top.st_mode)) == (999, 998, 0o1770)
    assert (file.st_uid, file.st_gid, stat.S_IMODE(file.st_mode)) == (70, 71, 0o640)
    assert (data / "again").stat().st_ino == file.st_ino
    assert os.getxattr(data / "sub", "user.note") == b"n"
    assert (data / "sub").stat().st_mtime == 5
    assert (data / "link").readlink() == Path("/etc/shadow")


def test_a_volume_is_filled_once_and_never_over_data(layout: Layout, rootfs: Path) -> None:
    (rootfs / "var/lib/db/seed").write_text("x")
    data = create(layout)
    (data / "mine").write_text("y")
    assert not managed.copy_up(layout, ID, rootfs=rootfs, target="/var/lib/db")
    (data / "mine").unlink()
    assert not managed.copy_up(layout, ID, rootfs=rootfs, target="/var/lib/db")
    assert list(data.iterdir()) == []


def test_what_the_image_lacks_fills_nothing(layout: Layout, rootfs: Path) -> None:
    (rootfs / "file").write_text("x")
    create(layout)
    assert not managed.copy_up(layout, ID, rootfs=rootfs, target="/nowhere")
    create(layout, "v2")
    assert not managed.copy_up(layout, "v2", rootfs=rootfs, target="/file")


@needs_root
def test_D5_copy_up_follows_no_link_out_and_brings_no_device(layout: Layout, rootfs: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("of the host")
    (rootfs / "data").symlink_to(outside)
    (rootfs / "dir").mkdir()
    (rootfs / "dir" / "link").symlink_to(outside)
    os.mknod(rootfs / "dir" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(rootfs / "dir" / "disk", stat.S_IFBLK | 0o666, os.makedev(254, 0))
    create(layout)
    assert not managed.copy_up(layout, ID, rootfs=rootfs, target="/data")
    data = create(layout, "v2")
    assert managed.copy_up(layout, "v2", rootfs=rootfs, target="/dir")
    assert [entry.name for entry in data.iterdir()] == ["link"]
    assert (data / "link").is_symlink()


def test_a_kill_in_the_middle_of_filling_is_made_good(layout: Layout, rootfs: Path) -> None:
    (rootfs / "var/lib/db/seed").write_text("x")
    data = create(layout)
    half = data.parent / "new-data-0123"
    half.mkdir()
    (half / "seed").write_text("")
    assert managed.copy_up(layout, ID, rootfs=rootfs, target="/var/lib/db")
    assert (data / "seed").read_text() == "x"
    assert not half.exists()


def test_two_first_users_at_once_fill_it_once(layout: Layout, rootfs: Path) -> None:
    (rootfs / "var/lib/db/seed").write_text("x")
    data = create(layout)
    barrier = threading.Barrier(4)

    def use(_: int) -> bool:
        barrier.wait()
        return managed.copy_up(layout, ID, rootfs=rootfs, target="/var/lib/db")

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(use, range(4))) == [False, False, False, True]
    assert (data / "seed").read_text() == "x"


def test_deep_folders_are_copied_and_removed(layout: Layout, rootfs: Path) -> None:
    paths.mkdir_in_root(rootfs, "deep" + "/d" * 400)
    data = create(layout)
    assert managed.copy_up(layout, ID, rootfs=rootfs, target="/deep")
    assert (data / "/".join(["d"] * 400)).is_dir()
    managed.remove_volume(layout, ID)
    files.remove_tree(rootfs)
    assert not data.exists()


def test_a_bind_source_that_is_missing_is_named_with_container_and_path(tmp_path: Path) -> None:
    assert binds.check_source("container/blog/web/1", "/conf", str(tmp_path)) == tmp_path
    with pytest.raises(Failed) as raised:
        binds.check_source("container/blog/web/1", "/conf", f"{tmp_path}/none/app.toml")
    assert raised.value.brief == f"container/blog/web/1: bind {tmp_path}/none/app.toml to /conf: No such file or directory"
    assert raised.value.detail == f"{tmp_path} exists, none is not in it"
    (tmp_path / "link").symlink_to("/nowhere")
    with pytest.raises(Failed) as raised:
        binds.check_source("container/blog/web/1", "/conf", f"{tmp_path}/link")
    assert "is a link to /nowhere" in raised.value.detail
