"""Asks a resolver for one name (RFC 1035): how `dns.py` sees that what it wrote is what is answered."""

import secrets
import socket
import struct

_HEADER = struct.Struct(">HHHHHH")
_A, _IN, _RECURSE = 1, 1, 0x100


def ask_addresses(server: str, name: str, *, timeout: float) -> set[str]:
    """The IPv4 addresses that a resolver answers a name with, none when it knows no such name.

    Raises OSError: TimeoutError when nothing comes within `timeout` seconds, ECONNREFUSED when nobody listens.
    """
    serial = secrets.randbelow(1 << 16)
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    question = labels + b"\0" + struct.pack(">HH", _A, _IN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(timeout)
        channel.connect((server, 53))
        channel.send(_HEADER.pack(serial, _RECURSE, 1, 0, 0, 0) + question)
        answer = channel.recv(65535)
    return set(_parse_answers(answer, 12 + len(question)))


def _parse_answers(answer: bytes, start: int) -> list[str]:
    found: list[str] = []
    count = _HEADER.unpack_from(answer)[3] if len(answer) >= 12 else 0
    for _ in range(count):
        if start + 12 > len(answer):
            break
        # A compressed name is two bytes; our own resolver's answers have no other.
        kind, _, _, size = struct.unpack_from(">HHIH", answer, start + 2)
        data = answer[start + 12 : start + 12 + size]
        if kind == _A and len(data) == 4:
            found.append(socket.inet_ntoa(data))
        start += 12 + size
    return found
