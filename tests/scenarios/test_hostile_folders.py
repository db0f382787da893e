"""What other users of the machine see and may do: nothing. And no name of a manifest is ever a path. Rows D2, D4."""

import stat
from pathlib import Path
from typing import Any

import pytest

from lab.world import World
from scenarios.hostile import BUSYBOX, apply

pytestmark = pytest.mark.root

OPEN_TO_CONTAINERS = ("upper", "work", "data", "rootfs", "layers", "trees", "contents", "netns", "runc")
"""Folders in which modes are the image's, the volume's, the manifest's or the runtime's own, behind ones that are 0700."""


@pytest.fixture
def applied(world: World) -> World:
    """A stack with everything, its root where any user could come as far as its own mode lets him."""
    world.env |= {"RECONCILE_ROOT": "/run/the-root"}
    world.root = Path("/run/the-root")
    box: dict[str, Any] = {"image": "zebraimage", "command": ["pause"], "stop_grace": "0s", "tty": True, "stdin": True}
    box |= {"mounts": ["zebravolume:/zebratarget"], "configs": ["zebraconfig"], "secrets": ["zebrasecret"]}
    box |= {"networks": {"zebranetwork": {"aliases": ["zebraalias"]}}, "hostname": "zebrahost", "ports": ["8099:80"]}
    sections = {
        "images": {"zebraimage": {"from": BUSYBOX}},
        "networks": {"zebranetwork": {}},
        "volumes": {"zebravolume": {}},
        "configs": {"zebraconfig": {"content": "for its own eyes"}},
        "secrets": {"zebrasecret": {"env": "PLANTED"}},
    }
    world.env["PLANTED"] = "for its own eyes"
    world.write({"apiVersion": "reconcile/v1", "name": "zebrastack", **sections, "containers": {"zebracontainer": box}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    yield world
    world.delete_everything()


def walk(world: World, *tops: str) -> list[tuple[str, int]]:
    """Every path below, as the world has it, with its mode."""
    script = 'find "$@" -printf "%m %y %p\\\\0" 2>/dev/null || true'
    listed = world.nsenter("sh", "-c", script, "sh", *tops).out.split("\0")
    found = []
    for line in filter(None, listed):
        mode, kind, path = line.split(" ", 2)
        found.append((path, int(mode, 8) | {"d": stat.S_IFDIR, "s": stat.S_IFSOCK, "p": stat.S_IFIFO}.get(kind, 0)))
    return found


def test_d4_another_user_of_the_machine_sees_nothing_of_root_and_run_directory(applied: World):
    with_exec = applied.popen("exec", "-t", "zebracontainer", "sleep", "1000")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
    (root_id,) = [applied.nsenter("cat", "/run/the-root/id").out.split()[0]]
    run = f"/run/reconcile/{root_id}"
    seen = applied.nsenter(*nobody, "find", "/run/the-root", run, check=False)
    assert seen.out.split() == ["/run/the-root", run], "it is there, and that is all that others learn"
    assert seen.err.count("Permission denied") == 2
    assert "Permission denied" in applied.nsenter(*nobody, "ls", "/run/reconcile", check=False).err
    # Behind that, one more: every folder of ours is closed by itself, and sockets and fifos lie in such folders alone.
    found = walk(applied, "/run/the-root", run)
    assert len(found) > 60
    ours = [(path, mode) for path, mode in found if not any(f"/{name}/" in f"{path}/" for name in OPEN_TO_CONTAINERS)]
    assert [(path, oct(mode)) for path, mode in ours if stat.S_ISDIR(mode) and mode & 0o077] == []
    closed = {path for path, mode in ours if stat.S_ISDIR(mode)}
    special = [path for path, mode in found if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)]
    assert special
    assert [path for path in special if str(Path(path).parent) not in closed] == []
    for name in ("key", "reconcile.db", "id"):
        assert dict(found)[f"/run/the-root/{name}"] & 0o077 == 0
    applied.run("kill", "zebracontainer", check=0)
    with_exec.communicate(timeout=30)


def test_d2_no_name_of_a_manifest_is_ever_in_a_path_or_a_command_line(applied: World):
    places = [path for path, _ in walk(applied, "/run/the-root", "/run/reconcile")]
    rootfs = f"/run/reconcile/{applied.nsenter('cat', '/run/the-root/id').out.split()[0]}/bundles"
    inside = [path for path in places if "/rootfs/" in path.removeprefix(rootfs) or "/upper/" in path]
    # What the container sees bears the names of its own mounts, in the image's root and nowhere else.
    assert [path for path in places if "zebra" in path and path not in inside] == []
    lines = [line.split() for line in applied.nsenter("cat", "/proc/self/mountinfo").out.splitlines()]
    assert [line for line in lines if "zebra" in " ".join(line)] == []
    assert [command for command in applied.processes().values() if "zebra" in command] == []
    assert [name for name in applied.links() if "zebra" in name] == []
    assert "zebra" not in applied.tables()
    assert [folder for folder in applied.cgroups() if "zebra" in folder] == []
    assert "zebra" not in applied.nsenter("find", "/sys/fs/cgroup", "-name", "*zebra*").out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        ("mkdir /run/r && chown 65534 /run/r", "it belongs to uid 65534"),
        ("mkdir /run/r && chmod 777 /run/r", "others may write to it (mode 0777)"),
        ("mkdir /run/r && chgrp 65534 /run/r && chmod 770 /run/r", "others may write to it (mode 0770)"),
        ("touch /run/r", "it is no folder"),
    ],
)
def test_d4_root_that_belongs_to_others_is_refused(world: World, make: str, words: str):
    world.nsenter("sh", "-c", make)
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": {"image": BUSYBOX}}})
    for command in (["apply", "stack.yaml", "--yes"], ["get"]):
        said = world.run("--root", "/run/r", *command, check=1).err
        assert words in said
        assert "--root" in said
    assert world.nsenter("sh", "-c", "ls -A /run/r | grep -v '^/run/r$' || true").out == ""


@pytest.mark.parametrize("make", ["chown 65534 /run/reconcile", "chmod 777 /run/reconcile"])
def test_d4_run_directory_that_belongs_to_others_is_refused(world: World, make: str):
    world.nsenter("sh", "-c", f"mkdir /run/reconcile && {make}")
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": {"image": BUSYBOX}}})
    tried = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "/run/reconcile: the run directory must be root's alone" in tried.err + tried.out
    world.nsenter("sh", "-c", "chown 0 /run/reconcile; chmod 711 /run/reconcile")
    world.run("delete", "one", "--yes", check=0)


def test_d4_root_that_somebody_opened_is_closed_by_the_next_apply(world: World):
    apply(world, {"it": {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s"}})
    world.root.chmod(0o755)
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert stat.S_IMODE(world.root.stat().st_mode) == 0o700
