"""Sets a network interface down and up by ioctl (netdevice(7)): for the exit command, which imports as little as it can."""

import fcntl
import socket
import struct

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_REQUEST = struct.Struct("16sh22x")


def reset(name: str) -> None:
    """Set an interface of this network namespace down and up: a bridge's port passes on again what it was told to keep.

    Raises OSError (ENODEV where it is not there).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        asked = fcntl.ioctl(channel, _SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
        flags = _REQUEST.unpack(asked)[1]
        fcntl.ioctl(channel, _SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags & ~_IFF_UP))
        fcntl.ioctl(channel, _SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags | _IFF_UP))
