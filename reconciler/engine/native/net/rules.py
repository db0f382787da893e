"""Turns a view into the one firewall that it means: two nftables tables, as a value and as text. Pure.

`settle.py` loads it and compares it with what is loaded. The chains are the same for every root and every number of
containers; what differs lies in sets and maps, each element with the resource that it belongs to. The inet table decides
what is routed, the bridge table only that a port sends as nobody but its container (the bridge family may lack
conntrack). Everything holds with bridge-nf-call-iptables off and on: with it on, frames inside a bridge pass the inet
hooks too, with the bridge as both their links. Why each rule is there: docs/decisions/0012.
"""

import socket
from collections.abc import Iterable, Iterator

from msgspec import Struct

from reconciler.engine.native.net.template import BRIDGE, INET, SETS, SetType
from reconciler.model.key import Key, Kind, kind_of, named_key, stack_of
from reconciler.model.record import Made, View
from reconciler.model.spec import ContainerSpec, NetworkSpec

_ANYWHERE = "0.0.0.0"
_PROTOCOLS = {"tcp": 6, "udp": 17}
_VERDICTS = {"accept": 1, "drop": 0}


class Element(Struct, frozen=True):
    """One element of a set or map, and whose it is."""

    key: tuple[str, ...]
    value: tuple[str, ...]
    """Empty in sets."""
    owner: Key
    part: str
    """The part of the owner's status that this element is: `rules`, `port/127.0.0.1:8080/tcp`."""


class Ruleset(Struct, frozen=True):
    """A whole firewall of one root."""

    root_id: str
    sets: dict[tuple[str, str], tuple[Element, ...]]
    """By table's family and set's name, sorted; every set of the template is here."""
    loopback: frozenset[str]
    """Bridges with a port that is published on 127/8: the only ones that may route loopback addresses."""


class _Place(Struct, frozen=True):
    """A container's place on a bridge."""

    made: Made
    name: str
    network: Made
    internal: bool


def bridge_networks(view: View) -> list[Made]:
    """The networks of a view that have a bridge, by key."""
    networks = [made for made in view.made if isinstance(made.spec, NetworkSpec) and made.spec.driver == "bridge"]
    return sorted(networks, key=lambda made: made.key)


def table_name(root_id: str) -> str:
    """The name that both tables of a root bear."""
    return f"reconcile_{root_id}"


def choose_ruleset(root_id: str, view: View) -> Ruleset:
    """The firewall that a view means. Of two containers that claim one host port the older one has it."""
    networks = bridge_networks(view)
    places = list(_places(view, {network.key: network for network in networks}))
    found: dict[tuple[str, str], dict[tuple[str, ...], Element]] = {name: {} for name in SETS}
    for name, element in (*_network_elements(networks), *_place_elements(places), *_port_elements(places)):
        found[name].setdefault(element.key, element)
    sets = {name: tuple(element for _, element in sorted(elements.items())) for name, elements in found.items()}
    return Ruleset(root_id, sets, frozenset(_loopback(places)))


def _places(view: View, networks: dict[Key, Made]) -> Iterator[_Place]:
    containers = [made for made in view.made if kind_of(made.key) is Kind.CONTAINER]
    # Order: the older incarnation comes first, and what comes first has the port until it is gone.
    for made in sorted(containers, key=lambda made: (made.key, made.created_at)):
        for name in sorted(made.grants.endpoints):
            network = networks.get(named_key(Kind.NETWORK, stack_of(made.key), name))
            if network is not None:
                assert isinstance(network.spec, NetworkSpec)
                yield _Place(made, name, network, network.spec.internal)


def _network_elements(networks: Iterable[Made]) -> Iterator[tuple[tuple[str, str], Element]]:
    for network in networks:
        spec, link, gateway = network.spec, network.grants.link, network.grants.gateway
        assert isinstance(spec, NetworkSpec)
        inet = [
            ("bridges", (link,), ()),
            ("within", (link, link), ("accept" if spec.icc else "drop",)),
            ("gateways", (gateway,), ()),
            ("doors", (link, gateway), ()),
        ]
        if spec.internal:
            inet.append(("internal", (link,), ()))
        for name, key, value in inet:
            yield ("inet", name), Element(key, value, network.key, "rules")


def _place_elements(places: Iterable[_Place]) -> Iterator[tuple[tuple[str, str], Element]]:
    for place in places:
        endpoint = place.made.grants.endpoints[place.name]
        part = f"rules/{place.name}"
        sender = (endpoint.link, endpoint.mac, endpoint.address)
        yield ("bridge", "senders"), Element(sender, (), place.made.key, part)
        yield ("inet", "hosts"), Element((place.network.grants.link, endpoint.address), (), place.made.key, part)
        if not place.internal:
            yield ("inet", "egress"), Element((endpoint.address,), (), place.made.key, part)


def _publishing(places: Iterable[_Place]) -> Iterator[_Place]:
    """Where each container is published: on its first network that is not internal, else on its first. One that is held
    is not: its ports refuse, as those of a program that does not run."""
    chosen: dict[tuple[Key, str], _Place] = {}
    for place in (place for place in places if not place.made.away):
        mine = (place.made.key, place.made.incarnation)
        if mine not in chosen or (chosen[mine].internal and not place.internal):
            chosen[mine] = place
    return iter(chosen.values())


