"""X6: each program that we use is missing, killed, fails in nonsense, or hangs, while a stack becomes its next version.

The error names the program, what runs goes on, one apply (two at most) converges when the program is whole again, and
nothing is left. What hangs is killed at its deadline; those cells take as long and stay out of the suite but for the
shortest: RECONCILE_SLOW=1 runs all.
"""

import gzip
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

slow = pytest.mark.skipif(not os.environ.get("RECONCILE_SLOW"), reason="skipped because RECONCILE_SLOW is not set")


@dataclass(frozen=True)
class Program:
    """One that an apply starts."""

    path: str
    package: str
    seconds: float
    """Its deadline, with what the machine itself takes."""


PROGRAMS = {
    "runc": Program("/usr/sbin/runc", "runc", 45),
    "conmon": Program("/usr/bin/conmon", "conmon", 45),
    "nft": Program("/usr/sbin/nft", "nftables", 60),
    "aardvark-dns": Program("/usr/lib/podman/aardvark-dns", "aardvark-dns", 25),
    "sqfstar": Program("/usr/bin/sqfstar", "squashfs-tools", 90),
}
CHANGELOG = "/usr/share/doc/runc/changelog.Debian.gz"
HANG_LONG = ("runc", "conmon", "nft", "sqfstar")
HARMS = {
    "killed": "kill -9 $$",
    "garbage": r"printf 'what?\033[2J\001\377 is this\n' >&2; exit 3",
    "hang": "exec sleep 1000",
}


def stack(version: int) -> dict[str, Any]:
    """`kept` is the same in both; the second version wants of each program something."""
    box = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"]}
    web = {"image": "127.0.0.1:5000/web:1", "networks": ["front"], "ports": ["8080:8080"]}
    first = {"kept": web, "other": {**box, "networks": ["front"]}}
    if version == 1:
        return {"apiVersion": "reconcile/v1", "name": "programs", "networks": {"front": {}}, "containers": first}
    other = {**box, "networks": ["front", "back"], "env": {"VERSION": "2"}}
    return {
        "apiVersion": "reconcile/v1",
        "name": "programs",
        "networks": {"front": {}, "back": {}},
        "containers": {
            "kept": web,
            "other": other,
            "new": {**box, "image": "127.0.0.1:5000/web:2", "networks": ["back"]},
        },
    }


class Shim:
    """Another file in the place of a program, in this world only."""

    def __init__(self, world: World, program: Program) -> None:
        self.world, self.program = world, program
        self.real = f"/run/real/{Path(program.path).name}"
        world.nsenter("sh", "-c", f"mkdir -p /run/real && cp {program.path} {self.real}")

    def put(self, text: str = "") -> None:
        """Nothing that can be executed, or a script; `$REAL` in it is the program."""
        file = self.world.folder / "shim"
        file.write_text(text.replace("$REAL", self.real))
        file.chmod(0o755 if text else 0o644)
        for parent in file.parents[:5]:  # what makes layers runs as nobody
            parent.chmod(parent.stat().st_mode | 0o011)
        self.world.nsenter("mount", "--bind", str(file), self.program.path)

    def take_away(self) -> None:
        self.world.nsenter("umount", self.program.path)


def begin(world: World) -> int:
    """The first version runs; the pid of who stays."""
    world.write(stack(1))
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.write(stack(2))
    return world.pid("programs/kept")


def fail(world: World, name: str, harm: str) -> None:
    """An apply of the second version while a program is not whole."""
    program = PROGRAMS[name]
    if name == "aardvark-dns":  # It is started once, and then only told: what hangs or fails is the next one.
        world.kill(*(pid for pid, command in world.processes().items() if "aardvark-dns" in command.split()[0]))
    if name == "nft":  # Of elements the kernel is told without it: it is for chains that are not as they were loaded.
        world.nsenter("nft", "add", "chain", "inet", f"reconcile_{world.root_ids()[0]}", "others")
    shim = Shim(world, program)
    shim.put(f"#!/bin/sh\n{HARMS[harm]}\n" if harm != "missing" else "")
    began = time.monotonic()
    said = world.run("apply", "stack.yaml", "--yes", check=1, timeout=250)
    took = time.monotonic() - began
    shim.take_away()
    text = said.err + said.out
    assert name in text, str(said)
    assert "mistake in reconcile" not in text, str(said)
    assert "[Errno" not in text, str(said)
    assert "hint" in text
    assert "\x1b" not in text
    assert "\1" not in text
    match harm:
        case "missing":
            assert f"apt-get install {program.package}" in text, str(said)
        case "garbage" if name != "aardvark-dns":  # which has no way to us for its words
            assert "is this" in text, str(said)
        case "killed":  # of the runtime only conmon could know it, which says nothing
            assert ("without a word" if name == "runc" else "SIGKILL") in text, str(said)
        case "hang":
            assert took < program.seconds, str(said)
            assert not [line for line in world.processes().values() if "sleep 1000" in line], str(said)


