"""E2: frames that are not from their sender's own addresses die at the port."""

import errno
import socket
import struct
import subprocess
import time
from contextlib import closing

import pytest

from reconciler.linux import netlink

pytestmark = pytest.mark.root

ETH_ALL, IP, ARP, IPV6, VLAN = 0x0003, 0x0800, 0x0806, 0x86DD, 0x8100


def mac(made):
    (endpoint,) = made.grants.endpoints.values()
    return bytes.fromhex(endpoint.mac.replace(":", ""))


def address(made):
    (endpoint,) = made.grants.endpoints.values()
    return socket.inet_aton(endpoint.address)


def ip_packet(source, destination, mark):
    """A UDP packet that carries `mark`."""
    data = struct.pack("!HHHH", 4000, 4000, 8 + len(mark), 0) + mark
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, source, destination)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + data


def arp(kind, source_mac, source, target, mark):
    return struct.pack("!HHBBH6s4s6s4s", 1, IP, 6, 4, kind, source_mac, source, bytes(6), target) + mark


def frame(destination, source, kind, payload):
    return destination + source + struct.pack("!H", kind) + payload


@pytest.fixture
def wire(either_machine, build):
    """Sends frames from `evil` and says which of them arrive at `victim`; `friend` is the third on the bridge."""
    front = build.network("front", 1)
    evil, victim, friend = (
        build.container(name, front, host=host) for name, host in (("evil", 2), ("victim", 3), ("friend", 4))
    )
    either_machine.up(front, evil, victim, friend)

    def packet_socket():
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_ALL))
        opened.bind(("eth0", 0))
        opened.settimeout(5)
        return opened

    def arriving(*frames):
        """The marks of the frames that arrive, in order; the last frame is a right one, and ends the wait."""
        last = frame(mac(victim), mac(evil), IP, ip_packet(address(evil), address(victim), b"MARK-last"))
        with (
            closing(either_machine.inside(victim, packet_socket)) as listener,
            closing(either_machine.inside(evil, packet_socket)) as sender,
        ):
            for each in (*frames, last):
                sender.send(each)
            found, deadline = [], time.monotonic() + 5
            while b"MARK-last" not in found and time.monotonic() < deadline:
                data, (_, _, direction, *_) = listener.recvfrom(2000)
                if b"MARK-" in data and direction != socket.PACKET_OUTGOING:
                    found.append(data[data.index(b"MARK-") :].rstrip(b"\0"))
            assert found[-1:] == [b"MARK-last"]
            return found[:-1]

    arriving.evil, arriving.victim, arriving.friend = evil, victim, friend
    return arriving


def test_right_frames_arrive(wire):
    broadcast = b"\xff" * 6
    good = ip_packet(address(wire.evil), address(wire.victim), b"MARK-ip")
    ask = arp(1, mac(wire.evil), address(wire.evil), address(wire.victim), b"MARK-arp")
    arrived = wire(frame(mac(wire.victim), mac(wire.evil), IP, good), frame(broadcast, mac(wire.evil), ARP, ask))
    assert arrived == [b"MARK-ip", b"MARK-arp"]


def test_e2_spoofed_frames_are_dropped(wire):
    evil, victim, friend = wire.evil, wire.victim, wire.friend
    gateway = socket.inet_aton("10.64.1.1")
    good = ip_packet(address(evil), address(victim), b"MARK-mac")
    tagged = struct.pack("!HH", 5, IP) + ip_packet(address(evil), address(victim), b"MARK-vlan")
    spoofed = {
        "another's MAC": frame(mac(victim), mac(friend), IP, good),
        "another's IP": frame(mac(victim), mac(evil), IP, ip_packet(address(friend), address(victim), b"MARK-ip")),
        "both": frame(mac(victim), mac(friend), IP, ip_packet(address(friend), address(victim), b"MARK-both")),
        "the gateway's IP": frame(mac(victim), mac(evil), IP, ip_packet(gateway, address(victim), b"MARK-gw")),
        "ARP: I am the gateway": frame(
            mac(victim), mac(evil), ARP, arp(2, mac(evil), gateway, address(victim), b"MARK-arp")
        ),
        "ARP about another's MAC": frame(
            mac(victim), mac(evil), ARP, arp(2, mac(friend), address(evil), address(victim), b"MARK-arp2")
        ),
        "IPv6, router advertisements too": frame(b"\x33\x33\0\0\0\1", mac(evil), IPV6, b"\x60" + bytes(40) + b"MARK-v6"),
        "in a VLAN": frame(mac(victim), mac(evil), VLAN, tagged),
        "another protocol": frame(mac(victim), mac(evil), 0x88B5, b"MARK-exp"),
    }
    assert wire(*spoofed.values()) == []


