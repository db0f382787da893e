"""Turns a container's place on its networks into its /etc/hosts, /etc/resolv.conf and /etc/hostname. Pure.

The driver writes them into the bundle and binds them over the image's own, as Docker does.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

_LOCAL = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_MOST_NAMESERVERS = 3
"""resolv.conf(5): what C libraries look at."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What of its networks and of the host concerns a container's names."""

    hostname: str
    addresses: tuple[str, ...] = ()
    """Its own, in the order of its links."""
    gateways: tuple[str, ...] = ()
    """Of its bridges, in the same order: name service listens there."""
    host_hosts: str = ""
    """The host's /etc/hosts, for a container on the host's network."""
    host_resolv: str = ""
    """The host's /etc/resolv.conf."""


def render_hosts(around: Surroundings, extra: Mapping[str, str]) -> str:
    """hosts(5): local names, its own name at each of its addresses, then `extra` (name to address).

    The address `host-gateway` means the host, as in Docker: the first gateway.
    """
    text = around.host_hosts or _LOCAL
    if not text.endswith("\n"):
        text += "\n"
    text += "".join(f"{address}\t{around.hostname}\n" for address in around.addresses)
    host = around.gateways[0] if around.gateways else "127.0.0.1"
    return text + "".join(
        f"{host if address == 'host-gateway' else address}\t{name}\n" for name, address in sorted(extra.items())
    )


def render_resolv(around: Surroundings, *, servers: Sequence[str], search: Sequence[str]) -> str:
    """resolv.conf(5). On a bridge only our own name service is asked, which forwards to `servers` or the host's.

    Off one, `servers` and `search` stand before what the host has.
    """
    if around.gateways:
        domains = tuple(search) or _read_search(around.host_resolv)
        lines = [f"search {' '.join(domains)}"] if domains else []
        lines += [f"nameserver {gateway}" for gateway in around.gateways[:_MOST_NAMESERVERS]]
        # Compat: as Docker; names without a dot are looked up as they are first.
        return "\n".join([*lines, "options ndots:0"]) + "\n"
    if not servers and not search:
        return around.host_resolv
    kept = [
        line
        for line in around.host_resolv.splitlines()
        if not (servers and line.startswith("nameserver")) and not (search and line.startswith(("search", "domain")))
    ]
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers]
    return "\n".join([*lines, *kept]) + "\n"


def _read_search(text: str) -> tuple[str, ...]:
    """The last search line counts."""
    found: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("search", "domain"):
            found = tuple(word for word in words[1:] if word != ".")
    return found
