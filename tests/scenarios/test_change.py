"""Every property of a container, changed on a running one: what happens is what the schemas' x-change says.

In place keeps the process, restart keeps the container (its writable layer), replace makes a new one. One stack holds one
container a property; it is applied, changed in every property at once, and applied again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, open_world

pytestmark = pytest.mark.root

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "schemas/container.schema.json").read_text())

ABSENT = object()
CHECK = {"test": ["CMD", "true"], "interval": "1s", "start_period": "5s", "start_interval": "100ms"}

CHANGES: dict[str, tuple[Any, Any]] = {
    "image": ("box", "whiteout"),
    "command": (["pause"], ["pause", "again"]),
    "entrypoint": (ABSENT, ["tini", "--"]),
    "env": ({"A": "1"}, {"A": "2"}),
    "workdir": ("/srv", "/tmp"),
    "user": (ABSENT, "www"),
    "hostname": ("one", "two"),
    "labels": ({"a": "1"}, {"a": "2"}),
    "stop_signal": ("SIGTERM", "SIGINT"),
    "stop_grace": ("5s", "6s"),
    "read_only": (False, True),
    "tty": (False, True),
    "init": (False, True),
    "restart": ("always", "no"),
    "networks": (["front"], ["back"]),
    "networks-aliases": ({"front": {"aliases": ["a"]}}, {"front": {"aliases": ["b"]}}),
    "networks-ipv4": ({"front": {"ipv4": "10.70.1.200"}}, {"front": {"ipv4": "10.70.1.201"}}),
    "ports": (["127.0.0.1:8181:80"], ["127.0.0.1:8182:80"]),
    "mounts": (["data:/data"], ["data:/other"]),
    "configs": (["one"], [{"source": "two", "target": "/one"}]),
    "secrets": ([{"source": "one", "on_change": "nothing"}], [{"source": "two", "target": "one", "on_change": "nothing"}]),
    "resources": ({"cpus": 1, "memory": "64M", "pids": 100}, {"cpus": 0.5, "memory": "128M", "pids": 50}),
    "depends_on": ({"image": "started"}, ABSENT),
    "healthcheck": (CHECK, {**CHECK, "retries": 5}),
    "logs": ({"max_size": "1M"}, {"max_size": "2M"}),
    "cap_add": (ABSENT, ["NET_ADMIN"]),
    "cap_drop": (ABSENT, ["CHOWN"]),
    "ulimits": ({"nofile": 512}, {"nofile": 1024}),
    "sysctls": ({"net.core.somaxconn": 512}, {"net.core.somaxconn": 1024}),
    "shm_size": ("32M", "64M"),
    "extra_hosts": ({"db.internal": "10.1.2.3"}, {"db.internal": "10.1.2.4"}),
    "dns": (["9.9.9.9"], ["9.9.9.10"]),
    "dns_search": (["one.example"], ["two.example"]),
}
ELSEWHERE = {
    "env_file": "its values are part of env: test_value_in_an_env_file_replaces",
    "update": "how, not what: test_converge_replace.py",
    "replicas": "how many, not what: test_replicas.py",
    "job": "whether it runs at all: test_jobs.py",
    "stdin": "what reads it: test_run.py",
    "runtime": "only one runtime is installed",
}

EFFECTS = {"networks-aliases": "in-place", "networks-ipv4": "replace", "secrets": "in-place"}
"""Where it is another than that of the whole property; of files it is what `on_change` says."""

SHOWN = {
    "command": ("cat /proc/1/cmdline", "again"),
    "entrypoint": ("cat /proc/1/cmdline", "tini"),
    "env": ("tr '\\0' '\\n' </proc/1/environ", "A=2"),
    "workdir": ("readlink /proc/1/cwd", "/tmp"),
    "user": ("grep ^Uid /proc/1/status", "82"),
    "hostname": ("hostname", "two"),
    "read_only": ("touch /x 2>&1 || true", "Read-only"),
    "tty": ("readlink /proc/1/fd/0", "/dev/"),
    "init": ("cat /proc/1/cmdline", "init"),
    "cap_add": ("grep CapEff /proc/1/status", "b"),
    "ulimits": ("grep 'open files' /proc/1/limits", "1024"),
    "sysctls": ("cat /proc/sys/net/core/somaxconn", "1024"),
    "shm_size": ("df -k /dev/shm", "65536"),
    "extra_hosts": ("cat /etc/hosts", "10.1.2.4"),
    "dns_search": ("cat /etc/resolv.conf", "two.example"),
    "configs": ("cat /one", "second"),
    "secrets": ("cat /run/secrets/one", "second"),
    "mounts": ("grep /other /proc/mounts", "/other"),
}
"""What shows the new value inside: a script, and a word of what it prints."""


def expected(name: str) -> str:
    return str(EFFECTS.get(name) or SCHEMA["properties"][name].get("x-change", SCHEMA["x-change"]))


def container_name(name: str) -> str:
    return name.replace("_", "-")


def manifest(side: int) -> dict[str, Any]:
    containers = {}
    for name, values in CHANGES.items():
        base = {"image": "box", "command": ["pause"], "stop_grace": "2s", "networks": ["front"]}
        value = values[side]
        containers[container_name(name)] = base if value is ABSENT else {**base, name.partition("-")[0]: value}
    return {
        "apiVersion": "reconcile/v1",
        "name": "change",
        "images": {
            "box": {"from": "127.0.0.1:5000/busybox:1"},
            "whiteout": {"from": "127.0.0.1:5000/whiteout:1"},
        },
        "networks": {"front": {"subnet": "10.70.1.0/24"}, "back": {"subnet": "10.70.2.0/24"}},
        "volumes": {"data": {}},
        "configs": {"one": {"content": "first"}, "two": {"content": "second"}},
        "secrets": {"one": {"env": "FIRST"}, "two": {"env": "SECOND"}},
        "containers": containers,
    }


class Changed:
    """The stack before and after, with the plan in between."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.env = {"FIRST": "first", "SECOND": "second"}
        world.write(manifest(0))
        world.run("apply", "stack.yaml", "--yes", check=0)
        self.before = world.records("containers")
        for name in CHANGES:
            world.run("exec", container_name(name), "touch", "/tmp/mark")
        world.write(manifest(1))
        self.plan = {action["key"]: action for action in world.plan("stack.yaml")["actions"]}
        self.applied = world.run("apply", "stack.yaml", "--yes")
        self.after = world.records("containers")
        self.second = world.plan("stack.yaml")["actions"]


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Iterator[Changed]:
    world = open_world(tmp_path_factory.mktemp("change") / "world", lab_storage)
    try:
        made = Changed(world)
        yield made
        world.assert_nothing_left()
    finally:
        world.close()


