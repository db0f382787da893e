"""Turns entries back into a tar of the one plain form that makers of file system images read. Pure.

Only what sqfstar and mkfs.erofs both know: ustar headers, and PAX records where a name or a number does not fit.
"""

from reconciler.engine.tarentry import CHARACTER, DIRECTORY, Entry

_SIZE = 512


def render_header(entry: Entry, *, nanoseconds: bool = False) -> bytes:
    """The header blocks of an entry. With `nanoseconds` its time is whole; else seconds, within 32 bits."""
    seconds, rest = divmod(entry.mtime, 1_000_000_000)
    seconds = min(max(seconds, 0), 0xFFFFFFFF)
    name = entry.name + b"/" if entry.type == DIRECTORY else entry.name
    link = entry.link
    records = [b"SCHILY.xattr." + key + b"=" + value for key, value in entry.xattrs.items()]
    if len(name) > 100:
        records.append(b"path=" + name)
        name = name[:99]
    if len(link) > 100:
        records.append(b"linkpath=" + link)
        link = link[:100]
    uid = _fit(entry.uid, b"uid", 0o7777777, records)
    gid = _fit(entry.gid, b"gid", 0o7777777, records)
    size = _fit(entry.size, b"size", 0o77777777777, records)
    if nanoseconds and rest:
        records.append(b"mtime=%d.%09d" % (seconds, rest))
    head = _block(name, entry.type, entry.mode, uid, gid, size, seconds, link, entry.major, entry.minor)
    if not records:
        return head
    text = b"".join(map(_record, records))
    extension = _block(b"pax", b"x", 0o644, 0, 0, len(text), 0, b"", 0, 0)
    return extension + text + bytes(-len(text) % _SIZE) + head


def _fit(value: int, key: bytes, most: int, records: list[bytes]) -> int:
    if value <= most:
        return value
    records.append(b"%b=%d" % (key, value))
    return 0


def _record(text: bytes) -> bytes:
    """One PAX record: its length counts its own digits."""
    length = len(text) + 3
    while len(b"%d %b\n" % (length, text)) != length:
        length = len(b"%d %b\n" % (length, text))
    return b"%d %b\n" % (length, text)


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, major: int, minor: int
) -> bytes:
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    device = b"%07o\0%07o\0" % (major, minor) if kind in (CHARACTER, b"4") else bytes(16)
    tail = b"%b%bustar\00000" % (kind, link.ljust(100, b"\0")) + bytes(64) + device
    total = sum(head) + sum(tail) + 256
    return b"%b%06o\0 %b" % (head, total, tail) + bytes(167)
