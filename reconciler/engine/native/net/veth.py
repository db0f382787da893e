"""Turns a container's grants into its network namespace and its links, and looks whether they still are as made.

The container driver calls this: prepare (ends down), raise, lower, remove; observe and mend. The bridges are `bridge.py`'s,
what may pass between them is `rules.py`'s. Never speaks to a runtime and never decides whether a container should run.

The end on the host is what opens and closes the way: inside, everything is set up and up from the beginning, so that
raising is one message. In a stop-first replace the new end takes over from the old one, which has the same address.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net.inside import Inner, diff_inside
from reconciler.engine.native.net.insides import Inside, Insides
from reconciler.engine.native.net.words import saying
from reconciler.engine.protocol import Uses
from reconciler.linux import namespaces, netlink
from reconciler.linux.mounts import MountEntry
from reconciler.linux.nlsocket import Change, NetlinkSocket
from reconciler.linux.sysctls import write_sysctl
from reconciler.model.errors import Failed
from reconciler.model.key import Key, Kind, named_key, stack_of
from reconciler.model.observation import PRESENT, Part, altered, missing
from reconciler.model.record import Endpoint, Made
from reconciler.model.spec import ContainerSpec, NetworkSpec

_SYSCTLS = {
    # Compat: as in Docker's containers everybody may send echo requests and listen below 1024, without a capability.
    "ipv4/ping_group_range": "0 2147483647",
    "ipv4/ip_unprivileged_port_start": "0",
    # No address, no route and no neighbour from a router advertisement; IPv6 is on loopback only until it is built.
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/all/accept_ra": "0",
    "ipv6/conf/default/disable_ipv6": "1",
}


def netns_path(layout: Layout, made: Made) -> Path:
    """Where a container's network namespace is kept, for the runtime's configuration."""
    return layout.netns / made.incarnation


def shares_host(made: Made, networks: Uses) -> bool:
    """Whether a container sits on the host's own network: it has no namespace then, and no links."""
    return any(_spec_of(network).driver == "host" for network in _networks_of(made, networks).values())


def _networks_of(made: Made, networks: Uses) -> dict[str, Made]:
    """The networks of a container that are known, by their name in its stack, sorted."""
    assert isinstance(made.spec, ContainerSpec)
    found = {name: networks.get(network_key(made, name)) for name in sorted(made.spec.networks)}
    return {name: network for name, network in found.items() if network is not None}


def _spec_of(network: Made) -> NetworkSpec:
    assert isinstance(network.spec, NetworkSpec)
    return network.spec


def network_key(made: Made, name: str) -> Key:
    """The key of a network that a container names."""
    return named_key(Kind.NETWORK, stack_of(made.key), name)


def plan_inside(made: Made, networks: Uses, mtus: Mapping[str, int]) -> list[Inner]:
    """What a container's namespace must hold, eth0 first: a link for each endpoint, in the order of network names.

    The default route goes by the first network that is not internal. `mtus` are the bridges', by network name.
    """
    inner: list[Inner] = []
    routed = False
    for place, (name, endpoint) in enumerate(sorted(made.grants.endpoints.items())):
        network = networks[network_key(made, name)]
        prefix = network.grants.subnet.rpartition("/")[2]
        routes = not routed and not _spec_of(network).internal
        routed = routed or routes
        gateway = network.grants.gateway if routes else ""
        inner.append(Inner(name, f"eth{place}", f"{endpoint.address}/{prefix}", endpoint.mac, mtus.get(name, 0), gateway))
    return inner


# ---------------------------------------------------------------- making and removing


def prepare_links(layout: Layout, made: Made, uses: Uses) -> None:
    """Make the namespace at `layout.netns/INCARNATION` and a veth for each endpoint, its end on the host down.

    Idempotent: whatever half exists is completed, and an end that is up stays up. Safe to call from many threads, for
    different containers. Nothing happens for a container on the host's network. Raises Failed.
    """
    if shares_host(made, uses):
        return
    path = netns_path(layout, made)
    with saying(made.key, "make its network namespace"):
        layout.netns.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure_netns(path)
        with _opened_inside(path) as (netns, inside):
            netlink.send([netlink.link_change("lo", up=True)], inside)
            if made.grants.endpoints:
                _ensure_ends(made, uses, netns, inside)


