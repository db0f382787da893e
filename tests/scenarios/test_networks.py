"""Ports, names, isolation: who reaches whom."""

import socket

import pytest

from lab.world import World

pytestmark = pytest.mark.root


@pytest.fixture
def nets(world: World) -> World:
    world.use("networks")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def reach(world: World, container: str, url: str) -> bool:
    return "It works" in world.run("exec", container, "timeout", "3", "wget", "-q", "-O", "-", url).out


def address(world: World, name: str, network: str) -> str:
    return str(world.record(f"nets/{name}")["status"]["addresses"][network][0])


def test_published_ports_answer_on_loopback_and_on_every_address(nets: World):
    nets.nsenter("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    assert "It works" in nets.fetch("http://127.0.0.1:8080/")
    assert "It works" in nets.fetch("http://192.0.2.7:8080/")
    assert "It works" in nets.fetch("http://127.0.0.1:9000/")
    assert nets.fetch("http://192.0.2.7:9000/") == "", "published on loopback only"


def test_containers_reach_a_published_port_of_their_own_and_of_others(nets: World):
    gateway = "10.50.1.1"
    assert reach(nets, "near", f"http://{gateway}:8080/")
    assert reach(nets, "web", f"http://{gateway}:8080/"), "hairpin"


def test_udp_port_is_published(nets: World):
    with nets.network(of="nets/near"):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with nets.network():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 7000))
        for one in (server, client):
            one.settimeout(3)
        client.sendto(b"hello", ("127.0.0.1", 7000))
        heard, sender = server.recvfrom(100)
        server.sendto(b"heard " + heard, sender)
        assert client.recvfrom(100) == (b"heard hello", ("127.0.0.1", 7000))


def test_names_and_aliases_answer_on_the_own_network_only(nets: World):
    for name in ("web", "www", "site"):
        assert reach(nets, "near", f"http://{name}:8080/"), name
    assert reach(nets, "both", "http://inside:8080/")
    assert reach(nets, "both", "http://web:8080/")
    assert not reach(nets, "near", "http://inside:8080/")