def _port_elements(places: Iterable[_Place]) -> Iterator[tuple[tuple[str, str], Element]]:
    for place in _publishing(places):
        spec = place.made.spec
        assert isinstance(spec, ContainerSpec)
        for published, inner in sorted(spec.ports.items()):
            host, port, protocol = split_port(published)
            target = (place.made.grants.endpoints[place.name].address, str(inner))
            everywhere = host == _ANYWHERE
            key = (protocol, port) if everywhere else (host, protocol, port)
            name = "published_everywhere" if everywhere else "published"
            yield ("inet", name), Element(key, target, place.made.key, f"port/{published}")


def _loopback(places: Iterable[_Place]) -> Iterator[str]:
    for place in _publishing(places):
        assert isinstance(place.made.spec, ContainerSpec)
        if any(split_port(port)[0].startswith(("127.", _ANYWHERE)) for port in place.made.spec.ports):
            yield place.network.grants.link


def split_port(published: str) -> tuple[str, str, str]:
    """Take `127.0.0.1:8080/tcp` apart: host address, port, protocol."""
    place, _, protocol = published.partition("/")
    host, _, port = place.rpartition(":")
    return host, port, protocol or "tcp"


# ---------------------------------------------------------------- as text, as the kernel's bytes


def render_ruleset(ruleset: Ruleset) -> str:
    """The text for `nft -f`: both tables put away and made anew, in one transaction."""
    name = table_name(ruleset.root_id)
    out = []
    for family, chains in (("inet", INET), ("bridge", BRIDGE)):
        sets = "\n".join(_render_set(ruleset, family, item) for of, item in SETS if of == family)
        # Order: `add` before `delete`, for deleting a table that is not there is an error and ends the transaction.
        out.append(f"add table {family} {name}\ndelete table {family} {name}\n")
        out.append(f"table {family} {name} {{\n{sets}\n{chains.replace('ROOTID', ruleset.root_id)}}}\n")
    return "".join(out)


def render_removal(root_id: str) -> str:
    """The text for `nft -f` that leaves nothing of a root."""
    name = table_name(root_id)
    return "".join(f"add table {family} {name}\ndelete table {family} {name}\n" for family in ("inet", "bridge"))


def _render_set(ruleset: Ruleset, family: str, name: str) -> str:
    kind = SETS[family, name]
    word = "map" if kind.value else "set"
    type_ = " . ".join(kind.key) + (f" : {' . '.join(kind.value)}" if kind.value else "")
    lines = [f"    {word} {name} {{", f"        type {type_}"]
    elements = ruleset.sets[family, name]
    if elements:
        lines.append("        elements = {")
        lines += [f"            {_render_element(kind, element)}," for element in elements]
        lines.append("        }")
    return "\n".join([*lines, "    }"])


def _render_element(kind: SetType, element: Element) -> str:
    key = " . ".join(_quote(type_, word) for type_, word in zip(kind.key, element.key, strict=True))
    return key + (f" : {' . '.join(element.value)}" if element.value else "")


def _quote(type_: str, word: str) -> str:
    return f'"{word}"' if type_ == "ifname" else word


def encode_words(types: tuple[str, ...], words: tuple[str, ...]) -> bytes:
    """A key or value as the kernel holds it: each word padded to four bytes where there are several (nf_tables)."""
    encoded = [_encode_word(type_, word) for type_, word in zip(types, words, strict=True)]
    if len(encoded) == 1:
        return encoded[0]
    return b"".join(word + b"\0" * (-len(word) % 4) for word in encoded)


def _encode_word(type_: str, word: str) -> bytes:
    match type_:
        case "ifname":
            return word.encode().ljust(16, b"\0")
        case "ipv4_addr":
            return socket.inet_aton(word)
        case "ether_addr":
            return bytes.fromhex(word.replace(":", ""))
        case "inet_proto":
            return bytes([_PROTOCOLS[word]])
        case "inet_service":
            return int(word).to_bytes(2, "big")
        case "verdict":
            return _VERDICTS[word].to_bytes(4, "big")
        case _:
            raise ValueError(f"no encoding for {type_}")


def decode_words(types: tuple[str, ...], data: bytes) -> str:
    """What the kernel holds, as nft would write it; for people."""
    words, at = [], 0
    for type_ in types:
        size = {"ifname": 16, "ipv4_addr": 4, "ether_addr": 6, "inet_proto": 1, "inet_service": 2, "verdict": 4}[type_]
        words.append(_decode_word(type_, data[at : at + size]))
        at += (size + 3) & ~3
    return " . ".join(words)


def _decode_word(type_: str, data: bytes) -> str:
    match type_:
        case "ifname":
            return data.rstrip(b"\0").decode(errors="replace")
        case "ipv4_addr" if len(data) == 4:
            return socket.inet_ntoa(data)
        case "ether_addr":
            return data.hex(":")
        case "inet_service":
            return str(int.from_bytes(data, "big"))
        case "inet_proto" | "verdict":
            names = _PROTOCOLS if type_ == "inet_proto" else _VERDICTS
            code = int.from_bytes(data, "big")
            return {number: name for name, number in names.items()}.get(code, str(code))
        case _:
            return data.hex()