def prepare_namespace(layout: Layout, made: Made, uses: Uses) -> None:
    """As `prepare_links`, the namespace alone: for a container whose networks are on their way."""
    if shares_host(made, uses):
        return
    with saying(made.key, "make its network namespace"):
        layout.netns.mkdir(mode=0o700, parents=True, exist_ok=True)
        _ensure_netns(netns_path(layout, made))


def _ensure_netns(path: Path) -> None:
    if not namespaces.is_kept(path):
        # Order: parameters before the first link, for a link takes the defaults of the moment in which it is made.
        with namespaces.created(path):
            _write_sysctls()


def _write_sysctls() -> None:
    for name, value in _SYSCTLS.items():
        try:
            write_sysctl(name, value)
        except FileNotFoundError:  # Kernel: without IPv6 there is nothing to switch off.
            continue


@contextmanager
def _opened_inside(path: Path) -> Iterator[tuple[int, NetlinkSocket]]:
    """A kept namespace's descriptor and an rtnetlink socket in it."""
    netns = namespaces.open_netns(path)
    try:
        with namespaces.entered(netns):
            inside = NetlinkSocket()
        with inside:
            yield netns, inside
    finally:
        os.close(netns)


def _ensure_ends(made: Made, uses: Uses, netns: int, inside: NetlinkSocket) -> None:
    with NetlinkSocket() as outside:
        bridges = {name: _find_bridge(made, name, uses, outside) for name in sorted(made.grants.endpoints)}
        inner = plan_inside(made, uses, {name: bridge.mtu for name, bridge in bridges.items()})
        there = netlink.read_links(inside)
        changes: list[Change] = []
        for end in inner:
            bridge = bridges[end.network]
            link = made.grants.endpoints[end.network].link
            outer, other = netlink.read_link(link, outside), there.get(end.name)
            if outer is None or other is None or outer.peer != other.index:
                # Order: what is left of a torn pair holds the names; it goes first.
                netlink.send([netlink.link_removal(link)], outside)
                netlink.send([netlink.link_removal(end.name)], inside)
                changes += [_creation(end, link, bridge, netns), netlink.no_ipv6_address(link)]
            elif outer.master != bridge.index or outer.mtu != bridge.mtu:
                changes.append(netlink.link_change(link, master=bridge.index, mtu=bridge.mtu))
            changes.append(netlink.port_change(link, isolated=not _spec_of(uses[network_key(made, end.network)]).icc))
        netlink.send(changes, outside)
    there = netlink.read_links(inside)
    netlink.send([change for end in inner for change in _inner_changes(end, there[end.name])], inside)


def _creation(end: Inner, link: str, bridge: netlink.Link, netns: int) -> Change:
    return netlink.veth_creation(link, master=bridge.index, mtu=bridge.mtu, peer=end.name, peer_mac=end.mac, netns=netns)


def _find_bridge(made: Made, name: str, uses: Uses, outside: NetlinkSocket) -> netlink.Link:
    network = uses[network_key(made, name)]
    bridge = netlink.read_link(network.grants.link, outside)
    if bridge is None:
        raise Failed(
            f"{made.key}: join {network.key}: its bridge {network.grants.link} is not on the machine",
            hint="apply again: what is missing of the network is made first",
        )
    return bridge


def _inner_changes(end: Inner, there: netlink.Link) -> Iterator[Change]:
    """Bring one end inside to its form: address, hardware address, MTU, up, and the default route if it is by it."""
    yield netlink.link_change(
        end.name,
        up=True,
        mac=end.mac if there.mac != end.mac else "",
        mtu=end.mtu if there.mtu != end.mtu else None,
    )
    yield netlink.address_addition(there.index, end.address)
    if end.gateway:
        yield netlink.default_route(end.gateway, there.index)


def raise_links(layout: Layout, made: Made, uses: Uses) -> None:  # noqa: ARG001 - one signature for all verbs
    """Open the way: the ends on the host up, and forwarding. `prepare_links` came before. Raises Failed, for a link that
    is gone too.

    Nobody has to be told: with the old end down or muted its bridge has forgotten where the hardware address was.
    """
    links = [endpoint.link for endpoint in _endpoints(made)]
    with saying(made.key, "bring its links up"), NetlinkSocket() as opened:
        netlink.send([netlink.link_change(link, up=True) for link in links], opened)
        _wait_for_links(links, opened)
        there = [found for link in links if (found := netlink.read_link(link, opened)) is not None]
        netlink.send([netlink.port_muting(link, muted=False) for link in there if link.muted], opened)


