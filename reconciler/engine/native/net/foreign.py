"""Looks for other programs' firewalls that would drop what ours lets pass. For apply's warnings and for doctor.

nftables asks every table: a packet that ours accepts is dropped all the same when another chain's policy says so, as
Docker's and ufw's FORWARD do. Nothing of theirs is changed; what to tell them is said, and opens no more than our own table
does, which goes on dropping what is not published.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from msgspec import Struct

from reconciler.engine.native.net.rules import table_name
from reconciler.engine.native.net.words import saying
from reconciler.linux import nft

_FORWARD = 2
"""NF_INET_FORWARD (linux/netfilter.h)."""

_FOR_OTHERS = "DOCKER-USER"
"""Compat: the chain that Docker asks before its own rules, and never writes to."""

_CHAIN = re.compile(r"\s*chain (\S+) \{")
_ACCEPTS = re.compile(r'\s*([io])ifname "([^"]+)" (?:counter packets \d+ bytes \d+ )?accept\b')


class Dropper(Struct, frozen=True, kw_only=True):
    """Somebody's chain that drops what our bridges forward."""

    chain: str
    """For people: `table ip filter chain FORWARD`."""
    mend: str
    """The command that lets our bridges pass."""


def read_forward_droppers(root_id: str) -> list[Dropper]:
    """Chains of others that drop forwarded packets by policy, and have no rules that let the bridges of this root pass.

    What iptables-legacy holds can't be read without it; that there is some is said.
    """
    found = []
    with saying("firewall", "read the chains of other programs"):
        for family in ("inet", "ip"):
            for table, chain, drops in nft.list_policies(family, _FORWARD):
                if drops and not table.startswith(table_name("")):
                    found += _read_dropper((family, table, chain), root_id)
        legacy = Path("/proc/net/ip_tables_names")
        if legacy.exists() and "filter" in legacy.read_text().split():
            name = "iptables-legacy's table filter (look at `iptables-legacy -S FORWARD`)"
            found.append(Dropper(chain=name, mend=_by_iptables("iptables-legacy", "FORWARD", root_id)))
    return found


def _read_dropper(place: tuple[str, str, str], root_id: str) -> list[Dropper]:
    family, table, chain = place
    rules = _read_rules(nft.print_table(family, table))
    asked = [chain, *(name for name in rules if name == _FOR_OTHERS)]
    ways = {way for name in asked for way in _read_ways(rules.get(name, ()), root_id)}
    if ways == {"i", "o"}:
        return []
    mend = (
        _by_iptables("iptables", asked[-1], root_id)
        if place == ("ip", "filter", "FORWARD")
        else " && ".join(
            f"nft insert rule {' '.join(place)} {way} '\"b{root_id}*\"' accept" for way in ("iifname", "oifname")
        )
    )
    return [Dropper(chain=f"table {family} {table} chain {chain}", mend=mend)]


def _by_iptables(program: str, chain: str, root_id: str) -> str:
    return " && ".join(f"{program} -I {chain} {way} 'b{root_id}+' -j ACCEPT" for way in ("-i", "-o"))


def _read_rules(text: str) -> dict[str, list[str]]:
    """The lines of each chain of a table, as nft prints it."""
    rules: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if begun := _CHAIN.match(line):
            name = begun[1]
        rules.setdefault(name, []).append(line)
    return rules


def _read_ways(lines: Sequence[str], root_id: str) -> set[str]:
    """`i` where a rule accepts whatever comes from our bridges, `o` where one accepts what goes there."""
    accepts = [found for line in lines if (found := _ACCEPTS.match(line))]
    return {found[1] for found in accepts if fnmatchcase(f"b{root_id}00000000", found[2])}
