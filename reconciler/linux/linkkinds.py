"""Which kinds of link this kernel can make, found by making one of each in a network namespace that goes at once.

Slow and rare (`doctor`), so it goes through pyroute2, whose import is 0.2 s; hot paths write netlink directly (netlink.py).
"""

import os
import threading
from collections.abc import Sequence

CLONE_NEWNET = 0x40000000


def probe_link_kinds(kinds: Sequence[str]) -> dict[str, bool]:
    """Whether each kind of link can be made. Needs CAP_SYS_ADMIN; raises OSError where no namespace can be had."""
    found: dict[str, bool] = {}
    problems: list[OSError] = []

    def work() -> None:
        try:
            _unshare_network()
            found.update(_probe(kinds))
        except OSError as error:
            problems.append(error)

    # Kernel: a namespace is a thread's; this one ends, and the namespace with it.
    thread = threading.Thread(target=work, name="probe-links")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found


def _unshare_network() -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare the network: {os.strerror(number)}")


def _probe(kinds: Sequence[str]) -> dict[str, bool]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    found = {}
    with IPRoute() as route:
        for place, kind in enumerate(kinds):
            extra = {"peer": f"probe{place}p"} if kind == "veth" else {}
            try:
                route.link("add", ifname=f"probe{place}", kind=kind, **extra)
            except NetlinkError:
                found[kind] = False
            else:
                found[kind] = True
    return found
