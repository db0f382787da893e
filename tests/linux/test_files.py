"""Files are written whole, locks say who holds them, trees go without a trace beyond themselves."""

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.linux import files, mounts
from tests.linux.spaces import in_mount_namespace


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    old = os.umask(0o077)
    try:
        files.write_atomic(path, b"one", 0o644)
        files.write_atomic(path, b"two", 0o644, durable=True)
    finally:
        os.umask(old)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_atomic(tmp_path / "folder", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with files.staged_directory(tmp_path / "good") as staged:
        (staged / "a").touch()
        assert not (tmp_path / "good").exists()
    assert (tmp_path / "good" / "a").exists()
    with pytest.raises(FileNotFoundError), files.staged_directory(tmp_path / "bad") as staged:
        (staged / "a" / "b").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["good"]


def test_a_held_lock_names_its_holder_since_when_and_what_for(tmp_path: Path) -> None:
    with files.lock(tmp_path / "lock", doing="apply blog"):
        with pytest.raises(TimeoutError, match=rf"pid {os.getpid()} since \d\d:\d\d:\d\d \(apply blog\)") as raised:
            files.lock(tmp_path / "lock", 0)
        assert isinstance(raised.value, files.LockHeld)
        assert raised.value.holder.startswith("pid ")
    files.lock(tmp_path / "lock", 0).release()


def test_a_waiting_lock_is_had_once_the_holder_lets_go(tmp_path: Path) -> None:
    held = files.lock(tmp_path / "lock", doing="first")
    got = threading.Event()

    def wait() -> None:
        with files.lock(tmp_path / "lock", 10):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got.is_set()
    held.release()
    waiter.join(10)
    assert got.is_set()


def test_a_lock_whose_file_was_removed_is_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = files.lock(path)
    path.unlink()
    with files.lock(path, 0) as second:
        first.release()
        with pytest.raises(TimeoutError):
            files.lock(path, 0)
        assert second.path == str(path)


def test_a_child_forked_while_a_lock_was_held_does_not_keep_it(tmp_path: Path) -> None:
    held = files.lock(tmp_path / "lock", 0)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        held.release()
        files.lock(tmp_path / "lock", 0).release()
    finally:
        os.close(write)
        os.waitpid(child, 0)


def test_removal_follows_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "link").symlink_to(outside)
    (tree / "file-link").symlink_to(outside / "kept")
    (tree / "sub").chmod(0)
    files.remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    files.remove_tree(tree)
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(OSError, match="link"):
        files.remove_tree(tmp_path / "link")
    assert (outside / "kept").exists()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(500):
        os.mkdir("d" * 100, dir_fd=here)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    files.remove_tree(top)
    assert not top.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="because mounts need root")
def test_removal_enters_no_mount(tmp_path: Path) -> None:
    tree, other = tmp_path / "tree", tmp_path / "other"
    (tree / "sub" / "point").mkdir(parents=True)
    other.mkdir()
    (other / "kept").touch()

    def work() -> None:
        mounts.bind(other, tree / "sub" / "point")
        with pytest.raises(OSError, match="mounted here") as raised:
            files.remove_tree(tree)
        assert raised.value.errno == errno.EXDEV
        assert (other / "kept").exists()

    in_mount_namespace(work)


def test_size_counts_a_hard_link_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 256)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("/")
    size = files.measure_tree(tmp_path)
    assert 65536 <= size < 2 * 65536
    assert files.measure_tree(tmp_path / "none") == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["dir", "file", "link"])), max_size=12))
def test_any_tree_is_removed(tmp_path_factory: pytest.TempPathFactory, shape: list[tuple[int, str]]) -> None:
    base = tmp_path_factory.mktemp("any")
    folders = [base / "tree"]
    folders[0].mkdir()
    for number, (place, kind) in enumerate(shape):
        path = folders[place % len(folders)] / str(number)
        if kind == "dir":
            path.mkdir()
            folders.append(path)
        elif kind == "file":
            path.touch()
        else:
            path.symlink_to(folders[0])
    files.remove_tree(folders[0])
    assert list(base.iterdir()) == []
