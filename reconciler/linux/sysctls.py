"""Reads and writes kernel parameters under /proc/sys/net, of the calling thread's network namespace. Raises OSError."""

import os

_NET = "/proc/sys/net/"


def read_sysctl(name: str) -> str:
    """The value of a parameter, `ipv4/ip_forward`. Raises ENOENT for what this kernel or link does not have."""
    number = os.open(_NET + name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(number, 4096).decode().strip()
    finally:
        os.close(number)


def write_sysctl(name: str, value: str) -> None:
    """Set a parameter."""
    number = os.open(_NET + name, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, value.encode())
    finally:
        os.close(number)
