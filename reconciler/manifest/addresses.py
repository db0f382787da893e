"""IPv4 addresses and subnets as text -> numbers and back. Feeds `networks.py`, `ports.py` and `conflicts.py`.

The standard library's ipaddress would cost its import on every apply; IPv6 is left to it.
"""

from msgspec import Struct

_TOP = 0xFFFF_FFFF


class Subnet(Struct, frozen=True):
    """An IPv4 subnet: its own address as a number, and the prefix's length."""

    first: int
    prefix: int

    @property
    def last(self) -> int:
        """Its broadcast address."""
        return self.first | _TOP >> self.prefix

    def __str__(self) -> str:
        return f"{render_ipv4(self.first)}/{self.prefix}"


def parse_ipv4(text: str) -> int | None:
    """An address as a number; None for what is none. Leading zeros are refused: some read them as octal."""
    parts = text.split(".")
    if len(parts) != 4:
        return None
    number = 0
    for part in parts:
        if not (part.isascii() and part.isdigit()) or len(part) > 3 or (part[0] == "0" and part != "0") or int(part) > 255:
            return None
        number = number << 8 | int(part)
    return number


def render_ipv4(number: int) -> str:
    """A number as an address."""
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def parse_subnet(text: str) -> tuple[Subnet, bool] | None:
    """A subnet, and whether the text had host bits set; None for what is no IPv4 subnet."""
    address, _, length = text.partition("/")
    number = parse_ipv4(address)
    if number is None or not (length.isascii() and length.isdigit()) or len(length) > 2 or int(length) > 32:
        return None
    prefix = int(length)
    first = number >> (32 - prefix) << (32 - prefix)
    return Subnet(first, prefix), first != number


def canonical_address(text: str) -> str | None:
    """An IPv4 or IPv6 address in its one form; None for what is neither."""
    if ":" not in text:
        return text if parse_ipv4(text) is not None else None
    import ipaddress

    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return None
