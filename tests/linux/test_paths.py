"""Paths that others wrote end inside the root, whatever links they meet."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from reconciler.linux import paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("of the host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root:x:0:0")
    return root


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "etc/passwd", "../../etc/passwd", "/../../../etc/passwd", "./etc/../etc/passwd"]
)
def test_every_spelling_of_a_path_ends_inside(root: Path, path: str) -> None:
    assert paths.read_in_root(root, path) == b"root:x:0:0"


@pytest.mark.parametrize("link", ["/etc/passwd", "../../../../../../etc/passwd", "/proc/self/root/etc/passwd"])
def test_a_link_out_of_the_root_reads_nothing_of_the_host(root: Path, link: str) -> None:
    (root / "link").symlink_to(link)
    try:
        found = paths.read_in_root(root, "link")
    except OSError:
        return
    assert found == b"root:x:0:0"


def test_a_fifo_or_a_device_is_refused_without_being_opened(root: Path) -> None:
    os.mkfifo(root / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        paths.read_in_root(root, "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        paths.read_in_root(root, "etc")


def test_a_file_over_the_limit_is_refused(root: Path) -> None:
    (root / "big").write_bytes(bytes(11))
    with pytest.raises(OSError, match="more than 10") as raised:
        paths.read_in_root(root, "big", limit=10)
    assert raised.value.errno == errno.EFBIG
    assert paths.read_in_root(root, "big", limit=11) == bytes(11)


def test_magic_links_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="self") as raised:
        paths.open_in_root("/proc", "self/exe", os.O_RDONLY)
    assert raised.value.errno == errno.ELOOP


def test_folders_are_made_inside_through_links(root: Path, tmp_path: Path) -> None:
    (root / "var").mkdir()
    (root / "lib").symlink_to("/var")
    (root / "out").symlink_to("../../..")
    paths.mkdir_in_root(root, "/lib/a/b", 0o750)
    assert (root / "var" / "a" / "b").is_dir()
    paths.mkdir_in_root(root, "out/c/../d")
    assert (root / "d").is_dir()
    assert (root / "c").is_dir()
    paths.mkdir_in_root(root, "/lib/a/b")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["outside", "root"]


def test_a_file_or_a_dangling_link_in_the_way_is_an_error(root: Path) -> None:
    (root / "dangling").symlink_to("/nowhere/at/all")
    for path in ("/etc/passwd/x", "/dangling/x"):
        with pytest.raises(OSError, match=path[:5]):
            paths.mkdir_in_root(root, path)


def test_a_nul_in_a_path_is_refused(root: Path) -> None:
    with pytest.raises(OSError, match="NUL"):
        paths.open_in_root(root, "etc\0/passwd", os.O_RDONLY)


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/etc/passwd", "/nowhere", "/etc"):
        with contextlib.suppress(OSError):
            paths.read_in_root(root, path)
    paths.mkdir_in_root(root, "/a/b/c")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
