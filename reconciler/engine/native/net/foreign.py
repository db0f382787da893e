"""Looks for other programs' firewalls that would drop what ours lets pass. For apply's warnings and for doctor.

nftables asks every table: a packet that ours accepts is dropped all the same when another chain's policy says so, as
Docker's and ufw's FORWARD do. Nothing of theirs is changed.
"""

from pathlib import Path

from reconciler.engine.native.net.rules import table_name
from reconciler.engine.native.net.words import saying
from reconciler.linux import nft

_FORWARD = 2
"""NF_INET_FORWARD (linux/netfilter.h)."""


def read_forward_droppers() -> list[str]:
    """Chains of others that drop forwarded packets by policy, for people: `table ip filter chain FORWARD`.

    What iptables-legacy holds can't be read without it; that there is some is said.
    """
    found = []
    with saying("firewall", "read the chains of other programs"):
        for family in ("inet", "ip"):
            for table, chain, drops in nft.list_policies(family, _FORWARD):
                if drops and not table.startswith(table_name("")):
                    found.append(f"table {family} {table} chain {chain}")
        legacy = Path("/proc/net/ip_tables_names")
        if legacy.exists() and "filter" in legacy.read_text().split():
            found.append("iptables-legacy's table filter (look at `iptables-legacy -S FORWARD`)")
    return found
