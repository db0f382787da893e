"""Whose a stack is, and what on the machine is not ours: refused, named, and left as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.world import World

pytestmark = pytest.mark.root

BOX = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "0s"}


def put(world: World, file: str, name: str, **rest: Any) -> str:
    (world.folder / file).parent.mkdir(parents=True, exist_ok=True)
    rest.setdefault("containers", {"web": BOX})
    world.write({"apiVersion": "reconcile/v1", "name": name, **rest}, file)
    return file


def end(world: World, process: "subprocess.Popen[bytes]") -> None:
    world.signal(process)
    process.communicate(timeout=20)


def git(world: World, folder: str, *arguments: str) -> None:
    where = ["-c", "safe.directory=*", "-C", str(world.folder / folder)]
    subprocess.run(["git", *where, *arguments], check=True, capture_output=True)


# ---------------------------------------------------------------- origins


def test_swapped_checkouts_of_one_name_are_told_apart(world: World):
    mine, other = put(world, "a/stack.yaml", "blog"), put(world, "b/stack.yaml", "blog", containers={"other": BOX})
    world.run("apply", mine, "--yes", check=0)
    pid = world.pid("blog/web")
    for command in (["apply", other, "--yes"], ["plan", other], ["delete", other, "--yes"]):
        said = world.run(*command, check=3).err
        assert f"belongs to file:{world.folder}/a/stack.yaml, not to file:{world.folder}/b/stack.yaml" in said
        assert "--take-over" in said
    assert world.pid("blog/web") == pid
    world.run("apply", other, "--yes", "--take-over", check=0)
    assert set(world.records("containers")) == {"container/blog/other/1"}
    assert f"belongs to file:{world.folder}/b/stack.yaml" in world.run("apply", mine, "--yes", check=3).err
    world.run("delete", mine, "--yes", "--take-over", check=0)


def test_moved_folder_is_said_to_have_been_moved(world: World):
    world.run("apply", put(world, "a/stack.yaml", "blog"), "--yes", check=0)
    (world.folder / "a").rename(world.folder / "b")
    said = world.run("apply", "b/stack.yaml", "--yes", check=3).err
    assert "that file is not there any more" in said
    assert "if the manifest was moved here, that is meant: give --take-over once" in said
    world.run("apply", "b/stack.yaml", "--take-over", check=0)
    assert world.run("apply", "b/stack.yaml", check=0).out == "nothing to do\n"


def test_checkouts_of_one_remote_are_one_origin_and_a_remote_that_comes_later_changes_nothing(world: World):
    for folder in ("one", "two"):
        put(world, f"{folder}/stack.yaml", "blog")
        git(world, folder, "init")
    world.run("apply", "one/stack.yaml", "--yes", check=0)
    assert world.run("apply", "two/stack.yaml").code == 3, "two work trees without a remote are two places"
    for folder in ("one", "two"):
        git(world, folder, "remote", "add", "origin", "https://me:secret@git.test/team/blog.git")
    assert world.run("apply", "one/stack.yaml", check=0).out == "nothing to do\n"
    assert world.run("apply", "two/stack.yaml", check=0).out == "nothing to do\n"
    (world.folder / "alone").mkdir()
    (world.folder / "two/stack.yaml").rename(world.folder / "alone/stack.yaml")
    said = world.run("apply", "alone/stack.yaml", check=3).err
    assert "belongs to git:https://git.test/team/blog.git:stack.yaml" in said
    assert "secret" not in said


def test_what_was_piped_in_is_one_origin_wherever_it_comes_from(world: World):
    text = json.dumps({"apiVersion": "reconcile/v1", "name": "blog", "containers": {"web": BOX}})

    def pipe(command: str, folder: Path, *, code: int) -> str:
        done = world.nsenter("sh", "-c", f"cd {folder} && {command}", stdin=text, check=False)
        assert done.code == code, str(done)
        return done.err

    (world.folder / "a").mkdir()
    reconcile = f"{sys.executable} -m reconciler.cli.main"
    pipe(f"{reconcile} apply - --yes", world.folder, code=0)
    pipe(f"{reconcile} apply - --yes", world.folder / "a", code=0)
    said = world.run("apply", put(world, "a/stack.yaml", "blog"), check=3).err
    assert f"stack blog belongs to stdin, not to file:{world.folder}/a/stack.yaml" in said
    pipe(f"{reconcile} delete - --yes", world.folder / "a", code=0)


def test_named_origin_wins_over_the_place(world: World):
    for folder in ("a", "b"):
        put(world, f"{folder}/stack.yaml", "blog", origin="team-web")
    world.run("apply", "a/stack.yaml", "--yes", check=0)
    assert world.run("apply", "b/stack.yaml", check=0).out == "nothing to do\n"


def test_renamed_stack_is_named_with_what_it_holds(world: World):
    port = {**BOX, "ports": ["127.0.0.1:8085:80"]}
    world.run("apply", put(world, "stack.yaml", "old", containers={"web": port, "two": BOX}), "--yes", check=0)
    put(world, "stack.yaml", "new", containers={"web": port})
    said = world.run("apply", "stack.yaml", "--yes", check=1).err
    assert "publish 127.0.0.1:8085/tcp for container/new/web/1: the port is held by container/old/web/1" in said
    assert "if that stack was renamed: `reconcile delete old` removes what is left of it" in said
    put(world, "stack.yaml", "new")
    out = world.run("plan", "stack.yaml", check=2).out
    words = "stack old comes from this manifest too: 2 containers of it run and hold 127.0.0.1:8085/tcp; was it renamed?"
    assert words in out
    world.run("delete", "old", "--yes", check=0)
    assert "comes from this manifest" not in world.run("plan", "stack.yaml", check=2).out


# ---------------------------------------------------------------- what we did not make


def test_what_others_made_is_as_it_was_after_an_apply_and_a_delete(world: World):
    for command in (
        "ip link add foreign0 type bridge",
        "ip address add 10.77.0.1/24 dev foreign0",
        "ip link set foreign0 up",
        "ip link add name vforeign type veth peer name vpeer",
        "ip route add 10.78.0.0/16 dev foreign0",
        "nft add table inet filter",
        "nft 'add chain inet filter input { type filter hook input priority 0; policy accept; }'",
        "nft add table ip nat",
        "nft add table inet reconcile_others",
        "mkdir -p /run/reconcile/others",
        "touch /run/reconcile/others/file",
    ):
        world.nsenter("sh", "-c", command)

    def look() -> list[str]:
        commands = (
            "ip -o link | sed 's/@.*//' | cut -d: -f2",
            "ip -4 -o address show dev foreign0",
            "ip route show dev foreign0",
        )
        asked = (*commands, "nft list table inet filter", "nft list table ip nat", "nft list table inet reconcile_others")
        return [world.nsenter("sh", "-c", command).out for command in (*asked, "ls /run/reconcile/others")]

    before = look()
    world.run("apply", put(world, "stack.yaml", "blog", networks={"front": {}}), "--yes", check=0)
    assert look()[1:] == before[1:]
    world.run("delete", "blog", "--yes", check=0)
    assert look() == before
    world.nsenter("sh", "-c", "rm -r /run/reconcile/others; rmdir /run/reconcile; nft flush ruleset")
    for link in ("foreign0", "vforeign"):
        world.nsenter("ip", "link", "delete", link)


def test_what_others_hold_is_named_before_anything_changes(world: World):
    world.nsenter("ip", "link", "add", "foreign0", "type", "bridge")
    world.nsenter("ip", "address", "add", "10.77.0.1/24", "dev", "foreign0")
    world.nsenter("ip", "link", "set", "foreign0", "up")
    put(world, "subnet.yaml", "a", networks={"default": {"subnet": "10.77.0.128/25"}})
    said = world.run("apply", "subnet.yaml", "--yes", check=1).err
    assert "network/a/default: the subnet 10.77.0.128/25 overlaps 10.77.0.0/24" in said
    assert "foreign0" in said
    listener = world.spawn(["python3", "-m", "http.server", "8086", "--bind", "127.0.0.1"])
    try:
        while not world.fetch("http://127.0.0.1:8086/"):
            pass
        put(world, "port.yaml", "b", containers={"web": {**BOX, "ports": ["8086:80"]}})
        said = world.run("apply", "port.yaml", "--yes", check=1).err
        assert "publish 0.0.0.0:8086/tcp for container/b/web/1: the port is held by python3 (pid " in said
    finally:
        end(world, listener)
    world.nsenter("ip", "link", "delete", "foreign0")
    assert world.records() == {}


def test_folder_with_other_things_does_not_become_a_root(world: World):
    home = world.folder / "house"
    home.mkdir(mode=0o755)
    (home / "letters").write_text("dear …")
    said = world.run("--root", str(home), "apply", put(world, "stack.yaml", "blog"), "--yes", check=1).err
    assert f"{home}: this folder holds other things (letters)" in said
    assert home.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in home.iterdir()] == ["letters"]


def test_things_in_the_roots_folders_that_do_not_look_like_ours_stay(world: World):
    manifest = put(world, "stack.yaml", "blog")
    world.run("apply", manifest, "--yes", check=0)
    kept = world.root / "containers" / "notes"
    kept.mkdir()
    (kept / "file").write_text("mine")
    put(world, "stack.yaml", "blog", containers={"web": {**BOX, "env": {"A": "b"}}})
    world.run("apply", manifest, "--yes", check=0)
    world.run("delete", "blog", "--yes", check=0)
    assert (kept / "file").read_text() == "mine"


def test_a_cgroup_that_others_made_inside_ours_stays_with_its_processes(world: World):
    manifest = put(world, "stack.yaml", "blog")
    world.run("apply", manifest, "--yes", check=0)
    parent = min((folder for folder in world.cgroups() if "monitors" not in folder), key=len)
    process = world.spawn(["sleep", "600"])
    foreign = Path(parent) / "foreign"
    try:
        foreign.mkdir()
        (foreign / "cgroup.procs").write_text(str(process.pid))
        world.run("delete", "blog", "--yes", check=0)
        assert process.poll() is None
        # Race: nsenter's child is in it as well, if it was not there yet when nsenter was moved.
        assert str(process.pid) in (foreign / "cgroup.procs").read_text().split()
        assert world.run("apply", manifest, "--yes").code == 0
        world.run("delete", "blog", "--yes", check=0)
    finally:
        end(world, process)
        os.rmdir(foreign)  # noqa: PTH106 - a cgroup
        os.rmdir(parent)  # noqa: PTH106
