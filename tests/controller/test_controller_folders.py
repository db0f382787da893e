"""Changes of files are heard, through inotify itself: what the kernel loses, and folders that it won't watch, too."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.conftest import Controlled
from lab.world import wait_until
from reconciler.controller.folders import FolderWatcher
from reconciler.linux.foldertree import FolderTrees

MOST_QUEUED = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[FolderTrees]:
    made = FolderTrees()
    yield made
    made.close()


def overflow(folder: Path) -> None:
    """More than the kernel keeps; two files in turn, for the same event twice is one."""
    for name in ("a", "b"):
        (folder / name).touch()
    for number in range(MOST_QUEUED + 2):
        os.utime(folder / ("a" if number % 2 else "b"))


def test_changes_below_a_folder_are_of_that_folder_whatever_came_since(tmp_path: Path, trees: FolderTrees) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "deep" / "deeper").mkdir(parents=True)
    two.mkdir()
    (tmp_path / "link").symlink_to(two)
    for top in (one, tmp_path / "link"):
        trees.watch(str(top))
    assert trees.read() == (set(), False)
    (one / "deep" / "deeper" / "x").write_text("x")
    assert trees.read() == ({str(one)}, False)
    (two / "new").mkdir()
    assert trees.read() == ({str(tmp_path / "link")}, False)
    (two / "new" / "y").write_text("y")
    assert trees.read() == ({str(tmp_path / "link")}, False)
    assert (one / "deep" / "deeper" / "x").read_text() == "x"  # Reading is no change.
    assert trees.read() == (set(), False)
    trees.forget(str(one))
    (one / "z").write_text("z")
    trees.read()
    (one / "z").write_text("z")
    assert trees.read() == (set(), False)


def test_x7_what_the_kernel_could_not_keep_is_a_change_of_all_and_what_came_meanwhile_is_watched(
    tmp_path: Path, trees: FolderTrees
) -> None:
    busy, quiet = tmp_path / "busy", tmp_path / "quiet"
    for folder in (busy, quiet):
        folder.mkdir()
        trees.watch(str(folder))
    overflow(busy)
    (quiet / "new").mkdir()
    assert trees.read() == ({str(busy), str(quiet)}, True)
    (quiet / "new" / "x").write_text("x")
    assert trees.read() == ({str(quiet)}, False)


def test_x7_overflow_has_every_source_looked_at_and_is_told(tmp_path: Path) -> None:
    heard: list[str] = []
    lost: list[bool] = []
    watcher = FolderWatcher(lambda key, _: heard.append(key), lambda: lost.append(True))
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        assert watcher.follow(str(folder)) == ""
    overflow(folders[0])
    watcher.start()
    try:
        wait_until(lambda: lost, "it is told")
        assert set(heard) == {f"source {folder}" for folder in folders}
        heard.clear()
        (folders[1] / "x").write_text("x")
        wait_until(lambda: f"source {folders[1]}" in heard, "it hears again")
    finally:
        watcher.stop()


LIMITED = """
import sys
from pathlib import Path
from reconciler.controller.folders import FolderWatcher
most = Path("/proc/sys/user/max_inotify_watches")
most.write_text("2")
heard = []
watcher = FolderWatcher(lambda key, _: heard.append(key))
print(watcher.follow(sys.argv[1]))
most.write_text("100")
print(watcher.follow(sys.argv[1]) or "watched")
"""


def test_x7_folder_that_the_kernel_will_not_watch_whole_says_so_until_it_will(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-c", LIMITED, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert ended.stdout.splitlines() == ["fs.inotify.max_user_watches are used up", "watched"]


def test_folder_that_is_removed_and_made_anew_is_watched_again(tmp_path: Path) -> None:
    heard: list[str] = []
    folder = tmp_path / "stacks"
    watcher = FolderWatcher(lambda key, _: heard.append(key))
    assert watcher.follow(str(folder), "approvals") == ""  # It is not there yet.
    watcher.start()
    try:
        for _ in range(2):
            folder.mkdir()
            assert watcher.follow(str(folder), "approvals") == ""
            heard.clear()
            (folder / "x").write_text("x")
            wait_until(lambda: "approvals" in heard, "it hears")
            (folder / "x").unlink()
            folder.rmdir()
    finally:
        watcher.stop()


def test_status_says_that_it_polls_and_that_it_does_no_more(controlled: Controlled) -> None:
    controlled.write("blog")
    why = "fs.inotify.max_user_watches are used up"
    controlled.keeper._follow = lambda _: why
    controlled.run(1)
    [source] = controlled.keeper.read_state()[0]
    assert source.polled == why
    assert f"{controlled.folder} can't be watched ({why}): it is read every 1m" in controlled.notes()
    controlled.keeper._follow = lambda _: ""
    controlled.run(controlled.policy.poll + 1)
    assert controlled.keeper.read_state()[0][0].polled == ""
    assert f"{controlled.folder} is watched again" in controlled.notes()
