"""rtnetlink on the real kernel: what is made is what is read."""

import errno
import os
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spaces import in_mount_namespace

from reconciler.linux import namespaces, netlink
from reconciler.linux.nlsocket import NetlinkSocket, attribute, parse_attributes, walk_attributes

root = pytest.mark.root


@pytest.fixture
def alone(tmp_path):
    """Runs a piece of the test in a network namespace of its own."""

    def run(work):
        def body():
            with namespaces.created(tmp_path / "netns"):
                work()

        in_mount_namespace(body)

    return run


@root
def test_bridge_and_addresses_are_read_as_made(alone):
    def work():
        netlink.send([netlink.bridge_creation("br", mac="02:00:00:00:00:01")])
        netlink.send([netlink.bridge_creation("br", mac="02:00:00:00:00:02")])
        link = netlink.read_link("br")
        assert link is not None
        assert (link.kind, link.mac, link.up) == ("bridge", "02:00:00:00:00:01", False)
        address = netlink.address_addition(link.index, "10.1.0.1/24")
        netlink.send([address, address, netlink.link_change("br", up=True, mtu=1300)])
        assert netlink.read_addresses()[link.index] == ("10.1.0.1/24",)
        assert netlink.read_links()["br"].mtu == 1300
        netlink.send([netlink.default_route("10.1.0.9", link.index)])
        assert netlink.Route("0.0.0.0/0", "10.1.0.9", link.index) in netlink.read_routes()
        netlink.send([netlink.link_removal("br")] * 2)
        assert netlink.read_link("br") is None
        assert netlink.read_routes() == []

    alone(work)


@root
def test_failed_change_says_what_was_tried_and_the_others_are_done(alone):
    def work():
        with pytest.raises(OSError, match="change link nowhere") as failure:
            netlink.send([netlink.link_change("nowhere", up=True), netlink.link_change("lo", up=True)])
        assert failure.value.errno == errno.ENODEV
        assert netlink.read_links()["lo"].up

    alone(work)


@root
def test_kernels_own_words_are_in_the_error(alone):
    def work():
        netlink.send([netlink.bridge_creation("br", mac="02:00:00:00:00:01")])
        link = netlink.read_link("br")
        assert link is not None
        netlink.send([netlink.link_change("br", up=True)])
        with pytest.raises(OSError, match=r"add default route by 10\.9\.9\.9: .* \(Nexthop has invalid gateway\)"):
            netlink.send([netlink.default_route("10.9.9.9", link.index)])

    alone(work)


@root
def test_more_links_than_one_answer_holds_are_all_read(alone):
    def work():
        names = [f"b{number}" for number in range(300)]
        netlink.send([netlink.bridge_creation(name, mac="02:00:00:00:00:01") for name in names])
        assert set(names) <= netlink.read_links().keys()

    alone(work)


@root
def test_links_agree_with_iproute2(alone):
    def work():
        subprocess.run(["/usr/sbin/ip", "link", "add", "name", "br", "type", "bridge"], check=True)
        subprocess.run(
            ["/usr/sbin/ip", "link", "add", "one", "master", "br", "type", "veth", "peer", "name", "two"], check=True
        )
        subprocess.run(["/usr/sbin/bridge", "link", "set", "dev", "one", "hairpin", "on", "isolated", "on"], check=True)
        links = netlink.read_links()
        one, two = links["one"], links["two"]
        assert (one.kind, one.master, one.peer, one.hairpin, one.isolated) == (
            "veth",
            links["br"].index,
            two.index,
            True,
            True,
        )
        assert (two.master, two.peer, two.hairpin) == (0, one.index, False)

    alone(work)


@root
def test_a_socket_stays_in_the_namespace_it_was_opened_in(alone, tmp_path):
    def work():
        inner = tmp_path / "inner"
        with namespaces.created(inner):
            opened = NetlinkSocket()
        netlink.send([netlink.bridge_creation("outer", mac="02:00:00:00:00:01")])
        with opened:
            assert "outer" not in netlink.read_links(opened)
        assert "outer" in netlink.read_links()

    alone(work)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_are_read_as_written(pairs):
    data = b"".join(attribute(kind, value) for kind, value in pairs)
    assert list(walk_attributes(data)) == pairs
    assert parse_attributes(data) == dict(pairs)


@given(st.binary(max_size=80))
def test_broken_attributes_end_the_walk(data):
    assert len(list(walk_attributes(data))) <= len(data) // 4
    parse_attributes(data)


@root
def test_other_end_is_read_from_here_and_works_once_both_are_up(alone, tmp_path):
    def work():
        inner = tmp_path / "inner"
        with namespaces.created(inner):
            pass
        number = namespaces.open_netns(inner)
        netlink.send([netlink.bridge_creation("br", mac="02:00:00:00:00:01"), netlink.link_change("br", up=True)])
        bridge = netlink.read_link("br")
        assert bridge is not None
        pair = netlink.veth_creation(
            "v", master=bridge.index, mtu=1400, peer="eth0", peer_mac="02:00:00:00:00:03", netns=number
        )
        netlink.send([pair, netlink.port_change("v", isolated=True)])
        link = netlink.read_link("v")
        assert link is not None
        assert (link.master, link.hairpin, link.isolated, link.works) == (bridge.index, True, True, False)
        other = netlink.read_other_end(link)
        assert other is not None
        assert (other.name, other.mac, other.mtu, other.up) == ("eth0", "02:00:00:00:00:03", 1400, False)
        with namespaces.entered(number):
            netlink.send([netlink.link_change("eth0", up=True)])
        netlink.send([netlink.link_change("v", up=True)])
        deadline = time.monotonic() + 5
        while not (found := netlink.read_other_end(link)) or not found.works:
            assert time.monotonic() < deadline
        os.close(number)

    alone(work)
