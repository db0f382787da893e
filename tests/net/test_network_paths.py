"""What may reach what, on the real kernel: with frames inside bridges passing the inet hooks, and without."""

import subprocess

import pytest

from reconciler.engine.native import settle
from reconciler.engine.native.net import veth
from reconciler.linux.sysctls import write_sysctl

pytestmark = pytest.mark.root


def test_published_port_answers_host_neighbour_and_containers(either_machine, build):
    m = either_machine
    front, back = build.network("front", 1), build.network("back", 2)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80})
    near, far = build.container("near", front, host=3), build.container("far", back)
    m.up(front, back, web, near, far)
    m.serve(web, 80)
    assert m.call(None, "127.0.0.1", 8080) == "10.64.1.1"
    assert m.call(None, "192.0.2.2", 8080) == "192.0.2.2"
    assert m.call(m.neighbour, "192.0.2.2", 8080) == "192.0.2.9", "the source address is kept"
    assert m.call(near, "192.0.2.2", 8080) == "10.64.1.1"
    assert m.call(web, "192.0.2.2", 8080) == "10.64.1.1", "hairpin"
    assert m.call(web, "10.64.1.1", 8080) == "10.64.1.1", "hairpin by the gateway"
    assert m.call(far, "192.0.2.2", 8080) == "10.64.2.2"
    assert m.call(near, "10.64.1.2", 80) == "10.64.1.3"
    assert m.call(None, "10.64.1.2", 80) == "10.64.1.1"


def test_e1_port_on_loopback_is_for_the_host_alone(either_machine, build):
    m = either_machine
    front = build.network("front", 1)
    web = build.container("web", front, ports={"127.0.0.1:8080/tcp": 80})
    near = build.container("near", front, host=3)
    m.up(front, web, near)
    m.serve(web, 80)
    assert m.call(None, "127.0.0.1", 8080) == "10.64.1.1"
    assert m.call(m.neighbour, "192.0.2.2", 8080) == "refused"
    m.inside(m.neighbour, _route_loopback_away)
    assert m.silent(m.neighbour, "127.0.0.1", 8080), "E1: routed to a port published on loopback"
    assert m.silent(m.neighbour, "10.64.1.2", 80), "E1: routed to a container"
    m.serve(None, 9999, address="127.0.0.1")
    m.inside(near, _route_loopback_away)
    assert m.silent(near, "127.0.0.1", 9999), "a container reaches a service on the host's loopback"


def _route_loopback_away():
    """Send what is for 127/8 out by eth0, as an attacker with root in his namespace would."""
    for path in ("all", "eth0"):
        write_sysctl(f"ipv4/conf/{path}/route_localnet", "1")
    subprocess.run(["/usr/sbin/ip", "addr", "del", "127.0.0.1/8", "dev", "lo"], check=True)
    gateway = subprocess.run(["/usr/sbin/ip", "route", "show", "default"], check=True, capture_output=True, text=True)
    way = gateway.stdout.split()[2]
    subprocess.run(["/usr/sbin/ip", "route", "add", "127.0.0.0/8", "via", way, "dev", "eth0"], check=True)


def test_e3_networks_are_isolated_and_go_out_by_the_address_of_the_host(either_machine, build):
    m = either_machine
    front, back = build.network("front", 1), build.network("back", 2)
    web, db = build.container("web", front), build.container("db", back)
    both = build.container("both", front, back, host=9)
    m.up(front, back, web, db, both)
    for made in (web, db):
        m.serve(made, 80)
    m.serve(m.neighbour, 7)
    assert m.silent(web, "10.64.2.2", 80)
    assert m.silent(db, "10.64.1.2", 80)
    assert m.silent(m.neighbour, "10.64.1.2", 80), "E1"
    assert m.silent(web, "10.64.2.1", 53), "another network's gateway"
    assert m.call(both, "10.64.1.2", 80) == "10.64.1.9"
    assert m.call(both, "10.64.2.2", 80) == "10.64.2.9"
    assert m.call(web, "203.0.113.1", 7) == "192.0.2.2"


