"""Makes a bridge of a network's grants, looks whether it still is as made, and removes it.

`drivers/network.py` calls this; containers join by `veth.py`, `rules.py` says what may pass. Never touches a link that does
not bear the root's id.
"""

import hashlib
from collections.abc import Mapping, Sequence

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.net.words import saying
from reconciler.linux import netlink
from reconciler.linux.nlsocket import Change, NetlinkSocket
from reconciler.linux.sysctls import read_sysctl, write_sysctl
from reconciler.model.errors import Failed
from reconciler.model.observation import PRESENT, Part, altered, missing
from reconciler.model.record import Made
from reconciler.model.spec import NetworkSpec

_FORWARDING = "ipv4/ip_forward"
_DEFAULT_MTU = 1500
_IPV6 = {"disable_ipv6": "1", "accept_ra": "0"}
"""Of a bridge: no address, no route and no neighbour of a container's making."""


def read_uplink_mtu(routes: Sequence[netlink.Route], links: Mapping[str, netlink.Link]) -> int:
    """The MTU of the link that the default route goes by; 1500 where there is none."""
    uplinks = {route.link for route in routes if route.destination == "0.0.0.0/0"}
    return min((link.mtu for link in links.values() if link.index in uplinks), default=_DEFAULT_MTU)


def bridge_mac(link: str) -> str:
    """The hardware address of a bridge: fixed by its name, so that no port that comes or goes changes it."""
    return "02:" + hashlib.sha256(link.encode()).digest()[:5].hex(":")


def ensure_bridge(made: Made) -> None:
    """Make the bridge, give it its gateway address, bring it up; complete or mend what half exists. Raises Failed."""
    spec = made.spec
    assert isinstance(spec, NetworkSpec)
    with saying(made.key, f"make the bridge {made.grants.link}"), NetlinkSocket() as opened:
        links = netlink.read_links(opened)
        mtu = spec.mtu or read_uplink_mtu(netlink.read_routes(opened), links)
        there = links.get(made.grants.link)
        if there is None:
            netlink.send([netlink.bridge_creation(made.grants.link, mac=bridge_mac(made.grants.link))], opened)
            there = netlink.read_link(made.grants.link, opened)
        if there is None or there.kind != "bridge":
            raise Failed(
                f"{made.key}: the link {made.grants.link} is no bridge",
                hint=f"another program made it: remove it with `ip link delete {made.grants.link}`",
            )
        _write_sysctls(made.grants.link)
        netlink.send(_changes(made, there, mtu), opened)
        netlink.send(_port_changes(spec, there, links, mtu), opened)


def _write_sysctls(link: str) -> None:
    for name, value in _IPV6.items():
        try:
            write_sysctl(f"ipv6/conf/{link}/{name}", value)
        except FileNotFoundError:  # Kernel: without IPv6 there is nothing to switch off.
            continue
    # Containers go out through the host only if it forwards. Nobody's setting is taken back: others may rely on it.
    if read_sysctl(_FORWARDING) != "1":
        write_sysctl(_FORWARDING, "1")


def _changes(made: Made, there: netlink.Link, mtu: int) -> list[Change]:
    mac = bridge_mac(made.grants.link)
    return [
        netlink.link_change(
            made.grants.link,
            up=True,
            mtu=mtu if there.mtu != mtu else None,
            mac=mac if there.mac != mac else "",
        ),
        netlink.address_addition(there.index, gateway_address(made)),
    ]


def _port_changes(spec: NetworkSpec, bridge: netlink.Link, links: Mapping[str, netlink.Link], mtu: int) -> list[Change]:
    """Bring the ports that it has to the network's ICC and MTU."""
    changes = []
    for link in links.values():
        if link.master != bridge.index:
            continue
        if link.isolated == spec.icc or not link.hairpin:
            changes.append(netlink.port_change(link.name, isolated=not spec.icc))
        if link.mtu != mtu:
            changes.append(netlink.link_change(link.name, mtu=mtu))
    return changes


def gateway_address(made: Made) -> str:
    """The bridge's address with its prefix: `10.64.0.1/24`."""
    return f"{made.grants.gateway}/{made.grants.subnet.rpartition('/')[2]}"


def remove_bridge(made: Made) -> None:
    """Remove the bridge; one that is gone is no error."""
    with saying(made.key, f"remove the bridge {made.grants.link}"):
        netlink.send([netlink.link_removal(made.grants.link)])


def observe_bridge(made: Made, glimpse: Glimpse, *, uplink_mtu: int, forwarding: bool) -> dict[str, Part]:
    """The parts `bridge`, `address`, `forwarding` and `ipv6` of one network."""
    spec = made.spec
    assert isinstance(spec, NetworkSpec)
    link = glimpse.links.get(made.grants.link)
    if link is None:
        return {"bridge": missing(), "address": missing()}
    addresses = glimpse.addresses.get(link.index, ())
    wanted = gateway_address(made)
    address = PRESENT
    if wanted not in addresses:
        address = altered("address", wanted, ", ".join(addresses)) if addresses else missing()
    return {
        "bridge": _diff_link(made, link, spec.mtu or uplink_mtu),
        "address": address,
        "forwarding": PRESENT if forwarding else altered(_FORWARDING, "1", "0"),
        "ipv6": _diff_ipv6(made.grants.link),
    }


def _diff_ipv6(link: str) -> Part:
    for name, wanted in _IPV6.items():
        try:
            found = read_sysctl(f"ipv6/conf/{link}/{name}")
        except FileNotFoundError:  # Without IPv6, or it went just now: that the bridge is gone is said already.
            return PRESENT
        if found != wanted:
            return altered(name, wanted, found)
    return PRESENT


def _diff_link(made: Made, link: netlink.Link, mtu: int) -> Part:
    if link.kind != "bridge":
        return altered("kind", "bridge", link.kind or "none")
    if not link.up:
        return altered("state", "up", "down")
    if link.mac != bridge_mac(made.grants.link):
        return altered("mac", bridge_mac(made.grants.link), link.mac)
    if link.mtu != mtu:
        return altered("mtu", str(mtu), str(link.mtu))
    return PRESENT


def read_forwarding() -> bool:
    """Whether the host forwards packets between its links."""
    return read_sysctl(_FORWARDING) == "1"
