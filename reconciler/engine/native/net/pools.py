"""Chooses subnets that collide with nothing, and refuses those that do.

`converge/grants.py` asks through the engine and holds what is given under a UNIQUE constraint; what other roots and other
programs use is seen in the host's routes and addresses, and what other roots are about to use in their claims.
"""

import errno
import ipaddress
import socket
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net.words import saying
from reconciler.linux import netlink
from reconciler.linux.nlsocket import NetlinkSocket
from reconciler.model.errors import SubnetTaken
from reconciler.model.key import Key

POOLS = ("10.64.0.0/10", "172.20.0.0/14", "192.168.128.0/17")
"""In this order; the later ones are for hosts whose VPN routes the first as a whole. Beside Docker's and Podman's first."""

_SIZE = 256
"""Addresses of a subnet: a /24."""


_CLAIM = "@reconcile/subnet/"


class Claims:
    """Subnets that this process has chosen. Until their bridges are there no route tells other roots of them.

    A claim is a name in the abstract socket namespace (unix(7)): of the network namespace, as subnets are, and gone with
    its process. Anybody can bind such names, so that claims of others are avoided while there is something else, no more.
    """

    def __init__(self) -> None:
        self._held: dict[str, socket.socket] = {}

    def choose(self, count: int, taken: Sequence[str]) -> list[str]:
        """Free /24 subnets of the pools that overlap neither `taken`, nor claims of others, nor what the host routes or
        has an address in; they are claimed.

        Raises SubnetTaken when the pools are used up.
        """
        while True:
            there = [subnet for subnet, _ in _read_busy()]
            for subnet in self._held.keys() & set(there):  # Its bridge is seen now; a controller makes thousands.
                self._let_go(subnet)
            busy = [*taken, *there]
            avoided = [*busy, *self._claimed_by_others()]
            found = choose_free_subnets(count, avoided)
            if len(found) < count:
                found = choose_free_subnets(count, busy)
                if len(found) < count:
                    what = f"what the host routes ({len(busy)} subnets): nothing is left"
                    raise SubnetTaken("network", " ".join(POOLS), what)
                return found
            # Race: between our look and our claim another root may have claimed it, or made its bridge and gone.
            if all([self.claim(subnet) for subnet in found]):
                routed = [subnet for subnet, _ in _read_busy()]
                if found == choose_free_subnets(count, [*avoided, *routed]):
                    return found
            for subnet in found:
                self._let_go(subnet)

    def claim(self, subnet: str) -> bool:
        """Whether nobody else has claimed it; from now on nobody does."""
        if subnet in self._held:
            return True
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            opened.bind(_CLAIM.replace("@", "\0") + subnet)
        except OSError as error:
            opened.close()
            return error.errno != errno.EADDRINUSE
        self._held[subnet] = opened
        return True

    def _let_go(self, subnet: str) -> None:
        if opened := self._held.pop(subnet, None):
            opened.close()

    def close(self) -> None:
        """Let go of all: those whose bridges were made are seen there."""
        for subnet in list(self._held):
            self._let_go(subnet)

    def _claimed_by_others(self) -> Iterator[str]:
        for line in Path("/proc/thread-self/net/unix").read_text().splitlines():
            subnet = line.partition(_CLAIM)[2]
            if subnet and subnet not in self._held and _is_subnet(subnet):
                yield subnet


def _is_subnet(text: str) -> bool:
    try:
        ipaddress.IPv4Network(text)
    except ValueError:
        return False
    return True


def choose_free_subnets(count: int, busy: Sequence[str]) -> list[str]:
    """The first `count` free /24 subnets of the pools, in order; fewer when there are no more. Pure."""
    ranges = _merge(sorted(map(_range, busy)))
    starts = [first for first, _ in ranges]
    found: list[str] = []
    for pool in POOLS:
        first, last = _range(pool)
        at = first
        while at + _SIZE - 1 <= last and len(found) < count:
            place = bisect_right(starts, at + _SIZE - 1) - 1
            if place >= 0 and ranges[place][1] >= at:
                at = ranges[place][1] // _SIZE * _SIZE + _SIZE
                continue
            found.append(f"{ipaddress.IPv4Address(at)}/24")
            at += _SIZE
    return found


@lru_cache(maxsize=4096)  # Those of a thousand networks are looked through for each new one.
def _range(subnet: str) -> tuple[int, int]:
    network = ipaddress.IPv4Network(subnet, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _merge(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def check_subnet(layout: Layout, key: Key, subnet: str) -> None:
    """Raise SubnetTaken where a route or an address of the host overlaps it that is not by a bridge of this root."""
    wanted = ipaddress.IPv4Network(subnet, strict=False)
    for busy, link in _read_busy():
        if not link.startswith(f"b{layout.root_id}") and wanted.overlaps(ipaddress.IPv4Network(busy, strict=False)):
            raise SubnetTaken(key, subnet, f"{busy}, which the host reaches by {link or 'a route'}")


def _read_busy() -> Iterator[tuple[str, str]]:
    """Subnets that the host routes or has an address in, with the name of the link; not the default route."""
    with saying("networks", "read the host's routes"), NetlinkSocket() as opened:
        names = {link.index: link.name for link in netlink.read_links(opened).values()}
        addresses = netlink.read_addresses(opened)
        routes = netlink.read_routes(opened)
    for route in routes:
        if not route.destination.endswith("/0"):
            yield route.destination, names.get(route.link, "")
    for index, some in addresses.items():
        for address in some:
            yield address, names.get(index, "")