def test_e3_internal_network_reaches_nothing_outside(either_machine, build):
    m = either_machine
    inner, front = build.network("inner", 1, internal=True), build.network("front", 2)
    db, peer = build.container("db", inner), build.container("peer", inner, host=3)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80})
    m.up(inner, front, db, peer, web)
    m.serve(db, 80)
    m.serve(web, 80)
    m.serve(None, 9999)
    m.serve(m.neighbour, 7)
    m.inside(db, lambda: _add_default("10.64.1.1"))
    assert m.call(peer, "10.64.1.2", 80) == "10.64.1.3"
    assert m.call(None, "10.64.1.2", 80) == "10.64.1.1"
    assert m.silent(db, "203.0.113.1", 7)
    assert m.silent(db, "192.0.2.2", 8080)
    assert m.silent(db, "10.64.1.1", 9999)
    assert m.silent(db, "10.64.2.2", 80)


def _add_default(gateway):
    subprocess.run(["/usr/sbin/ip", "route", "add", "default", "via", gateway], check=True)


def test_container_on_an_internal_network_alone_can_be_published(either_machine, build):
    m = either_machine
    inner = build.network("inner", 1, internal=True)
    db = build.container("db", inner, ports={"192.0.2.2:5432/tcp": 80})
    m.up(inner, db)
    m.serve(db, 80)
    assert m.call(m.neighbour, "192.0.2.2", 5432) == "10.64.1.1"
    assert m.call(None, "192.0.2.2", 5432) == "10.64.1.1"


def test_icc_off_keeps_containers_of_one_network_apart(either_machine, build):
    m = either_machine
    front = build.network("front", 1, icc=False)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80})
    near = build.container("near", front, host=3)
    m.up(front, web, near)
    m.serve(web, 80)
    m.serve(m.neighbour, 7)
    assert m.silent(near, "10.64.1.2", 80)
    assert m.silent(near, "192.0.2.2", 8080)
    assert m.call(m.neighbour, "192.0.2.2", 8080) == "192.0.2.9"
    assert m.call(near, "203.0.113.1", 7) == "192.0.2.2"


def test_replacement_with_the_same_address_answers_as_soon_as_it_is_up(either_machine, build):
    m = either_machine
    front = build.network("front", 1)
    ports = {"0.0.0.0:8080/tcp": 80}
    old = build.container("web", front, ports=ports, incarnation="a" * 12, created_at=1.0)
    new = build.container("web", front, ports=ports, incarnation="b" * 12, created_at=2.0)
    near = build.container("near", front, host=3)
    m.up(front, old, near)
    m.serve(old, 80)
    assert m.call(m.neighbour, "192.0.2.2", 8080) == "192.0.2.9"
    assert m.call(near, "10.64.1.2", 80) == "10.64.1.3"
    m.mades[new.key + new.incarnation] = new
    settle.settle(m.layout, m.view)
    veth.prepare_links(m.layout, new, m.uses)
    m.serve(new, 80)
    assert m.call(m.neighbour, "192.0.2.2", 8080) == "192.0.2.9", "the old one still has the way"
    veth.lower_links(m.layout, old)
    veth.raise_links(m.layout, new, m.uses)
    assert m.call(m.neighbour, "192.0.2.2", 8080, patience=0.9) == "192.0.2.9"
    assert m.call(near, "10.64.1.2", 80, patience=0.9) == "10.64.1.3"
    m.down(old)
    assert m.call(near, "10.64.1.2", 80) == "10.64.1.3"


def test_e6_nothing_is_open_before_the_links_are_up_and_after_the_delete(machine, build):
    front = build.network("front", 1)
    web = build.container("web", front, ports={"0.0.0.0:8080/tcp": 80})
    machine.up(front)
    machine.mades[web.key + web.incarnation] = web
    settle.settle(machine.layout, machine.view)
    veth.prepare_links(machine.layout, web, machine.uses)
    machine.serve(web, 80)
    assert machine.silent(machine.neighbour, "192.0.2.2", 8080)
    veth.raise_links(machine.layout, web, machine.uses)
    assert machine.call(machine.neighbour, "192.0.2.2", 8080) == "192.0.2.9"
    machine.down(web)
    assert machine.call(machine.neighbour, "192.0.2.2", 8080) == "refused"


def test_a_port_that_no_record_names_sends_nothing(machine, build):
    front = build.network("front", 1)
    stranger = build.container("stranger", front)
    machine.up(front)
    veth.prepare_links(machine.layout, stranger, machine.uses)
    veth.raise_links(machine.layout, stranger, machine.uses)
    machine.serve(None, 9999)
    assert machine.silent(stranger, "10.64.1.1", 9999)
