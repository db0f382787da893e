"""Who holds a host port, and what becomes of the connections of a port that is taken away."""

import os
import socket
import subprocess

import pytest

from reconciler.engine.native import settle
from reconciler.engine.native.net.ports import read_port_holders
from reconciler.linux import conntrack

pytestmark = pytest.mark.root

MINE = f"(pid {os.getpid()})"


def listening(address, *, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    opened = socket.socket(family, kind)
    opened.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        opened.listen()
    return opened, opened.getsockname()[1]


@pytest.mark.parametrize(
    ("held", "asked", "is_hit"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "192.0.2.2", True),
        ("127.0.0.1", "192.0.2.2", False),
    ],
)
def test_holder_is_named_where_addresses_meet(machine, held, asked, is_hit):
    opened, port = listening(held)
    with opened:
        found = read_port_holders([f"{asked}:{port}/tcp", f"{asked}:{port}/udp"])
    assert list(found) == ([f"{asked}:{port}/tcp"] if is_hit else [])
    assert all(holder.endswith(MINE) for holder in found.values())


def test_dual_stack_and_udp_listeners_are_seen(machine):
    six, port = listening("::", family=socket.AF_INET6)
    datagrams, other = listening("0.0.0.0", kind=socket.SOCK_DGRAM)
    with six, datagrams:
        found = read_port_holders([f"127.0.0.1:{port}/tcp", f"127.0.0.1:{other}/udp"])
    assert set(found) == {f"127.0.0.1:{port}/tcp", f"127.0.0.1:{other}/udp"}


def test_connected_sockets_hold_nothing(machine, build):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.connect(("192.0.2.9", 9))
        port = opened.getsockname()[1]
        assert read_port_holders([f"0.0.0.0:{port}/udp"]) == {}


def test_own_name_service_is_not_in_the_way_and_other_roots_are(machine, build):
    machine.up(build.network("front", 1))
    assert list(read_port_holders(["0.0.0.0:53/udp"])) == ["0.0.0.0:53/udp"]
    assert read_port_holders(["0.0.0.0:53/udp"], layout=machine.layout) == {}
    kind = "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"
    elements = "elements = { 127.0.0.1 . tcp . 8080 : 10.9.9.9 . 80 }"
    other = f"table inet reconcile_zzzzz {{ map published {{ {kind}; {elements}; }}; }}"
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=other.encode(), check=True)
    found = read_port_holders(["0.0.0.0:8080/tcp", "127.0.0.2:8080/tcp"], layout=machine.layout)
    assert found == {"0.0.0.0:8080/tcp": "root zzzzz"}


def test_connections_of_a_removed_port_are_forgotten_and_others_kept(either_machine, build):
    m = either_machine
    front = build.network("front", 1)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80, "0.0.0.0:9090/tcp": 90})
    m.up(front, web)
    with (
        m.inside(web, lambda: socket.create_server(("0.0.0.0", 80))) as server,
        m.inside(web, lambda: socket.create_server(("0.0.0.0", 90))) as other,
        m.inside(m.neighbour, lambda: socket.create_connection(("192.0.2.2", 8080), 5)) as cut,
        m.inside(m.neighbour, lambda: socket.create_connection(("192.0.2.2", 9090), 5)) as kept,
    ):
        cut_peer, kept_peer = server.accept()[0], other.accept()[0]
        del web.spec.ports["0.0.0.0:8080/tcp"]
        settle.settle(m.layout, m.view)
        assert {found.destination[1] for found in conntrack.list_connections()} & {8080, 9090} == {9090}
        for channel, peer, expected in ((kept, kept_peer, b"!"), (cut, cut_peer, b"")):
            channel.sendall(b"!")
            peer.settimeout(0.5)
            try:
                assert peer.recv(1) == expected
            except TimeoutError:
                assert expected == b""
            peer.close()


def test_who_always_sent_to_a_udp_port_is_heard_once_it_is_published(machine, build):
    front = build.network("front", 1)
    web = build.container("web", front)
    machine.up(front, web)
    with (
        machine.inside(web, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        machine.inside(machine.neighbour, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
    ):
        silent.bind(("192.0.2.2", 5000))
        server.bind(("0.0.0.0", 50))
        server.settimeout(2)
        sender.sendto(b"early", ("192.0.2.2", 5000))
        web.spec.ports["192.0.2.2:5000/udp"] = 50
        settle.settle(machine.layout, machine.view)
        sender.sendto(b"late", ("192.0.2.2", 5000))
        assert server.recv(10) == b"late"
