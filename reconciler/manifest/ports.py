"""Published ports as people write them -> host address, port and protocol by container port, ranges unrolled.

A step of `desire.py`; `conflicts.py` compares the claims of all containers.
"""

from typing import Any

from reconciler.manifest.addresses import parse_ipv4
from reconciler.manifest.draft import Draft, PortClaim
from reconciler.manifest.faults import Path, fitting_entries, shorten

ANY = "0.0.0.0"
_FORM = "[HOST_IP:]HOST[-RANGE]:CONTAINER[-RANGE][/udp] such as 127.0.0.1:8080:80"
MAX_PORTS = 131_070
"""Of a manifest: every port there is, over TCP and UDP."""
_PROTOCOLS = ("tcp", "udp")


class _Refused(ValueError):
    """What is wrong with one entry, and a hint."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


def read_ports(draft: Draft, written: Any, container: str) -> dict[str, int]:
    """`HOST_IP:HOST_PORT/PROTO` to the container's port, sorted by what it is written as."""
    path: Path = ("containers", container, "ports")
    out: dict[str, int] = {}
    entries = (written or {}).items() if isinstance(written, dict) else fitting_entries(written)
    for place, entry in entries:
        text = f"{entry}" if not isinstance(written, dict) else _text_of_pair(f"{place}", entry)
        try:
            host, host_ports, ports, protocol = _parse(text)
        except _Refused as fault:
            draft.blame((*path, place), fault.text, fault.hint)
            continue
        if len(draft.ports) + len(ports) > MAX_PORTS:
            draft.blame((*path, place), f"more than {MAX_PORTS:,} host ports in one manifest")
            return {}
        for port, inside in zip(host_ports, ports, strict=True):
            draft.ports.append(PortClaim(host, port, protocol, container, (*path, place)))
            out[f"{host}:{port}/{protocol}"] = inside
    return dict(sorted(out.items()))


def _text_of_pair(outside: str, inside: Any) -> str:
    """A map's entry as a list would have it: `{"8080/udp": 80}` is `8080:80/udp`."""
    host, slash, protocol = outside.partition("/")
    return f"{host}:{inside}{slash}{protocol}"


def _parse(text: str) -> tuple[str, range, range, str]:
    """Host address, host ports, as many ports of the container, and protocol of one entry."""
    body, slash, protocol = text.partition("/")
    if slash and protocol.lower() not in _PROTOCOLS:
        raise _Refused(f'found the protocol "{shorten(protocol)}"; expected tcp or udp')
    if body.startswith("[") or body.count(":") > 2:
        if body.startswith("[::1]"):
            raise _Refused("publishing on [::1] is not possible", "publish on 127.0.0.1")
        raise _Refused("publishing on an IPv6 address is not built yet", "publish on an IPv4 address")
    parts = body.split(":")
    if len(parts) == 1:
        way = f"write {text}:{text}" if body.isascii() and body.isdigit() else f"the form is {_FORM}"
        raise _Refused(f'found "{shorten(text)}", without a port of the host', way)
    host, outside, inside = parts if len(parts) == 3 else (ANY, *parts)
    if parse_ipv4(host) is None:
        raise _Refused(f'found the host address "{shorten(host)}"; expected an IPv4 address', f"the form is {_FORM}")
    host_ports, ports = _port_range(outside, "host"), _port_range(inside, "container")
    if len(host_ports) != len(ports):
        raise _Refused(
            f"{len(host_ports)} ports of the host for {len(ports)} of the container", "make both ranges equally long"
        )
    return host, host_ports, ports, protocol.lower() or "tcp"


def _port_range(text: str, whose: str) -> range:
    first, dash, last = text.partition("-")
    numbers = [int(part) if part.isascii() and part.isdigit() and len(part) <= 5 else 0 for part in (first, last or first)]
    if not all(1 <= number <= 65535 for number in numbers) or (dash and not last):
        raise _Refused(f'found the {whose} port "{shorten(text)}"; expected 1 to 65535, or a range', f"the form is {_FORM}")
    if numbers[0] > numbers[1]:
        raise _Refused(f"found the range {shorten(text)}, which ends before it begins")
    return range(numbers[0], numbers[1] + 1)
