"""Network namespaces made, kept and left by threads that come back."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from spaces import in_mount_namespace

from reconciler.linux import namespaces, netlink
from reconciler.linux.sysctls import read_sysctl, write_sysctl

pytestmark = pytest.mark.root


def here():
    return os.readlink("/proc/thread-self/ns/net")  # noqa: PTH115 - the name, not a path


def test_threads_make_namespaces_side_by_side_and_come_back(tmp_path):
    def work():
        before = here()

        def make(number):
            path = tmp_path / f"n{number}"
            with namespaces.created(path):
                netlink.send([netlink.bridge_creation(f"b{number}", mac="02:00:00:00:00:01")])
                write_sysctl("ipv4/ping_group_range", f"0 {number}")
            assert here() == before
            opened = namespaces.open_netns(path)
            with namespaces.entered(opened):
                found = (
                    {name for name in netlink.read_links() if name.startswith("b")},
                    read_sysctl("ipv4/ping_group_range"),
                )
            os.close(opened)
            assert here() == before
            return found

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(make, range(40))) == [({f"b{number}"}, f"0\t{number}") for number in range(40)]
        for number in range(40):
            namespaces.remove_netns(tmp_path / f"n{number}")
        assert list(tmp_path.iterdir()) == []

    in_mount_namespace(work)


def test_failed_block_leaves_no_namespace_and_comes_back(tmp_path):
    def work():
        before = here()
        with pytest.raises(ZeroDivisionError), namespaces.created(tmp_path / "netns"):
            _ = 1 / 0
        assert here() == before
        assert not (tmp_path / "netns").exists()

    in_mount_namespace(work)


def test_plain_file_is_no_namespace_and_is_taken_over(tmp_path):
    def work():
        path = tmp_path / "netns"
        path.write_bytes(b"")
        assert not namespaces.is_kept(path)
        assert not namespaces.is_kept(tmp_path / "nothing")
        with namespaces.created(path):
            pass
        assert namespaces.is_kept(path)
        namespaces.remove_netns(path)
        namespaces.remove_netns(path)
        assert not path.exists()

    in_mount_namespace(work)


def test_a_link_in_the_way_is_not_followed(tmp_path):
    def work():
        victim = tmp_path / "victim"
        victim.write_text("keep")
        (tmp_path / "netns").symlink_to(victim)
        with pytest.raises(OSError, match="symbolic"), namespaces.created(tmp_path / "netns"):
            pass
        assert victim.read_text() == "keep"

    in_mount_namespace(work)


def test_namespace_of_a_process_is_kept(tmp_path):
    def work():
        path = tmp_path / "netns"
        namespaces.keep_netns(os.getpid(), path)
        assert Path(path).stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
        assert stat.S_ISREG(Path(path).stat().st_mode)

    in_mount_namespace(work)
