"""Tells whoever started this process that it is ready, alive, or about to end: sd_notify(3), without systemd's library."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Send one message, such as `READY=1`; nothing happens where nobody asked for it, and nothing where nobody hears."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
        opened.connect("\0" + address[1:] if address.startswith("@") else address)
        opened.send(state.encode())


def read_watchdog() -> float:
    """Within how many seconds whoever started us wants to hear `WATCHDOG=1`; 0 where nobody does."""
    asked = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(asked) / 1e6 if asked.isdigit() and meant else 0.0
