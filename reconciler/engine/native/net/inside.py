"""Compares what a container's namespace must hold with what is in it. Pure; `veth.py` makes it and reads it."""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from reconciler.linux.netlink import Link, Route
from reconciler.model.observation import PRESENT, Part, altered, missing

_DEFAULT = "0.0.0.0/0"


class Inner(Struct, frozen=True):
    """A container's end of one network."""

    network: str
    """Its name in the container's stack."""
    name: str
    """eth0, eth1, …"""
    address: str
    """With prefix: `10.64.0.2/24`."""
    mac: str
    mtu: int
    """0 where the bridge is not there to ask."""
    gateway: str
    """Of the default route, if that goes by this network; else empty."""


def diff_inside(
    inner: Sequence[Inner], links: Mapping[str, Link], addresses: Mapping[int, Sequence[str]], routes: Sequence[Route]
) -> dict[str, Part]:
    """The parts `link/NETWORK`, `address/NETWORK` and `route` of one namespace.

    Addresses and routes that are there besides ours are the container's own business.
    """
    parts: dict[str, Part] = {}
    for end in inner:
        link = links.get(end.name)
        parts[f"link/{end.network}"] = _diff_link(end, link)
        there = addresses.get(link.index, ()) if link is not None else ()
        parts[f"address/{end.network}"] = _diff_address(end.address, there)
    loopback = links.get("lo")
    if loopback is None or not loopback.up:
        parts["loopback"] = altered("state", "up", "down")
    parts.update(_diff_route(inner, links, routes))
    return parts


def _diff_link(end: Inner, link: Link | None) -> Part:
    if link is None:
        return missing()
    if link.mac != end.mac:
        return altered("mac", end.mac, link.mac)
    if end.mtu and link.mtu != end.mtu:
        return altered("mtu", str(end.mtu), str(link.mtu))
    if not link.up:
        return altered(f"state of {end.name}", "up", "down")
    return PRESENT


def _diff_address(wanted: str, there: Sequence[str]) -> Part:
    if wanted in there:
        return PRESENT
    return altered("address", wanted, ", ".join(there)) if there else missing()


def _diff_route(inner: Sequence[Inner], links: Mapping[str, Link], routes: Sequence[Route]) -> Iterator[tuple[str, Part]]:
    for end in inner:
        if not end.gateway:
            continue
        link = links.get(end.name)
        there = [route for route in routes if route.destination == _DEFAULT]
        if link is not None and any(route.gateway == end.gateway and route.link == link.index for route in there):
            yield "route", PRESENT
        elif there:
            yield "route", altered("gateway", end.gateway, ", ".join(route.gateway for route in there))
        else:
            yield "route", missing()