def ready_links(layout: Layout, made: Made) -> None:  # noqa: ARG001 - one signature for all verbs
    """Everything of `raise_links` that takes time: the ends on the host up and working, but on no bridge. Raises Failed."""
    links = [endpoint.link for endpoint in _endpoints(made)]
    with saying(made.key, "bring its links up"), NetlinkSocket() as opened:
        netlink.send([netlink.link_change(link, master=0, up=True) for link in links], opened)
        _wait_for_links(links, opened)


def take_over_links(layout: Layout, made: Made, uses: Uses, *, old: Made) -> None:  # noqa: ARG001 - as above
    """Open the way that `ready_links` made ready and close that of `old`, which has the same addresses, in one message.

    Order: joined, then muted. What comes between the two is refused by one of the kernels, at once; what came while neither
    was open would be lost, and sent again a second later. Raises Failed.
    """
    with saying(made.key, "take over its links"), NetlinkSocket() as opened:
        changes: list[Change] = []
        for name, endpoint in sorted(made.grants.endpoints.items()):
            network = uses[network_key(made, name)]
            changes.append(netlink.link_change(endpoint.link, master=_find_bridge(made, name, uses, opened).index))
            changes.append(netlink.port_change(endpoint.link, isolated=not _spec_of(network).icc))
        links = [found for one in _endpoints(old) if (found := netlink.read_link(one.link, opened)) is not None]
        netlink.send([*changes, *(netlink.port_muting(link, muted=True) for link in links)], opened)


def _wait_for_links(links: Sequence[str], opened: NetlinkSocket) -> None:
    """Return once both ends of every link work, or in a second: a first packet that is lost is sent again that late."""
    # Kernel: that a carrier came is worked off by a thread of its own (linkwatch), some milliseconds later, end by end.
    deadline = time.monotonic() + 1.0
    for name in links:
        while not _works(name, opened) and time.monotonic() < deadline:
            time.sleep(0.0005)


def _works(name: str, opened: NetlinkSocket) -> bool:
    link = netlink.read_link(name, opened)
    if link is None or not link.works:
        return link is None
    other = netlink.read_other_end(link, opened)
    return other is None or other.works


def lower_links(layout: Layout, made: Made) -> None:  # noqa: ARG001 - one signature for all verbs
    """Close the way: the ends on the host down. Links that are gone are no error."""
    with saying(made.key, "take its links down"):
        netlink.send([netlink.link_change(endpoint.link, up=False, ignore=netlink.GONE) for endpoint in _endpoints(made)])


def remove_links(layout: Layout, made: Made) -> None:
    """Remove the links and let go of the namespace. What is gone already is no error."""
    with saying(made.key, "remove its network namespace and links"):
        # Order: the kernel begins to take the namespace down by itself, and the links with it, many at a time.
        namespaces.remove_netns(netns_path(layout, made))
        netlink.send([netlink.link_removal(endpoint.link) for endpoint in _endpoints(made)])


def mend_links(layout: Layout, made: Made, uses: Uses, *, pid: int = 0) -> None:
    """Bring back what `observe_links` misses beneath a running container, which keeps its pid.

    With `pid`, its first process, a namespace whose mount was lost is kept again; without it a new one would be made
    that the container is not in.
    """
    path = netns_path(layout, made)
    if pid and not shares_host(made, uses) and not namespaces.is_kept(path):
        with saying(made.key, "keep its network namespace again"):
            namespaces.keep_netns(pid, path)
    prepare_links(layout, made, uses)
    raise_links(layout, made, uses)


def _endpoints(made: Made) -> Sequence[Endpoint]:
    return [endpoint for _, endpoint in sorted(made.grants.endpoints.items())]


# ---------------------------------------------------------------- looking


def observe_links(
    layout: Layout, mades: Sequence[Made], glimpse: Glimpse, *, networks: Uses, insides: Insides | None = None
) -> dict[str, dict[str, Part]]:
    """The parts of containers that are links, by incarnation: `netns`, `link/NETWORK`, `up/NETWORK`, `address/NETWORK`,
    `route`.

    `up/…` says whether the end on the host is up: it should be for a container that runs, and only then. `networks` are
    the networks that the containers name, by key. One dump outside, and three small requests in each namespace of which
    `insides` does not know that it is as it was.
    """
    known = insides or Insides()
    begun = known.begin()
    with saying("containers", "look at their links"):
        names = {link.index: link.name for link in glimpse.links.values()}
        look = _Look(str(layout.netns), glimpse, networks, names, known, begun)
        return {made.incarnation: _observe(look, made) for made in mades}


