"""Hears in which other network namespaces links, addresses or routes changed: proof that in all others none did.

One socket of this namespace gets what the kernel tells in every namespace that has an id here (netlink(7),
NETLINK_LISTEN_ALL_NSID, Linux 4.2), as that of a veth's other end has. The kernel tells before the call that changed
something returns, so that whoever asks `heard` and then looks misses nothing that was done before. Raises OSError only.
"""

import errno
import socket
import struct
from contextlib import suppress

_ROUTE = 0
_GROUPS = (1, 5, 7)
"""Links, IPv4 addresses, IPv4 routes (linux/rtnetlink.h)."""
_NEXTHOPS = 32
"""With an object of these its routes go, of which nothing is told. Linux 5.3."""
_SOL_NETLINK, _ADD_MEMBERSHIP, _ALL_NAMESPACES = 270, 1, 8
_NSID = struct.Struct("=i")


class Listener:
    """What happened since one asked last. Not shared between threads."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _ROUTE
        )
        try:
            self._socket.setsockopt(_SOL_NETLINK, _ALL_NAMESPACES, 1)
            self._socket.bind((0, 0))
            for group in _GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            with suppress(OSError):
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _NEXTHOPS)
        except OSError:
            self._socket.close()
            raise

    def heard(self) -> set[int] | None:
        """The ids, as this namespace counts, of those in which something changed; None where so much did that the kernel
        could not keep it."""
        found: set[int] = set()
        lost = False
        while True:
            try:
                _, beside, _, _ = self._socket.recvmsg(1, socket.CMSG_SPACE(_NSID.size))
            except BlockingIOError:
                return None if lost else found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            found.update(
                _NSID.unpack(data)[0] for level, kind, data in beside if (level, kind) == (_SOL_NETLINK, _ALL_NAMESPACES)
            )

    def close(self) -> None:
        """Hear nothing any more."""
        self._socket.close()
