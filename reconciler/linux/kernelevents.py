"""Says that something of the network changed: links, addresses, routes, firewall rules. Not what: whoever hears it looks.

netlink(7) multicast groups of rtnetlink and nf_tables, of the network namespace of the thread that opens them.
"""

import socket
from contextlib import suppress

_ROUTE, _NETFILTER = 0, 12
_LINK, _ADDRESS, _ROUTES = 1, 5, 7
_NFTABLES = 7
_ADD_MEMBERSHIP = 1
_SOL_NETLINK = 270


def open_network_events() -> list[socket.socket]:
    """Sockets that become readable with each change; the caller closes them. Raises OSError."""
    opened = [_open(_ROUTE, (_LINK, _ADDRESS, _ROUTES))]
    with suppress(OSError):  # Kernel: without nf_tables there are no rules that could change.
        opened.append(_open(_NETFILTER, (_NFTABLES,)))
    return opened


def drain(events: socket.socket) -> None:
    """Read all that waits; an overrun is only one change more."""
    while True:
        try:
            events.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS
            continue


def _open(family: int, groups: tuple[int, ...]) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, family)
    try:
        made.bind((0, 0))
        for group in groups:
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except OSError:
        made.close()
        raise
    return made