def converge(world: World, kept: int) -> None:
    """With all programs whole."""
    for _ in range(2):
        result = world.run("apply", "stack.yaml", "--yes")
        if result.code == 0:
            break
    assert world.plan("stack.yaml")["actions"] == [], str(result)
    assert world.pid("programs/kept") == kept
    wait_until(lambda: "It works" in world.fetch("http://127.0.0.1:8080/"), "the page is served")
    world.run("exec", "other", "nslookup", "new", check=0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_x6_program_that_is_missing_killed_or_fails_is_named_and_the_rest_goes_on(world: World, name: str):
    kept = begin(world)
    for harm in ("missing", "killed", "garbage"):
        if (name, harm) == ("sqfstar", "missing"):
            continue  # Layers are folders then: see below.
        fail(world, name, harm)
        assert "It works" in world.fetch("http://127.0.0.1:8080/"), harm
    assert world.pid("programs/kept") == kept
    converge(world, kept)


@pytest.mark.parametrize("name", ["aardvark-dns", *(pytest.param(name, marks=slow) for name in HANG_LONG)])
def test_x6_program_that_hangs_is_killed_at_its_deadline_and_named(world: World, name: str):
    kept = begin(world)
    fail(world, name, "hang")
    assert world.pid("programs/kept") == kept
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    converge(world, kept)


def test_x6_resolver_that_hangs_when_it_is_told_is_started_anew(world: World):
    kept = begin(world)
    (resolver,) = (pid for pid, command in world.processes().items() if "aardvark-dns" in command.split()[0])
    world.nsenter("sh", "-c", f"kill -STOP {resolver}")
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert resolver not in world.processes()
    world.run("exec", "other", "nslookup", "new", check=0)
    assert world.pid("programs/kept") == kept


def test_x6_without_a_program_for_layers_they_are_folders_and_doctor_names_it(world: World):
    world.write(stack(1))
    shim = Shim(world, PROGRAMS["sqfstar"])
    shim.put()
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert "It works" in world.fetch("http://127.0.0.1:8080/")
    assert re.search(r"sqfstar.*apt-get install squashfs-tools", world.run("doctor").out, re.DOTALL)
    shim.take_away()


@pytest.mark.skipif(not Path(CHANGELOG).exists(), reason="skipped because this machine keeps no changelogs of packages")
@pytest.mark.parametrize("mended", [False, True], ids=["as released", "mended by Debian"])
def test_x6_program_with_known_holes_is_named_by_doctor_unless_debian_mended_it(world: World, *, mended: bool):
    version, changelog = world.folder / "dpkg-query", world.folder / "changelog.Debian.gz"
    version.write_text("#!/bin/sh\necho '1.1.5+ds1-1'\n")
    version.chmod(0o755)
    holes = "CVE-2025-31133 CVE-2025-52565 CVE-2025-52881"
    changelog.write_bytes(gzip.compress(f"runc (1.1.5+ds1-1)\n  * {holes if mended else 'nothing'}\n".encode()))
    for file, place in ((version, "/usr/bin/dpkg-query"), (changelog, CHANGELOG)):
        world.nsenter("mount", "--bind", str(file), place)
    said = world.run("doctor").out
    assert ("known holes CVE-2025-31133, CVE-2025-52565, CVE-2025-52881" in said) is not mended, said
    assert ("apt-get install runc" in said) is not mended, said
    for place in ("/usr/bin/dpkg-query", CHANGELOG):
        world.nsenter("umount", place)
