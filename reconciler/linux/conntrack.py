"""Lists and deletes tracked IPv4 connections, through ctnetlink (NETLINK_NETFILTER). Raises OSError only."""

import errno
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from reconciler.linux.nlsocket import NETFILTER, Change, NetlinkSocket, nested, parse_attributes

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ID = 1, 2, 12
_IP, _PROTOCOL = 1, 2
_SOURCE, _DESTINATION = 1, 2
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_IPV4 = struct.pack("=BBH", socket.AF_INET, 0, 0)


class Connection(NamedTuple):
    """One tracked connection: who began it, what it asked for, and who answers."""

    protocol: int
    """IPPROTO_TCP, IPPROTO_UDP, …"""
    source: tuple[str, int]
    destination: tuple[str, int]
    """As the first packet said it, before any translation."""
    answering: tuple[str, int]
    """Who the answers come from: after a DNAT, its target."""
    original: bytes
    """The kernel's own name for it."""


def list_connections() -> list[Connection]:
    """Every tracked IPv4 connection of this network namespace: one dump."""
    with NetlinkSocket(NETFILTER) as opened:
        answers = opened.dump(_GET, _IPV4)
    return [found for _, payload in answers if (found := _parse(payload)) is not None]


def delete_connections(connections: Sequence[Connection]) -> None:
    """Forget connections: their next packet is judged as the first of a new one. Those that are gone are no error."""
    if not connections:
        return
    with NetlinkSocket(NETFILTER) as opened:
        opened.send(
            [
                Change(
                    _DELETE,
                    0,
                    _IPV4 + nested(_TUPLE_ORIGINAL, connection.original),
                    "forget a connection",
                    (errno.ENOENT,),
                )
                for connection in connections
            ]
        )


def _parse(payload: bytes) -> Connection | None:
    found = parse_attributes(payload, 4)
    original = found.get(_TUPLE_ORIGINAL, b"")
    protocol, source, destination = _parse_tuple(original)
    _, answering, _ = _parse_tuple(found.get(_TUPLE_REPLY, b""))
    if not protocol:
        return None
    return Connection(protocol, source, destination, answering, original)


def _parse_tuple(data: bytes) -> tuple[int, tuple[str, int], tuple[str, int]]:
    parts = parse_attributes(data)
    addresses = parse_attributes(parts.get(_IP, b""))
    protocol = parse_attributes(parts.get(_PROTOCOL, b""))

    def side(address: int, port: int) -> tuple[str, int]:
        return socket.inet_ntoa(addresses.get(address, bytes(4))), int.from_bytes(protocol.get(port, b""), "big")

    return protocol.get(_NUMBER, b"\0")[0], side(_SOURCE, _SOURCE_PORT), side(_DESTINATION, _DESTINATION_PORT)
