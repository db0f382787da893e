"""Writes to systemd's journal by its own protocol, with fields: systemd.io/JOURNAL_NATIVE_PROTOCOL, without its library."""

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

ADDRESS = "/run/systemd/journal/socket"
MOST = 32 * 1024
"""Bytes of one field: what is longer would need a file of its own."""


def is_journal(number: int) -> bool:
    """Whether a descriptor leads to the journal: systemd says by JOURNAL_STREAM which one it opened (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    with suppress(OSError):
        found = os.fstat(number)
        return (device, inode) == (str(found.st_dev), str(found.st_ino))
    return False


class Journal:
    """A socket to it."""

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def write(self, fields: Mapping[str, str]) -> bool:
        """One entry; names are A-Z, 0-9 and _. False where it was not taken."""
        try:
            self._socket.sendto(b"".join(_encode(name, value) for name, value in fields.items() if value), self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Write no more."""
        self._socket.close()


def _encode(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")[:MOST]
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
