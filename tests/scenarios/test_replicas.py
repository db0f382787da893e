"""Replicas that keep data: each finds its volume, address, MAC and name again, whatever is done to it."""

import re
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def shard(world: World) -> Path:
    path = world.use("replicas")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return path


def scale(world: World, path: Path, count: int) -> None:
    path.write_text(re.sub(r"replicas: \d+", f"replicas: {count}", path.read_text()))
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert world.run("plan", "stack.yaml").code == 0


def replica(world: World, index: int) -> dict[str, Any]:
    return world.records()[f"container/shard/db/{index}"]


def belongings(world: World) -> dict[int, Any]:
    """What each replica is asked for by its own name, and where it is."""
    found = {}
    for key, item in world.records("containers").items():
        if item["name"] == "db":
            index = int(key.rpartition("/")[2])
            said = ask(world, f"http://db-{index}.back/who")
            mac = world.run("exec", f"db/{index}", "cat", "/sys/class/net/eth0/address", check=0).out.strip()
            found[index] = (said, item["status"]["addresses"]["back"], mac)
    return found


def ask(world: World, url: str) -> str:
    return world.run("exec", "ask", "timeout", "5", "wget", "-q", "-O", "-", url, check=0).out.strip()


def resolve(world: World, name: str) -> list[str]:
    said = world.run("exec", "ask", "nslookup", name).out
    return sorted(re.findall(r"Address(?: \d+)?: (\d+\.\d+\.\d+\.\d+)(?!:53)\b(?!:)", said))


def addresses(world: World) -> list[str]:
    items = world.records("containers").values()
    return sorted(item["status"]["addresses"]["back"][0] for item in items if item["name"] == "db")


def test_each_replica_finds_its_own_again(world: World, shard: Path):
    first = belongings(world)
    assert [said for said, _, _ in first.values()] == ["db", "db-2", "db-3"]
    pid = world.pid("shard/ask")
    scale(world, shard, 1)
    assert belongings(world) == {1: first[1]}
    assert {"volume/shard/data@2", "volume/shard/data@3"} <= set(world.records("volumes"))
    kept = world.run("plan", "stack.yaml").out
    assert "kept for replica 2, which is not in the manifest" in kept
    scale(world, shard, 3)
    assert belongings(world) == first
    world.edit(shard, 'VERSION: "1"', 'VERSION: "2"')
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert belongings(world) == first
    world.run("restart", "db", check=0)
    wait_until(lambda: all(replica(world, index)["status"]["pid"] for index in (1, 2, 3)), "all run")
    assert belongings(world) == first
    world.kill(replica(world, 2)["status"]["pid"])
    wait_until(lambda: replica(world, 2)["status"]["restarts"] == 1, "it is started again")
    wait_until(lambda: ask_quietly(world, "http://db-2/who") == "db-2", "it answers again")
    assert belongings(world) == first
    assert world.pid("shard/ask") == pid


def ask_quietly(world: World, url: str) -> str:
    return world.run("exec", "ask", "timeout", "1", "wget", "-q", "-O", "-", url).out.strip()


def test_scaling_touches_nobody_else(world: World, shard: Path):
    before = {key: item["status"]["incarnation"] for key, item in world.records("containers").items()}
    pids = {key: item["status"]["pid"] for key, item in world.records("containers").items()}
    shard.write_text(shard.read_text().replace("replicas: 3", "replicas: 5"))
    plan = world.plan("stack.yaml")
    assert sorted((action["verb"], action["key"]) for action in plan["actions"]) == [
        ("create", "container/shard/db/4"),
        ("create", "container/shard/db/5"),
        ("create", "volume/shard/data@4"),
        ("create", "volume/shard/data@5"),
    ]
    world.run("apply", "stack.yaml", "--yes", check=0)
    scale(world, shard, 2)
    after = world.records("containers")
    left = {key for key in before if key != "container/shard/db/3"}
    assert set(after) == left
    assert {key: after[key]["status"]["incarnation"] for key in left} == {key: before[key] for key in left}
    assert {key: after[key]["status"]["pid"] for key in left} == {key: pids[key] for key in left}


def test_one_name_answers_with_all_that_run_and_each_has_its_own(world: World, shard: Path):
    every = addresses(world)
    assert len(every) == 3
    assert resolve(world, "db") == resolve(world, "db.back") == every
    second = replica(world, 2)["status"]["addresses"]["back"]
    assert resolve(world, "db-2") == resolve(world, "db-2.back") == second
    world.run("stop", "db/2", check=0)
    assert resolve(world, "db") == sorted({*every} - {*second})
    assert resolve(world, "db-2") == []
    world.run("start", "db/2", check=0)
    assert resolve(world, "db") == every


@pytest.mark.parametrize("name", ["db/2", "db-2", "shard/db/2", "shard/db-2", "container/shard/db/2"])
def test_people_name_one_replica_in_several_ways(world: World, shard: Path, name: str):
    assert world.run("exec", name, "hostname", check=0).out.strip() == "db-2"


def test_a_name_without_index_means_all_or_for_exec_the_first_that_runs(world: World, shard: Path):
    assert world.run("exec", "db", "hostname", check=0).out.strip() == "db"
    world.run("stop", "db/1", check=0)
    assert world.run("exec", "db", "hostname", check=0).out.strip() == "db-2"
    assert [item["index"] for item in world.run("get", "container/db", "-o", "json", check=0).json()] == [1, 2, 3]
    assert {item["name"] for item in world.run("get", "volume/data", "-o", "json", check=0).json()} == {
        "data@1",
        "data@2",
        "data@3",
    }
    world.run("stop", "db", check=0)
    assert {replica(world, index)["status"]["phase"] for index in (1, 2, 3)} == {"exited"}
    world.run("start", "db", check=0)
    assert {replica(world, index)["status"]["phase"] for index in (1, 2, 3)} == {"running"}


def test_scaling_away_most_of_a_stack_needs_the_flag(world: World, shard: Path):
    shard.write_text(shard.read_text().replace("replicas: 3", "replicas: 0"))
    refused = world.run("apply", "stack.yaml", "--yes", check=3)
    assert "--allow-delete" in refused.err
    world.run("apply", "stack.yaml", "--yes", "--allow-delete", check=0)
    assert set(world.records("containers")) == {"container/shard/ask/1"}


def test_volumes_of_replicas_go_by_name_one_or_all(world: World, shard: Path):
    scale(world, shard, 1)
    world.run("delete", "volume/shard/data@3", "--yes", check=0)
    assert set(world.records("volumes")) == {"volume/shard/data@1", "volume/shard/data@2"}
    first = belongings(world)
    scale(world, shard, 3)
    assert belongings(world)[1] == first[1]
    world.run("delete", "shard", "--volume", "data", "--yes", check=0)
    assert world.records() == {}


def test_bad_version_stops_at_the_first_replica(world: World, shard: Path):
    before = {key: item["status"]["pid"] for key, item in world.records("containers").items()}
    world.edit(shard, "exec httpd -f -p 80 -h /data", "exit 7")
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "ended with 7" in result.out
    after = {key: item["status"]["pid"] for key, item in world.records("containers").items()}
    assert all(after.values())
    assert {key: pid for key, pid in after.items() if key != "container/shard/db/1"} == {
        key: pid for key, pid in before.items() if key != "container/shard/db/1"
    }
