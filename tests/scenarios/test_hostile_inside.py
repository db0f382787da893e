"""From inside a container with default settings: every published way out, tried on the real kernel. Rows B1 to B8."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from lab import escapes
from lab.world import World
from scenarios.hostile import BUSYBOX, apply, interpreter, probe

pytestmark = pytest.mark.root

REFUSED = {"EPERM", "EACCES", "EROFS"}
ABSENT = {"ENOENT", "empty", "no such call on this machine"}
DEFAULT_DEVICES = {
    *(
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ),
}


def test_b6_every_published_way_out_is_refused(world: World):
    binds, _ = interpreter()
    apply(world, {"it": {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": binds}})
    runtime = Path(shutil.which("runc") or "")
    before = {path: path.read_bytes() for path in (runtime, Path(shutil.which("conmon") or ""))}
    for options in ((), ("--user", "82:82")):
        found = probe(world, "it", options=options)
        wrong = {name: answer for name, answer in found["answers"].items() if answer not in REFUSED | ABSENT}
        assert wrong == {}
        assert len(found["answers"]) == len(escapes.ATTEMPTS) > 100
        facts = found["facts"]
        assert set(facts["dev"]) == DEFAULT_DEVICES
        assert facts["links"] == ["eth0", "lo"]
        # Its first process, the probe and a child: nobody of the host's.
        assert len(facts["pids"]) <= 4
        assert facts["Seccomp"] == "2"
        assert facts["oom"] == "0"
        assert all(line.endswith(":/") for line in facts["cgroup"].splitlines()), "it sees where its cgroup is"
        assert facts["root"] == sorted(path.name for path in (world.proc / str(world.pid("one/it")) / "root").iterdir())
        if facts["after chroot"]:
            assert facts["after chroot"].split() == facts["root"]
    assert before == {path: path.read_bytes() for path in before}


def test_b8_no_capability_is_inherited_or_ambient_for_root_nor_others(world: World):
    binds, python = interpreter()
    told = {"image": BUSYBOX, "restart": "no", "command": [*python, "/lab/escapes.py", "none"], "mounts": binds}
    sleeping = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": binds}
    apply(world, {"root": told, "other": {**told, "user": "www"}, "it": {**sleeping}, "as": {**sleeping, "user": "82"}})
    default = f"{sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 27, 29, 31)):016x}"
    found = {}
    for name in ("root", "other"):
        world.run("wait", name, check=0)
        found[name] = json.loads(world.run("logs", name, check=0).out)["facts"]
    found["exec as root"] = probe(world, "it", "none")["facts"]
    found["exec as another"] = probe(world, "it", "none", options=("--user", "www"))["facts"]
    found["exec in another's"] = probe(world, "as", "none")["facts"]
    for name, facts in found.items():
        root = name in ("root", "exec as root")
        assert (facts["CapInh"], facts["CapAmb"]) == ("0" * 16, "0" * 16), name
        assert (facts["CapPrm"], facts["CapEff"]) == ((default, default) if root else ("0" * 16, "0" * 16)), name
        assert facts["CapBnd"] == default, name


def test_b2_b6_no_descriptor_of_the_host_reaches_a_container_or_a_command_in_it(world: World):
    binds, python = interpreter()
    told = {"image": BUSYBOX, "restart": "no", "command": [*python, "/lab/escapes.py", "none"], "mounts": binds}
    sleeping = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": binds}
    apply(world, {"told": told, "it": sleeping})
    world.run("wait", "told", check=0)
    for facts in (json.loads(world.run("logs", "told", check=0).out)["facts"], probe(world, "it", "none")["facts"]):
        assert set(facts["fds"]) == {"0", "1", "2"}
        assert all(re.match(r"pipe:|/dev/null$|socket:", target) for target in facts["fds"].values()), facts["fds"]


def test_b6_runtime_that_enters_a_container_can_not_be_overwritten_from_it(world: World):
    binds, python = interpreter()
    apply(world, {"it": {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": binds}})
    programs = [Path(shutil.which(name) or "") for name in ("runc", "conmon")]
    before = [hashlib.sha256(program.read_bytes()).hexdigest() for program in programs]
    watching = world.popen("exec", "it", *python, "/lab/escapes.py", "overwrite")
    for _ in range(4):
        world.run("exec", "it", "/proc/self/exe", "--version")
        world.run("exec", "it", "true", check=0)
    world.run("exec", "it", "touch", "/tmp/stop", check=0)
    found = json.loads(watching.communicate(timeout=60)[0])
    assert found["written"] == [], found
    assert found["seen"], "it never saw who came in, so it tried nothing"
    assert before == [hashlib.sha256(program.read_bytes()).hexdigest() for program in programs]
    assert world.run("exec", "it", "true").code == 0