def test_networks_are_apart_and_an_internal_one_has_no_way_out(nets: World):
    inside = address(nets, "inside", "back")
    assert reach(nets, "both", f"http://{inside}:8080/")
    assert not reach(nets, "near", f"http://{inside}:8080/")
    assert not reach(nets, "inside", f"http://{address(nets, 'web', 'front')}:8080/")
    nets.nsenter("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    assert not reach(nets, "inside", "http://192.0.2.7:8080/")


def test_stacks_are_apart(nets: World):
    web = address(nets, "web", "front")
    other = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"]}
    nets.write({"apiVersion": "reconcile/v1", "name": "other", "containers": {"it": other}}, "other.yaml")
    nets.run("apply", "other.yaml", "--yes", check=0)
    assert not reach(nets, "other/it", f"http://{web}:8080/")
    assert not reach(nets, "other/it", "http://web:8080/")


def test_none_has_loopback_only_and_host_is_the_machine(nets: World):
    assert nets.run("exec", "alone", "ls", "/sys/class/net", check=0).out.split() == ["lo"]
    assert "It works" in nets.run("exec", "machine", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/", check=0).out


def test_server_sees_the_clients_own_address(nets: World):
    nets.nsenter("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    nets.nsenter("ip", "netns", "add", "client")
    try:
        for command in (
            "ip link set lan1 netns client",
            "ip address add 198.51.100.1/24 dev lan0",
            "ip link set lan0 up",
            "ip -n client address add 198.51.100.2/24 dev lan1",
            "ip -n client link set lan1 up",
        ):
            nets.nsenter(*command.split())
        page = nets.nsenter(
            "nsenter", "--net=/run/netns/client", "python3", "-c",
            "import urllib.request as u; print(u.urlopen('http://198.51.100.1:8080/', timeout=3).read())",
        )  # fmt: skip
        assert "It works" in page.out
        assert "198.51.100.2" in nets.run("logs", "web", check=0).err
        neighbour = nets.nsenter(
            "nsenter", "--net=/run/netns/client", "python3", "-c",
            "import socket; socket.create_connection(('198.51.100.1', 9000), 1)",
            check=False,
        )  # fmt: skip
        assert neighbour.code != 0, "a port on loopback is not for neighbours"
    finally:
        nets.nsenter("ip", "netns", "delete", "client", check=False)
        nets.nsenter("ip", "link", "delete", "lan0", check=False)
        nets.nsenter("umount", "/run/netns", check=False)  # what `ip netns add` mounted


def test_port_held_by_another_process_is_refused_before_anything_changes(world: World):
    world.use("networks")
    holder = "import socket, sys; s = socket.create_server(('0.0.0.0', 8080)); print('up', flush=True); sys.stdin.read()"
    process = world.spawn(["python3", "-c", holder])
    assert process.stdout
    assert process.stdin
    process.stdout.readline()
    try:
        result = world.run("apply", "stack.yaml", "--yes", check=1)
        assert "8080" in result.err
        assert "python3" in result.err
        assert "pid" in result.err
        assert world.records() == {}
    finally:
        process.communicate()
    world.run("apply", "stack.yaml", "--yes", check=0)


def test_subnet_that_the_host_routes_is_refused(world: World):
    world.use("networks")
    world.nsenter("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    world.nsenter("ip", "address", "add", "10.50.1.200/24", "dev", "lan0")
    world.nsenter("ip", "link", "set", "lan0", "up")
    result = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "10.50.1.0/24" in result.err + result.out
    assert "lan0" in result.err + result.out
    world.nsenter("ip", "link", "delete", "lan0")


def test_changed_subnet_replaces_the_network_and_its_containers(nets: World):
    machine = nets.pid("nets/machine")
    nets.edit(nets.folder / "stack.yaml", "10.50.1.0/24", "10.60.1.0/24")
    actions = {action["key"]: action for action in nets.plan("stack.yaml")["actions"]}
    assert actions["network/nets/front"]["verb"] == "replace"
    assert actions["container/nets/near/1"]["reason"] == "dependency-replaced"
    assert "container/nets/inside/1" not in actions
    nets.run("apply", "stack.yaml", "--yes", check=0)
    assert address(nets, "near", "front").startswith("10.60.1.")
    assert reach(nets, "near", "http://web:8080/")
    assert "It works" in nets.fetch("http://127.0.0.1:8080/")
    assert nets.pid("nets/machine") == machine
    assert nets.plan("stack.yaml")["actions"] == []


def test_container_made_beside_its_network_leaves_nothing_where_the_run_directory_was(world: World):
    """Its image is there, so that it is made at once, and the root has no run directory yet."""
    box = {"image": "web", "networks": ["front"]}
    manifest = {"apiVersion": "reconcile/v1", "name": "early", "images": {"web": {"from": "127.0.0.1:5000/web:1"}}}
    world.write(manifest)
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.write({**manifest, "networks": {"front": {}}, "containers": {"a": box, "b": box}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.run("delete", "early", "--yes", check=0)
    assert world.leftovers() == []
    assert world.run("drift").code == 0


def test_icc_off_keeps_containers_of_one_network_apart(nets: World):
    near = nets.pid("nets/near")
    assert reach(nets, "near", "http://web:8080/")
    nets.edit(nets.folder / "stack.yaml", "{subnet: 10.50.1.0/24}", "{subnet: 10.50.1.0/24, icc: false}")
    nets.run("apply", "stack.yaml", "--yes", check=0)
    assert nets.pid("nets/near") == near
    assert not reach(nets, "near", f"http://{address(nets, 'web', 'front')}:8080/")
    assert "It works" in nets.fetch("http://127.0.0.1:8080/")
