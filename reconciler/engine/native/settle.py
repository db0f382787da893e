"""Brings what derives from all records to its one right form: firewall, loopback routing, names. And looks whether it is.

`converge` calls it under the root's lock: policy before links, once more when the bridges are there. The forms are
`net/rules.py`'s and `net/dns.py`'s; nothing here decides. Without a bridge network in the view nothing is left: no table,
no process, no file.
"""

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import dns, firewall
from reconciler.engine.native.net.bridge import gateway_address
from reconciler.engine.native.net.rules import Ruleset, bridge_networks, choose_ruleset
from reconciler.engine.native.net.words import saying
from reconciler.linux.sysctls import read_sysctl, write_sysctl
from reconciler.model.key import Key
from reconciler.model.observation import PRESENT, Part, Stray, altered
from reconciler.model.record import View


def settle(layout: Layout, view: View, *, names: bool = True) -> None:
    """Load the view's firewall in one transaction if it is not loaded exactly; with `names` its name service too.

    Called under the root's lock.
    """
    if bridge_networks(view):
        ruleset = choose_ruleset(layout.root_id, view)
        firewall.ensure_firewall(layout, ruleset)
        # Order: loopback addresses are routed only once the rules are loaded that keep containers off them.
        for network in bridge_networks(view):
            _write_loopback(network.grants.link, ruleset)
    else:
        firewall.remove_firewall(layout)
    if names:
        settle_names(layout, view)


def settle_names(layout: Layout, view: View) -> None:
    """Load the view's names for networks whose bridge has its gateway address. Called under the root's lock."""
    if bridge_networks(view):
        dns.ensure_names(layout, dns.render_names(view, _ready(view, Glimpse(layout))))
    else:
        dns.remove_names(layout)


def _ready(view: View, glimpse: Glimpse) -> set[str]:
    """The bridges that have their gateway address."""
    ready = set()
    for network in bridge_networks(view):
        link = glimpse.links.get(network.grants.link)
        if link is not None and gateway_address(network) in glimpse.addresses.get(link.index, ()):
            ready.add(network.grants.link)
    return ready


def _write_loopback(link: str, ruleset: Ruleset) -> None:
    wanted = _loopback_of(link, ruleset)
    with saying("firewall", f"route loopback addresses by {link}"):
        try:
            if read_sysctl(f"ipv4/conf/{link}/route_localnet") != wanted:
                write_sysctl(f"ipv4/conf/{link}/route_localnet", wanted)
        except FileNotFoundError:  # The bridge is on its way; settle runs again when it is there.
            return


def _loopback_of(link: str, ruleset: Ruleset) -> str:
    return "1" if link in ruleset.loopback else "0"


def observe_settled(layout: Layout, view: View, glimpse: Glimpse) -> dict[Key, dict[str, Part]]:
    """Parts of what settle makes, by key: of networks `rules`, `loopback` and `names`; of containers `rules/NETWORK`,
    `port/127.0.0.1:8080/tcp` and `names`. Settling again mends each of them in place."""
    networks = bridge_networks(view)
    if not networks:
        return {}
    ruleset = choose_ruleset(layout.root_id, view)
    tables = firewall.read_firewall(layout)
    parts = firewall.diff_firewall(layout, ruleset, tables, {made.grants.link: made.key for made in networks})
    for network in networks:
        parts[network.key] |= _observe_loopback(network.grants.link, ruleset)
    names = dns.observe_names(layout, view, dns.render_names(view, _ready(view, glimpse)))
    for key, some in names.items():
        parts.setdefault(key, {}).update(some)
    return parts


def strays(layout: Layout, view: View, glimpse: Glimpse) -> list[Stray]:  # noqa: ARG001 - the same three everywhere
    """What settle left that no bridge network of the view needs: tables and a name service. `settle` removes them."""
    if bridge_networks(view):
        return []
    found = [Stray(kind="table", name=f"{family} {name}") for family, name in firewall.read_firewall(layout)]
    pid = dns.find_resolver(layout)
    return [*found, Stray(kind="process", name=f"aardvark-dns (pid {pid})")] if pid else found


def _observe_loopback(link: str, ruleset: Ruleset) -> dict[str, Part]:
    wanted = _loopback_of(link, ruleset)
    try:
        found = read_sysctl(f"ipv4/conf/{link}/route_localnet")
    except FileNotFoundError:  # Without its bridge there is nothing to say: that the bridge is gone is said already.
        return {}
    return {"loopback": PRESENT if found == wanted else altered("route_localnet", wanted, found)}
