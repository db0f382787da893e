"""The driver of networks: bridges are made of their grants; `host` and `none` need nothing made.

Thin: `net/bridge.py` does it. Firewall and names are `settle.py`'s, links of containers the container driver's.
"""

import re
from collections.abc import Sequence

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.keepsakes import network_keepsakes, remove_network_keepsake
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import bridge
from reconciler.engine.native.net.rules import bridge_networks
from reconciler.engine.native.net.words import saying
from reconciler.engine.native.refusals import telling
from reconciler.engine.protocol import Uses
from reconciler.linux import namespaces, netlink
from reconciler.model.errors import Usage
from reconciler.model.events import Emit
from reconciler.model.key import Key
from reconciler.model.observation import Phase, Status, Stray
from reconciler.model.record import Made, View
from reconciler.model.spec import NetworkSpec

DRIVERS = ("bridge", "host", "none")


@telling("create", "update", "delete")
class NetworkDriver:
    """Networks of one root."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Make it, whatever half of it exists."""
        if _driver_of(made) == "bridge":
            bridge.ensure_bridge(made)
        return self.observe([made], Glimpse(self.layout))[made.key]

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Bring MTU and ICC to the new spec, its ports too, and mend what is missing or altered."""
        return self.create(new, uses=uses, emit=emit)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Remove its bridge; one that is gone is no error."""
        if _driver_of(made) == "bridge":
            bridge.remove_bridge(made)
        remove_network_keepsake(self.layout, made.grants.link)

    def observe(self, mades: Sequence[Made], glimpse: Glimpse) -> dict[Key, Status]:
        """Statuses of networks from one dump of links, one of addresses and one of routes."""
        if not any(_driver_of(made) == "bridge" for made in mades):
            return {made.key: Status(phase=Phase.PRESENT) for made in mades}
        with saying("networks", "look at links, addresses and routes"):
            mtu = bridge.read_uplink_mtu(netlink.read_routes(), glimpse.links)
            forwarding = bridge.read_forwarding()
            return {made.key: _observe(made, glimpse, mtu=mtu, forwarding=forwarding) for made in mades}

    def strays(self, view: View, glimpse: Glimpse) -> list[Stray]:
        """Links and namespaces that bear this root's id and belong to no record."""
        if not self.layout.root_id:  # Without an id every link would look like one of ours.
            return []
        known = {network.grants.link for network in bridge_networks(view)}
        known |= {endpoint.link for made in view.made for endpoint in made.grants.endpoints.values()}
        # A link that only begins like ours (`bridge0` where a root is called `ridge`) is somebody else's.
        form = re.compile(f"b{self.layout.root_id}[0-9a-z]{{8}}|v{self.layout.root_id}[0-9a-f]{{8}}[0-9a-z]")
        found = [Stray(kind="link", name=name) for name in glimpse.links if form.fullmatch(name) and name not in known]
        incarnations = {made.incarnation for made in view.made}
        if self.layout.netns.is_dir():
            kept = sorted(entry.name for entry in self.layout.netns.iterdir())
            found += [Stray(kind="netns", name=name) for name in kept if name not in incarnations]
        # Race: a delete that dies between the bridge and what says of it leaves the second alone.
        networks = {made.grants.link for made in view.made}
        found += [Stray(kind="keepsake", name=name) for name in network_keepsakes(self.layout) if name not in networks]
        return found

    def remove_stray(self, stray: Stray) -> None:
        """Remove what `strays` named; what is gone already is no error."""
        with saying(stray.name, f"remove the stray {stray.kind}"):
            match stray.kind:
                case "link":
                    netlink.send([netlink.link_removal(stray.name)])
                    remove_network_keepsake(self.layout, stray.name)
                case "keepsake":
                    remove_network_keepsake(self.layout, stray.name)
                case "netns":
                    namespaces.remove_netns(self.layout.netns / stray.name)
                case _:
                    raise ValueError(f"no stray of networks: {stray.kind}")


def _driver_of(made: Made) -> str:
    assert isinstance(made.spec, NetworkSpec)
    if made.spec.driver not in DRIVERS:
        raise Usage(
            f"{made.key}: the network driver {made.spec.driver} is not built yet", hint="there are: " + ", ".join(DRIVERS)
        )
    return made.spec.driver


def _observe(made: Made, glimpse: Glimpse, *, mtu: int, forwarding: bool) -> Status:
    if _driver_of(made) != "bridge":
        return Status(phase=Phase.PRESENT)
    parts = bridge.observe_bridge(made, glimpse, uplink_mtu=mtu, forwarding=forwarding)
    return Status(phase=Phase.PRESENT if made.grants.link in glimpse.links else Phase.MISSING, parts=parts)
