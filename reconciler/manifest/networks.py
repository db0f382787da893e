"""Networks of a manifest -> specs, and how containers sit on them. A step of `desire.py`, before `conflicts.py`."""

from typing import Any

from reconciler.manifest.addresses import Subnet, parse_ipv4, parse_subnet, render_ipv4
from reconciler.manifest.borrowing import borrow, is_borrowed
from reconciler.manifest.draft import Draft, SubnetClaim
from reconciler.manifest.faults import Path, fitting_entries
from reconciler.manifest.pairs import read_labels
from reconciler.model.key import Kind, make_key, named_key
from reconciler.model.spec import Attachment, NetworkSpec

DEFAULT = "default"
"""The network of containers that name none."""
BUILT_IN = ("host", "none")
"""Networks that are named after their driver and need no declaration."""

_WIDEST, _NARROWEST = 8, 30
_RESERVED = (("0.0.0.0/8", "this host"), ("127.0.0.0/8", "loopback"), ("224.0.0.0/3", "multicast and reserved addresses"))


def draft_networks(draft: Draft) -> None:
    """Add the specs of all networks that are declared, and of those that containers join without a declaration."""
    for name, written in draft.section("networks").items():
        if is_borrowed(written):
            if name in BUILT_IN:
                draft.blame(("networks", name), f"the name {name} is that of the {name} network", "choose another name")
            borrow(draft, "networks", name, written)
            continue
        spec = _network_spec(draft, name, written or {})
        draft.specs[make_key(Kind.NETWORK, draft.name, name)] = spec
    for container in draft.section("containers").values():
        for _, name in fitting_entries(list(container.get("networks", (DEFAULT,)))):
            key = make_key(Kind.NETWORK, draft.name, name)
            if (name == DEFAULT or name in BUILT_IN) and ("networks", name) not in draft.borrowed:
                draft.specs.setdefault(key, NetworkSpec(driver="bridge" if name == DEFAULT else name))


def _network_spec(draft: Draft, name: str, written: dict[str, Any]) -> NetworkSpec:
    path: Path = ("networks", name)
    driver = written.get("driver", name if name in BUILT_IN else "bridge")
    if name in BUILT_IN and driver != name:
        draft.blame(path, f"the name {name} is that of the {name} network", "choose another name", at_key=True)
    if driver in BUILT_IN:
        for word in ("subnet", "gateway", "internal", "icc", "mtu"):
            if word in written:
                draft.blame((*path, word), f"a {driver} network has no {word}", "leave it out", at_key=True)
        return NetworkSpec(driver=driver, labels=read_labels(draft, written.get("labels"), (*path, "labels")))
    subnet = _read_subnet(draft, written.get("subnet", ""), (*path, "subnet"))
    if subnet:
        draft.subnets.append(SubnetClaim(subnet.first, subnet.last, str(subnet), name, (*path, "subnet")))
    return NetworkSpec(
        driver=driver,
        subnet=str(subnet) if subnet else "",
        gateway=_read_gateway(
            draft, written.get("gateway", ""), (*path, "gateway"), subnet=subnet, given="subnet" in written
        ),
        internal=written.get("internal", False),
        icc=written.get("icc", True),
        mtu=written.get("mtu", 0),
        labels=read_labels(draft, written.get("labels"), (*path, "labels")),
    )


def _read_subnet(draft: Draft, text: str, path: Path) -> Subnet | None:
    if not text:
        return None
    if ":" in text:
        draft.blame(path, "IPv6 subnets are not built yet")
        return None
    found = parse_subnet(text)
    if found is None:
        draft.blame(path, f'found "{text}"; expected a subnet such as 10.40.0.0/24')
        return None
    subnet, host_bits = found
    if host_bits:
        draft.blame(path, f"{text} has host bits set", f"did you mean {subnet}?")
        return None
    if not _WIDEST <= subnet.prefix <= _NARROWEST:
        draft.blame(path, f"found a prefix of {subnet.prefix} bits; expected {_WIDEST} to {_NARROWEST}")
        return None
    for reserved, what in _RESERVED:
        other = parse_subnet(reserved)
        if other and other[0].first <= subnet.last and subnet.first <= other[0].last:
            draft.blame(
                path, f"{text} is within {reserved}, {what}", "take one of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16"
            )
            return None
    return subnet


def _read_gateway(draft: Draft, text: str, path: Path, *, subnet: Subnet | None, given: bool) -> str:
    if not text:
        return ""
    if not given:
        draft.blame(path, "a gateway needs a subnet", "give `subnet` too, or leave both out", at_key=True)
    elif subnet:
        _check_inside(draft, text, path, subnet=subnet)
    return text