def test_every_property_of_the_schema_is_in_the_table():
    built = {name for name, value in SCHEMA["properties"].items() if "x-not-built" not in value}
    assert built - ELSEWHERE.keys() == {name.partition("-")[0] for name in CHANGES}


@pytest.mark.parametrize("name", CHANGES)
def test_change_does_what_the_schema_says(changed: Changed, name: str):
    key = f"container/change/{container_name(name)}/1"
    effect = expected(name)
    action = changed.plan[key]
    assert {change["effect"] for change in action["changes"]} - {"ignore"} == {effect}, action
    assert all(change["path"].startswith("/" + name.partition("-")[0]) for change in action["changes"]), action
    assert action["verb"] == {"in-place": "update"}.get(effect, effect), action
    before, after = changed.before[key]["status"], changed.after[key]["status"]
    assert after["phase"] == "running", changed.applied
    assert (before["pid"] == after["pid"]) == (effect == "in-place")
    if name not in ("read_only",):
        mark = changed.world.run("exec", "-i", container_name(name), "ls", "/tmp/mark").code == 0
        assert mark == (effect != "replace"), "the writable layer goes with a replace, and only then"
    if name in SHOWN:
        script, word = SHOWN[name]
        assert word in changed.world.run("exec", container_name(name), "sh", "-c", script, check=0).out


def test_nothing_is_left_to_do_after_all_changes(changed: Changed):
    assert changed.applied.code == 0, changed.applied
    assert changed.second == []


def test_changed_limits_are_in_the_cgroup(changed: Changed):
    pid = changed.after["container/change/resources/1"]["status"]["pid"]
    lines = (changed.world.proc / str(pid) / "cgroup").read_text().splitlines()
    values = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for file in ("memory.limit_in_bytes", "memory.max", "pids.max"):
            for top in ("", *controllers.split(",")):
                found = Path("/sys/fs/cgroup") / top / path.lstrip("/") / file
                values += [found.read_text().strip()] if found.exists() else []
    assert {str(128_000_000 // 4096 * 4096), "50"} <= set(values) or {str(128 << 20), "50"} <= set(values), values


def test_changed_port_moves_without_a_new_process(changed: Changed):
    assert "8182" in changed.world.tables()
    assert "8181" not in changed.world.tables()


def test_value_in_an_env_file_replaces_and_is_never_shown(world: World):
    box = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s", "env_file": "./it.env"}
    world.write("TOKEN=planted-first\n", "it.env")
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": {"it": box}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.write("TOKEN=planted-second\n", "it.env")
    [action] = world.plan("stack.yaml")["actions"]
    assert (action["verb"], [change["path"] for change in action["changes"]]) == ("replace", ["/env/TOKEN"])
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert "planted-second" in world.run("exec", "it", "env", check=0).out
    for result in world.transcript[:-1]:
        assert "planted" not in result.out + result.err, result
    for path in world.root.rglob("*"):
        if path.is_file():
            assert b"planted" not in path.read_bytes(), f"in clear in {path}"
