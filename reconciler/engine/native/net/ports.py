"""Finds out who holds host ports that are to be published, before anything changes.

One read each of the kernel's four tables of sockets; only when one of them fits are the processes searched for it.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec import Struct

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net.rules import decode_words, split_port, table_name
from reconciler.engine.native.net.template import SETS
from reconciler.engine.native.net.words import saying
from reconciler.linux import nft

_TABLES = (("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp"))
_WAITING = {"tcp": "0A", "udp": "07"}
"""State of a socket that anybody may reach: TCP_LISTEN; for udp not connected (include/net/tcp_states.h)."""
_ANYWHERE = ("0.0.0.0", "::")  # the host's every address


class Listener(Struct, frozen=True):
    """A socket that waits for others."""

    protocol: str
    address: str
    """IPv4; `::` for every address of both."""
    port: int
    inode: str


def read_port_holders(ports: Sequence[str], *, layout: Layout | None = None) -> dict[str, str]:
    """Which of `HOST_IP:PORT/PROTO` somebody holds, and who: `nginx (pid 4121)`, or `root abc23` for another root's.

    Looks at the sockets of this network namespace and, with `layout`, at what other roots publish; its own name service
    is not in the way. Ports that are free are not in the answer.
    """
    if not ports:
        return {}
    wanted = {port: split_port(port) for port in ports}
    numbers = {int(number) for _, number, _ in wanted.values()}
    with saying("ports", "read the listening sockets"):
        listeners = [listener for listener in read_listeners() if listener.port in numbers]
    hits = {port: hit for port, parts in wanted.items() if (hit := _find_hit(parts, listeners)) is not None}
    names = _find_processes({hit.inode for hit in hits.values()}, _own(layout))
    found = {port: names[hit.inode] for port, hit in hits.items() if names.get(hit.inode)}
    if layout is not None:
        for port, holder in _read_other_roots(layout, wanted).items():
            found.setdefault(port, holder)
    return found


def _find_hit(parts: tuple[str, str, str], listeners: Sequence[Listener]) -> Listener | None:
    host, port, protocol = parts
    for listener in listeners:
        if listener.protocol != protocol or listener.port != int(port):
            continue
        if host == listener.address or host in _ANYWHERE or listener.address in _ANYWHERE:
            return listener
    return None


def read_listeners(only: str = "") -> Iterator[Listener]:
    """Every socket of this network namespace that waits: listening TCP, unconnected UDP; of one protocol, or both."""
    for table, protocol in _TABLES:
        if only not in ("", protocol):
            continue
        try:
            with open(f"/proc/thread-self/net/{table}", "rb", buffering=1 << 16) as file:  # noqa: PTH123 - one read
                lines = file.read().decode().splitlines()[1:]
        except FileNotFoundError:  # Kernel: without IPv6 two of them are missing.
            continue
        for line in lines:
            fields = line.split(None, 10)
            if fields[3] == _WAITING[protocol]:
                address, _, port = fields[1].partition(":")
                yield Listener(protocol, _decode_address(address), int(port, 16), fields[9])


def _decode_address(text: str) -> str:
    # Kernel: 32-bit words in the machine's order, printed as hex.
    words = [struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8)]
    if len(words) == 1:
        return socket.inet_ntoa(words[0])
    address = b"".join(words)
    if address[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntoa(address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _own(layout: Layout | None) -> str:
    return str(layout.names) if layout is not None else ""


def _find_processes(inodes: set[str], own: str) -> dict[str, str]:
    """Names of the processes that hold sockets, by inode; empty for our own name service."""
    if not inodes:
        return {}
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - names only
        with suppress(OSError):  # Race: processes end while we look.
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{number}"))  # noqa: PTH115
                    if inode is not None and inode not in found:
                        found[inode] = _name_process(pid, own)
        if len(found) == len(wanted):
            break
    return {inode: found.get(inode, "a process of another namespace") for inode in inodes}


def _name_process(pid: str, own: str) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - thousands of these
        arguments = file.read().split(b"\0")
    if own and own.encode() in arguments:
        return ""
    with open(f"/proc/{pid}/comm") as file:  # noqa: PTH123
        return f"{file.read().strip()} (pid {pid})"


def _read_other_roots(layout: Layout, wanted: dict[str, tuple[str, str, str]]) -> dict[str, str]:
    own = table_name(layout.root_id)
    prefix = table_name("")
    found: dict[str, str] = {}
    with saying("ports", "read what other roots publish"):
        others = [name for name in nft.list_tables("inet") if name.startswith(prefix) and name != own]
        for table in others:
            published = list(_read_published(table))
            for port, (host, number, protocol) in wanted.items():
                for their_host, their_protocol, their_number in published:
                    same = (their_protocol, their_number) == (protocol, number)
                    if same and (host == their_host or host in _ANYWHERE or not their_host):
                        found[port] = f"root {table.removeprefix(prefix)}"
    return found


def _read_published(table: str) -> Iterator[tuple[str, str, str]]:
    for name in ("published", "published_everywhere"):
        for key in nft.read_elements("inet", table, name):
            words = decode_words(SETS["inet", name].key, key).split(" . ")
            host, protocol, number = words if len(words) == 3 else ["", *words]
            yield host, protocol, number