def choose_parts(parts: Mapping[str, Part], *, runs: bool) -> dict[str, Part]:
    """Those that count: of a container that does not run, the ends on the host are down as they should be."""
    return {name: part for name, part in parts.items() if runs or not name.startswith("up/")}


class _Look(Struct, frozen=True):
    """What one look is made with."""

    folder: str
    glimpse: Glimpse
    networks: Uses
    names: Mapping[int, str]
    insides: Insides
    begun: int


def _observe(look: _Look, made: Made) -> dict[str, Part]:
    glimpse, networks = look.glimpse, look.networks
    if shares_host(made, networks):
        return {}
    kept = glimpse.mounts.get(f"{look.folder}/{made.incarnation}")
    parts = {"netns": PRESENT if kept is not None and kept.fstype == "nsfs" else missing()}
    for name, endpoint in sorted(made.grants.endpoints.items()):
        network = networks.get(network_key(made, name))
        parts.update(_observe_outside(name, endpoint, network, glimpse, look.names))
    if kept is not None and parts["netns"] is PRESENT:
        try:
            parts |= _observe_inside(look, made, kept, parts)
        except FileNotFoundError:  # Race: somebody removes this container while we look.
            parts["netns"] = missing()
    return parts


def _observe_outside(
    name: str, endpoint: Endpoint, network: Made | None, glimpse: Glimpse, names: Mapping[int, str]
) -> Iterator[tuple[str, Part]]:
    link = glimpse.links.get(endpoint.link)
    if link is None or network is None:
        yield f"link/{name}", missing()
        yield f"up/{name}", missing()
        return
    bridge = names.get(link.master, "none")
    isolated = not _spec_of(network).icc
    part = PRESENT
    if bridge != network.grants.link:
        part = altered("bridge", network.grants.link, bridge)
    elif not link.hairpin:
        part = altered("hairpin", "on", "off")
    elif link.isolated != isolated:
        part = altered("isolated", _on(isolated), _on(link.isolated))
    yield f"link/{name}", part
    # Kernel: the ports of a bridge that is down are all disabled; that is the bridge's to be mended.
    joined = glimpse.links.get(bridge)
    muted = link.muted and joined is not None and joined.up
    yield f"up/{name}", PRESENT if link.up and not muted else altered("state", "up", "down")


def _on(flag: bool) -> str:  # noqa: FBT001 - a word for a flag
    return "on" if flag else "off"


def _observe_inside(look: _Look, made: Made, kept: MountEntry, outside: Mapping[str, Part]) -> dict[str, Part]:
    glimpse, networks = look.glimpse, look.networks
    known = {name for name in made.grants.endpoints if network_key(made, name) in networks}
    if len(known) < len(made.grants.endpoints):
        return {}
    bridges = {name: glimpse.links.get(networks[network_key(made, name)].grants.link) for name in known}
    inner = plan_inside(made, networks, {name: bridge.mtu for name, bridge in bridges.items() if bridge is not None})
    inside = _read_inside(look, made, kept)
    there = inside.links
    found = diff_inside(inner, there, inside.addresses, inside.routes)
    for end in inner:
        outer = glimpse.links.get(made.grants.endpoints[end.network].link)
        if outer is not None and end.name in there and outer.peer != there[end.name].index:
            found[f"link/{end.network}"] = altered(f"other end of {end.name}", outer.name, "another link")
    # What is wrong outside was said already; only an end that is right outside can be wrong inside.
    return {name: part for name, part in found.items() if outside.get(name, PRESENT) is PRESENT}


def _read_inside(look: _Look, made: Made, kept: MountEntry) -> Inside:
    """What is in a namespace: as it is known, or by entering it."""
    links = look.glimpse.links
    # Where its links are not all in one other namespace, nobody tells what happens in the one that is mounted.
    numbers = {links[one.link].link_netnsid if one.link in links else -1 for one in made.grants.endpoints.values()}
    number = numbers.pop() if len(numbers) == 1 else -1
    known = look.insides.find(kept.point, kept.root, number)
    if known is not None:
        return known
    with _opened_inside(Path(kept.point)) as (_, opened):
        found = Inside(netlink.read_links(opened), netlink.read_addresses(opened), netlink.read_routes(opened))
    look.insides.keep(kept.point, kept.root, number, found, begun=look.begun)
    return found