def _check_inside(draft: Draft, text: str, path: Path, *, subnet: Subnet) -> bool:
    """Whether an address is one of the subnet's hosts; a fault where it is not."""
    number = parse_ipv4(text)
    if number is None:
        draft.blame(path, f'found "{text}"; expected an IPv4 address')
    elif not subnet.first <= number <= subnet.last:
        draft.blame(path, f"{text} is outside {subnet}")
    elif number == subnet.first:
        draft.blame(path, f"{text} is the address of {subnet} itself")
    elif number == subnet.last:
        draft.blame(path, f"{text} is the broadcast address of {subnet}")
    else:
        return True
    return False


def read_attachments(draft: Draft, written: Any, container: str) -> dict[str, Attachment]:
    """How a container sits on its networks; `written` is a list of names or a map, None for the default network."""
    if not written:
        return {draft.meant("networks", DEFAULT): Attachment()}
    path: Path = ("containers", container, "networks")
    places: dict[str, tuple[Path, dict[str, Any]]] = {}
    for place, name in fitting_entries(list(written)):
        below = (*path, place) if isinstance(written, list) else (*path, name)
        if name in places:
            draft.blame(below, f"{name} is here twice")
        places[name] = (below, written[name] or {} if isinstance(written, dict) else {})
    out = {name: _attachment(draft, name, *place) for name, place in places.items()}
    alone = next((name for name in out if _driver(draft, name) in BUILT_IN), "")
    if alone and len(out) > 1:
        draft.blame(
            places[alone][0], f"a container on {alone} can't be on other networks too", "keep one of them", at_key=True
        )
    return _as_meant(draft, out, places)


def _as_meant(
    draft: Draft, attachments: dict[str, Attachment], places: dict[str, tuple[Path, dict[str, Any]]]
) -> dict[str, Attachment]:
    """The attachments by what specs call their networks, sorted."""
    out: dict[str, Attachment] = {}
    for name, attachment in attachments.items():
        meant = draft.meant("networks", name)
        if meant in out:
            at_key = not isinstance(places[name][0][-1], int)
            draft.blame(places[name][0], f"{name} is {meant}, which is here twice", "keep one of the two", at_key=at_key)
        out[meant] = attachment
    return dict(sorted(out.items()))


def _driver(draft: Draft, name: str) -> str:
    spec = draft.specs.get(named_key(Kind.NETWORK, draft.name, name))
    return spec.driver if isinstance(spec, NetworkSpec) else ""


def _attachment(draft: Draft, name: str, path: Path, written: dict[str, Any]) -> Attachment:
    spec = draft.specs.get(named_key(Kind.NETWORK, draft.name, name))
    at_key = not isinstance(path[-1], int)
    if ("networks", name) in draft.borrowed:
        return _borrowed_attachment(draft, path, written)
    if not isinstance(spec, NetworkSpec) and name in draft.names("networks"):
        return Attachment()
    if not isinstance(spec, NetworkSpec):
        known = [*draft.names("networks"), DEFAULT, *BUILT_IN]
        hint = draft.near(name, known) or f"declare it: networks: {{{name}: {{}}}}"
        draft.blame(path, f"no network named {name}", hint, at_key=at_key)
        return Attachment()
    if spec.driver in BUILT_IN:
        for word in written:
            draft.blame((*path, word), f"a {spec.driver} network has no {word}", "leave it out", at_key=True)
        return Attachment()
    address = written.get("ipv4", "")
    if address:
        _check_fixed(draft, address, (*path, "ipv4"), network=name, spec=spec)
    return Attachment(aliases=tuple(sorted({alias for _, alias in fitting_entries(written.get("aliases"))})), ipv4=address)


def _borrowed_attachment(draft: Draft, path: Path, written: dict[str, Any]) -> Attachment:
    """Whether an address is one of the subnet is for the plan to see, which knows the owner's."""
    address = written.get("ipv4", "")
    if address and parse_ipv4(address) is None:
        draft.blame((*path, "ipv4"), f'found "{address}"; expected an IPv4 address')
    return Attachment(aliases=tuple(sorted({alias for _, alias in fitting_entries(written.get("aliases"))})), ipv4=address)


def _check_fixed(draft: Draft, address: str, path: Path, *, network: str, spec: NetworkSpec) -> None:
    """A fixed address must be a free one of a subnet that the manifest gives."""
    if not spec.subnet:
        # A subnet that is at fault itself was blamed already.
        if "subnet" not in (draft.section("networks").get(network) or {}) and not _is_faulty(draft, network):
            hint = f"networks: {{{network}: {{subnet: 10.40.0.0/24}}}}"
            draft.blame(path, f"a fixed address needs a network with a subnet; {network} takes one of the pool", hint)
        return
    found = parse_subnet(spec.subnet)
    if not found or not _check_inside(draft, address, path, subnet=found[0]):
        return
    gateway = spec.gateway or render_ipv4(found[0].first + 1)
    if address == gateway:
        draft.blame(path, f"{address} is the gateway of {network}", "choose another address of the subnet")


def _is_faulty(draft: Draft, network: str) -> bool:
    return any(fault.path[:2] == ("networks", network) for fault in draft.faults)
