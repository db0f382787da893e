"""Links, addresses and routes of the calling thread's network namespace, through rtnetlink (rtnetlink(7)).

Reading is one dump a kind; changes are values (`bridge_creation`, `veth_creation`, …) that `send` hands to the kernel
together. Knows no word of containers. pyroute2 can do the same and costs more to import than all of this takes to run
(docs/decisions/0010). Raises OSError only.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache

from msgspec import Struct

from reconciler.linux.nlsocket import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Change,
    NetlinkSocket,
    attribute,
    nested,
    number,
    parse_attributes,
    text,
)

_NEW_LINK, _DEL_LINK, _GET_LINK, _SET_LINK = 16, 17, 18, 19
_NEW_ADDR, _GET_ADDR = 20, 22
_NEW_ROUTE, _GET_ROUTE = 24, 26

_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _PROTINFO = 1, 3, 4, 5, 10, 12
_LINKINFO, _NET_NS_FD, _AF_SPEC, _EXT_MASK, _LINK_NETNSID, _TARGET_NETNSID = 18, 28, 26, 29, 37, 46
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_OPERSTATE, _OPER_UP = 16, b"\6"
_PEER = 1
_PORT_STATE, _PORT_HAIRPIN, _PORT_FLUSH, _PORT_ISOLATED = 1, 4, 24, 33
_PORT_DISABLED, _PORT_FORWARDING = b"\0", b"\3"
_BRIDGE_MCAST_SNOOPING = 23
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_IFF_UP = 1
_SKIP_STATS = 8
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _TYPE_UNICAST = 254, 3, 0, 1

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
_U32 = struct.Struct("=I")

GONE = (errno.ENODEV,)
"""For `ignore`: the link is not there."""
_NO_PORT = (errno.ENODEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENETDOWN)
"""It is gone, on no bridge, or down."""


class Link(Struct, frozen=True):
    """One network device."""

    name: str
    index: int
    kind: str
    """`bridge`, `veth`, …; empty for hardware and lo."""
    master: int
    """Index of the bridge that it is a port of, 0 for none."""
    mac: str
    mtu: int
    up: bool
    """Set up by its owner; says nothing of the carrier."""
    works: bool
    """Its operational state is up (RFC 2863): a bridge forwards by it."""
    peer: int
    """veth: index of the other end, in the namespace of `link_netnsid`."""
    link_netnsid: int
    """Id of the namespace that the other end is in, as this one counts; -1 for its own."""
    hairpin: bool
    isolated: bool
    muted: bool
    """A bridge's port that passes nothing on, though it may be up."""


class Route(Struct, frozen=True):
    """One IPv4 route of the main table."""

    destination: str
    """`10.0.0.0/8`; the default route is `0.0.0.0/0`."""
    gateway: str
    """Empty for what is on the link itself."""
    link: int
    """Index of the device, 0 where the route has several or none."""


# ---------------------------------------------------------------- reading


def _opened(opened: NetlinkSocket | None) -> "nullcontext[NetlinkSocket] | NetlinkSocket":
    return NetlinkSocket() if opened is None else nullcontext(opened)


def read_links(opened: NetlinkSocket | None = None) -> dict[str, Link]:
    """All links by name: one dump."""
    # Statistics are most of a link's bytes, and nobody here reads them.
    body = _IFINFO.pack(0, 0, 0, 0, 0) + number(_EXT_MASK, _SKIP_STATS)
    with _opened(opened) as sock:
        links = [_parse_link(payload) for kind, payload in sock.dump(_GET_LINK, body) if kind == _NEW_LINK]
    return {link.name: link for link in links}


