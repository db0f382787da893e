"""Docker and podman in the same network as we, started and stopped beside us: neither breaks the other."""

import re
import sys
from collections.abc import Iterator

import pytest

from lab.images import lab_images, save_docker
from lab.peer import Peer, missing_programs
from lab.world import World, wait_until

MISSING = missing_programs()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"skipped because {', '.join(MISSING)} is not there: a root with Docker and podman, see tests/lab/peer.py",
    ),
]

ASK = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).read().decode())"
HOST, OUTSIDE = "192.0.2.2", "192.0.2.9"


@pytest.fixture
def lan(world: World) -> Iterator[World]:
    """The world with a neighbour outside, who serves a page and may ask for ours; the shop's port is open to it."""
    stack = world.use("shop")
    world.edit(stack, "127.0.0.1:8080:8080", "8080:8080")
    world.nsenter(
        "sh",
        "-ec",
        f"""ip netns add lan
        ip link add lan0 type veth peer name eth0 netns lan
        ip address add {HOST}/24 dev lan0; ip link set lan0 up; ip route add default via {OUTSIDE}
        nsenter --net=/run/netns/lan sh -ec 'ip address add {OUTSIDE}/24 dev eth0; ip link set eth0 up; ip link set lo up
        ip route add default via {HOST}'
        mkdir -p outside; echo of the world outside >outside/index.html""",
    )
    command = ["nsenter", "--net=/run/netns/lan", "busybox", "httpd", "-f", "-p", f"{OUTSIDE}:80", "-h", "outside"]
    with world.spawn(command) as server:
        yield world
        world.signal(server)
    world.nsenter("sh", "-c", "ip netns delete lan; umount -l /run/netns; ip link delete lan0 2>/dev/null; true")


@pytest.fixture
def peer(lan: World) -> Iterator[Peer]:
    made = Peer(lan)
    save_docker(lan.folder / "page.tar", "page:1", lab_images()["web:1"])
    yield made
    made.close()


def ask(world: World, url: str) -> str:
    """What the neighbour outside is answered; "" where nothing comes."""
    return world.nsenter("nsenter", "--net=/run/netns/lan", sys.executable, "-c", ASK, url, check=False).out


def ways(world: World) -> dict[str, bool]:
    """Which ways of the shop are open."""
    inside = "timeout 2 wget -q -O - http://{} || true"
    return {
        "in": "It works" in ask(world, f"http://{HOST}:8080/"),
        "out": "of the world" in world.run("exec", "store", "sh", "-c", inside.format(OUTSIDE)).out,
        "between": "It works" in world.run("exec", "store", "sh", "-c", inside.format("www:8080")).out,
        "past the port": "It works" in ask(world, "http://10.40.0.10:8080/"),
    }


OPEN = {"in": True, "out": True, "between": True, "past the port": False}


def pids(world: World) -> dict[str, int]:
    records = world.records("containers")
    return {key: record["status"]["pid"] for key, record in records.items()}


def test_x9_docker_and_podman_that_come_and_go_beside_us_change_nothing_of_ours_nor_we_of_theirs(lan: World, peer: Peer):
    lan.run("apply", "stack.yaml", "--yes", check=0)
    before = pids(lan)
    assert ways(lan) == OPEN

    peer.start_docker()
    peer.run("docker", "load", "-i", "/world/page.tar")
    peer.run("docker", "run", "-d", "--name", "theirs", "-p", "9090:8080", "page:1")
    peer.podman("load", "-i", "/world/page.tar")
    peer.podman("run", "-d", "--name", "other", "-p", "9091:8080", "--pull", "never", "page:1")
    theirs = [f"http://{HOST}:{port}/" for port in (9090, 9091)]
    wait_until(lambda: all("It works" in ask(lan, url) for url in theirs), "theirs answer")
    assert ways(lan) == OPEN
    assert lan.run("drift", check=0).out == "no drift\n"

    # We come and go beside them.
    lan.edit(lan.folder / "stack.yaml", "COLOUR: red", "COLOUR: blue")
    lan.run("apply", "stack.yaml", "--yes", check=0)
    lan.run("delete", "shop", "--yes", check=0)
    assert all("It works" in ask(lan, url) for url in theirs)
    lan.run("apply", "stack.yaml", "--yes", check=0)
    assert ways(lan) == OPEN
    assert all("It works" in ask(lan, url) for url in theirs)

    # They go.
    before = pids(lan)
    peer.podman("rm", "--force", "--time", "0", "other")
    peer.run("docker", "rm", "-f", "theirs")
    peer.stop_docker()
    assert ways(lan) == OPEN
    assert lan.run("drift", check=0).out == "no drift\n"
    assert pids(lan) == before


def test_x9_docker_that_was_first_and_drops_what_is_forwarded_is_named_with_the_command_that_mends_it(
    lan: World, peer: Peer
):
    lan.nsenter("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
    peer.start_docker()
    assert "policy drop" in lan.nsenter("nft", "list", "chain", "ip", "filter", "FORWARD").out
    applied = lan.run("apply", "stack.yaml", "--yes", check=0)
    closed = ways(lan)
    assert (closed["in"], closed["out"]) == (False, False), "Docker's policy holds for ours too"
    named = "table ip filter chain FORWARD drops"
    assert named in applied.out + applied.err
    assert named in lan.run("drift", check=0).out
    mend = re.findall(r"`(iptables .*?)`", lan.run("drift").out)[0]
    assert mend.startswith("iptables -I DOCKER-USER -i 'b")
    assert mend in lan.run("doctor").out

    peer.run("sh", "-ec", mend)
    assert ways(lan) == OPEN
    assert named not in lan.run("doctor").out
    assert lan.run("drift", check=0).out == "no drift\n"

    # It stays so when Docker is started anew.
    before = pids(lan)
    peer.stop_docker()
    assert ways(lan) == OPEN
    peer.start_docker()
    assert ways(lan) == OPEN
    assert pids(lan) == before
    assert lan.run("drift", check=0).out == "no drift\n"