def from_himself(wire, machine, change, work):
    """What comes of `work` in the namespace of `evil` once `change` was made there; then everything is as before."""
    machine.inside(wire.evil, change)
    try:
        return machine.inside(wire.evil, work)
    finally:
        machine.inside(wire.evil, undo)
        machine.mend()


def undo():
    """His own link goes, and all addresses; to bring back those that he should have is the engine's."""
    if "own0" in netlink.read_links():
        ip("link", "delete", "own0")
    ip("address", "flush", "dev", "eth0")


def ip(*arguments):
    subprocess.run(["/usr/sbin/ip", *arguments], check=True)


def test_e2_who_administrates_his_own_links_speaks_for_nobody_else(wire, either_machine):
    """With NET_ADMIN: another MAC, another's address, a link of his own on top."""
    machine, victim = either_machine, wire.victim
    machine.serve(victim, 80)
    theirs, his = socket.inet_ntoa(address(wire.friend)), socket.inet_ntoa(address(victim))
    assert machine.call(wire.evil, his, 80) == socket.inet_ntoa(address(wire.evil))

    def call(source=""):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as channel:
            channel.settimeout(0.4)
            channel.bind((source, 0))
            return channel.connect_ex((his, 80))

    def another_mac():
        ip("link", "set", "eth0", "address", mac(wire.friend).hex(":"))

    def another_address():
        ip("address", "add", f"{theirs}/24", "dev", "eth0")

    def link_of_his_own():
        ip("link", "add", "link", "eth0", "name", "own0", "type", "macvlan", "mode", "bridge")
        ip("address", "add", f"{theirs}/24", "dev", "own0")
        ip("link", "set", "own0", "up")
        ip("route", "replace", f"{his}/32", "dev", "own0")

    silence = (errno.EAGAIN, errno.EHOSTUNREACH)
    for change, source in ((another_mac, ""), (another_address, theirs), (link_of_his_own, theirs)):
        assert from_himself(wire, machine, change, lambda source=source: call(source)) in silence, change.__name__
    assert machine.drift() == {}
    assert machine.call(wire.evil, his, 80) == socket.inet_ntoa(address(wire.evil))


def test_e2_a_dhcp_server_in_a_container_is_asked_by_nobody_and_heard_by_nobody(wire, either_machine):
    evil, victim = wire.evil, wire.victim

    def dhcp(source, source_port, mark):
        data = struct.pack("!HHHH", source_port, 135 - source_port, 8 + len(mark), 0) + mark
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, source, b"\xff" * 4)
        total = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + data

    broadcast, nobody = b"\xff" * 6, bytes(4)
    gateway = socket.inet_aton("10.64.1.1")
    # Who asks has no address yet, and who has one does not ask: all are given theirs by the engine.
    assert wire(frame(broadcast, mac(evil), IP, dhcp(nobody, 68, b"MARK-discover"))) == []
    assert wire(frame(mac(victim), mac(evil), IP, dhcp(gateway, 67, b"MARK-offer"))) == []
    assert wire(frame(mac(victim), mac(evil), IP, dhcp(nobody, 67, b"MARK-offer0"))) == []