def read_link(name: str, opened: NetlinkSocket | None = None) -> Link | None:
    """One link by its name, None if there is none."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + number(_EXT_MASK, _SKIP_STATS)
    with _opened(opened) as sock:
        try:
            return _parse_link(sock.get(_GET_LINK, body)[1])
        except OSError as failure:
            if failure.errno == errno.ENODEV:
                return None
            raise


def read_other_end(link: Link, opened: NetlinkSocket | None = None) -> Link | None:
    """The other end of a veth pair, in whatever namespace it is, without going there; None if it is not to be had."""
    body = _IFINFO.pack(0, 0, link.peer, 0, 0) + number(_EXT_MASK, _SKIP_STATS)
    if link.link_netnsid >= 0:
        body += number(_TARGET_NETNSID, link.link_netnsid)
    with _opened(opened) as sock:
        try:
            return _parse_link(sock.get(_GET_LINK, body)[1])
        except OSError as failure:
            if failure.errno in (errno.ENODEV, errno.EINVAL):
                return None
            raise


@lru_cache(maxsize=4096)  # Between two looks hardly any of them changes.
def _parse_link(payload: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(payload)
    found = parse_attributes(payload, 16)
    info = parse_attributes(found[_LINKINFO]) if _LINKINFO in found else {}
    port: dict[int, bytes] = {}
    if info.get(_INFO_SLAVE_KIND) == b"bridge\0":
        port = parse_attributes(info.get(_INFO_SLAVE_DATA, b""))
    return Link(
        name=found[_IFNAME][:-1].decode(errors="replace"),
        index=index,
        kind=info.get(_INFO_KIND, b"\0")[:-1].decode(errors="replace"),
        master=_u32(found.get(_MASTER)),
        mac=found.get(_ADDRESS, b"").hex(":"),
        mtu=_u32(found.get(_MTU)),
        up=bool(flags & _IFF_UP),
        works=found.get(_OPERSTATE) == _OPER_UP,
        peer=_u32(found.get(_LINK)),
        link_netnsid=struct.unpack("=i", found[_LINK_NETNSID])[0] if _LINK_NETNSID in found else -1,
        hairpin=port.get(_PORT_HAIRPIN, b"\0") != b"\0",
        isolated=port.get(_PORT_ISOLATED, b"\0") != b"\0",
        muted=port.get(_PORT_STATE) == _PORT_DISABLED,
    )


def _u32(data: bytes | None) -> int:
    return _U32.unpack(data)[0] if data is not None else 0


def read_addresses(opened: NetlinkSocket | None = None) -> dict[int, tuple[str, ...]]:
    """IPv4 addresses with prefix (`10.1.0.1/24`) by link index: one dump."""
    found: dict[int, list[str]] = {}
    with _opened(opened) as sock:
        answers = sock.dump(_GET_ADDR, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0))
    for kind, payload in answers:
        family, prefix, _, _, index = _IFADDR.unpack_from(payload)
        if kind != _NEW_ADDR or family != socket.AF_INET:
            continue
        found.setdefault(index, []).append(f"{_parse_address(payload)}/{prefix}")
    return {index: tuple(addresses) for index, addresses in found.items()}


@lru_cache(maxsize=4096)
def _parse_address(payload: bytes) -> str:
    attributes = parse_attributes(payload, 8)
    return socket.inet_ntoa(attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS, b"\0\0\0\0"))


def read_routes(opened: NetlinkSocket | None = None) -> list[Route]:
    """The IPv4 routes of the main table: one dump."""
    body = _RTMSG.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0) + number(_RTA_TABLE, _TABLE_MAIN)
    with _opened(opened) as sock:
        try:
            answers = sock.dump(_GET_ROUTE, body)
        except OSError as failure:
            if failure.errno == errno.ENOENT:  # Kernel: strict checks say so of a table that has no route yet.
                return []
            raise
    return [_parse_route(payload) for kind, payload in answers if kind == _NEW_ROUTE and _is_main(payload)]


def _is_main(payload: bytes) -> bool:
    family, table, kind = payload[0], payload[4], payload[7]
    return family == socket.AF_INET and table == _TABLE_MAIN and kind == _TYPE_UNICAST


@lru_cache(maxsize=4096)
def _parse_route(payload: bytes) -> Route:
    prefix = payload[1]
    found = parse_attributes(payload, 12)
    destination = socket.inet_ntoa(found.get(_RTA_DST, b"\0\0\0\0"))
    gateway = socket.inet_ntoa(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else ""
    return Route(f"{destination}/{prefix}", gateway, _u32(found.get(_RTA_OIF)))


# ---------------------------------------------------------------- changes, as values


def send(changes: Sequence[Change], opened: NetlinkSocket | None = None) -> None:
    """Have the kernel make changes, in order, in one call. Raises the first failure once all were tried."""
    if changes:
        with _opened(opened) as sock:
            sock.send(changes)


def _mac(mac: str) -> bytes:
    return attribute(_ADDRESS, bytes.fromhex(mac.replace(":", "")))


def bridge_creation(name: str, *, mac: str) -> Change:
    """A bridge without spanning tree and without multicast snooping; one that exists is left as it is.

    Its MTU is a change of its own: one given at creation would be forgotten with the bridge's last port.
    """
    data = nested(_INFO_DATA, attribute(_BRIDGE_MCAST_SNOOPING, b"\0"))
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + _mac(mac) + nested(_LINKINFO, text(_INFO_KIND, "bridge"), data)
    )
    return Change(_NEW_LINK, CREATE | EXCLUSIVE, body, f"add bridge {name}", (errno.EEXIST,))


def veth_creation(name: str, *, master: int, mtu: int, peer: str, peer_mac: str, netns: int) -> Change:
    """A veth pair, both ends down: `name` here as a port of the bridge `master`, `peer` in the namespace `netns` (a
    descriptor of this process)."""
    inner = (
        _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, peer) + number(_MTU, mtu) + _mac(peer_mac) + number(_NET_NS_FD, netns)
    )
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(_IFNAME, name)
        + number(_MTU, mtu)
        + number(_MASTER, master)
        + nested(_LINKINFO, text(_INFO_KIND, "veth"), nested(_INFO_DATA, attribute(_PEER, inner)))
    )
    return Change(_NEW_LINK, CREATE | EXCLUSIVE, body, f"add veth {name}")


def port_change(name: str, *, isolated: bool) -> Change:
    """A bridge's port: hairpin on, isolated from other isolated ports or not."""
    flags = attribute(_PORT_HAIRPIN, b"\1") + attribute(_PORT_ISOLATED, b"\1" if isolated else b"\0")
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(_IFNAME, name)
        + nested(_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), nested(_INFO_SLAVE_DATA, flags))
    )
    return Change(_NEW_LINK, 0, body, f"set up port {name}")


def port_muting(link: Link, *, muted: bool) -> Change:
    """Let a bridge's port pass nothing on, and the bridge forget what it learned there; or let it pass again. One that is
    gone or down is no error.

    Kernel: unlike taking the link down it is done at once, for nobody waits for packets under way (synchronize_net).
    """
    state = attribute(_PORT_STATE, _PORT_DISABLED if muted else _PORT_FORWARDING)
    data = nested(_PROTINFO, state + (attribute(_PORT_FLUSH, b"") if muted else b""))
    tried = f"{'mute' if muted else 'open'} port {link.name}"
    return Change(_SET_LINK, 0, _IFINFO.pack(socket.AF_BRIDGE, 0, link.index, 0, 0) + data, tried, _NO_PORT)


def no_ipv6_address(name: str) -> Change:
    """Keep a link from giving itself an IPv6 address when it comes up."""
    mode = nested(_AF_SPEC, nested(socket.AF_INET6, attribute(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))))
    # Kernel: EAFNOSUPPORT where IPv6 is switched off; then there is nothing to keep it from.
    return Change(
        _NEW_LINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, name) + mode, f"set up {name}", (errno.EAFNOSUPPORT,)
    )


def link_change(
    name: str,
    *,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
    mac: str = "",
    ignore: tuple[int, ...] = (),
) -> Change:
    """Change an existing link: what is None or empty stays. `master` 0 takes it off its bridge."""
    body = _IFINFO.pack(0, 0, 0, _IFF_UP if up else 0, _IFF_UP if up is not None else 0) + text(_IFNAME, name)
    if mtu is not None:
        body += number(_MTU, mtu)
    if master is not None:
        body += number(_MASTER, master)
    if mac:
        body += _mac(mac)
    return Change(_NEW_LINK, 0, body, f"change link {name}", ignore)


def link_removal(name: str) -> Change:
    """Remove a link, a veth with its other end; one that is gone is no error."""
    return Change(_DEL_LINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFNAME, name), f"remove link {name}", (errno.ENODEV,))


def address_addition(index: int, address: str) -> Change:
    """Give a link an address with prefix (`10.1.0.2/24`); one that it has is no error."""
    interface = ipaddress.IPv4Interface(address)
    broadcast = interface.network.broadcast_address.packed
    body = (
        _IFADDR.pack(socket.AF_INET, interface.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
        + attribute(_IFA_LOCAL, interface.packed)
        + attribute(_IFA_ADDRESS, interface.packed)
        + (attribute(_IFA_BROADCAST, broadcast) if interface.network.prefixlen < 31 else b"")
    )
    return Change(_NEW_ADDR, CREATE | EXCLUSIVE, body, f"add address {address}", (errno.EEXIST,))


def default_route(gateway: str, index: int) -> Change:
    """The default route, replacing another one of the same metric. The link must be up."""
    body = (
        _RTMSG.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _TYPE_UNICAST, 0)
        + attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
        + number(_RTA_OIF, index)
    )
    return Change(_NEW_ROUTE, CREATE | REPLACE, body, f"add default route by {gateway}")
