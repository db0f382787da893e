"""Turns the bytes of a tar (ustar, PAX, GNU) into entries and their data, once, forwards, in bounded memory.

Feeds the layers of images (onepass.py, finaltree.py) and what reads backups. Knows no file system:
names are bytes, made canonical and checked (nothing leaves the archive), links are text. Never trusts a number that it has
not bounded. Sources: POSIX pax; "Basic Tar Format" of GNU tar.
"""

import hashlib
import struct
import time
from collections.abc import Iterable, Iterator

from reconciler.engine import sparse
from reconciler.engine.tarentry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    HOLES_RATIO,
    LIMITS,
    SYMLINK,
    Entry,
    Limits,
    printable,
)
from reconciler.model.errors import ContentError

_SIZE = 512
_ZEROS = bytes(_SIZE)
_PADDING = memoryview(bytes(1 << 20))
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s8s4s")


class TarStream:
    """One reading of one tar. `entries` and `data` take turns: the data of an entry is read before the next entry."""

    def __init__(self, chunks: Iterable[bytes], *, what: str, limits: Limits = LIMITS) -> None:
        self.what = what
        """How errors call it."""
        self.limits = limits
        self.size = 0
        """Bytes read so far."""
        self.count = 0
        """Headers read so far, extended ones too."""
        self._deadline = time.monotonic() + limits.seconds
        self._sha = hashlib.sha256()
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._at = 0
        self._left = 0  # of the current entry's data, as stored
        self._pad = 0
        self._holes = 0
        self._remembered = 0
        self._map: sparse.Map | None = None

    def entries(self) -> Iterator[Entry]:
        """The entries in their order. Raises ContentError for what is no tar or more than the limits allow."""
        while True:
            self._finish_entry()
            block = self._take(_SIZE, at_end=b"")
            if not block:
                return
            if block == _ZEROS:
                # Compat: as Go's reader, a lone block of zeros is an error; a tar may end without any.
                if self._take(_SIZE, at_end=_ZEROS) != _ZEROS:
                    raise self.broken("two blocks of zeros at its end", "one, and more after it")
                return
            yield self._read_entry(block)

    def data(self) -> Iterator[memoryview]:
        """The data of the current entry, `entry.size` bytes in pieces of any size; holes come as zeros."""
        if self._map is None:
            return self._pieces()
        return self._expand(self._map)

    def drain(self) -> str:
        """Read to the end, whatever it is, and return the sha256 of all bytes as hex."""
        rest = self._chunk[self._at :]
        while True:
            if self.count == 0 and bytes(rest).strip(b"\0"):
                raise self.broken("a tar", "zeros, and then bytes that are none")
            if not self._next_chunk():
                return self._sha.hexdigest()
            rest = self._chunk

    def broken(self, expected: str, found: str, name: bytes | None = None) -> ContentError:
        """The error that says what is wrong with this tar, or with one entry of it."""
        entry = "" if name is None else f' entry "{printable(name)}"'
        return ContentError(self.what + entry, expected, found)

    # ------------------------------------------------------------ bytes

    def _next_chunk(self) -> bool:
        for chunk in self._chunks:
            if chunk:
                self._sha.update(chunk)
                self.size += len(chunk)
                if self.size > self.limits.size:
                    raise self.broken(f"at most {self.limits.size} bytes uncompressed", "more")
                if time.monotonic() > self._deadline:
                    raise self.broken(f"all of it within {self.limits.seconds} s", f"{self.size} bytes until then")
                self._chunk = memoryview(chunk)
                self._at = 0
                return True
        return False

    def _take(self, count: int, at_end: bytes | None = None) -> bytes:
        """Exactly `count` bytes; `at_end` instead where the stream ended before the first of them."""
        at = self._at
        if at + count <= len(self._chunk):
            self._at = at + count
            return bytes(self._chunk[at : at + count])
        parts = [self._chunk[at:]]
        missing = count - len(parts[0])
        while missing:
            if not self._next_chunk():
                if missing == count and at_end is not None:
                    self._at = len(self._chunk)
                    return at_end
                raise self.broken("a whole tar", f"its end after {self.size} bytes, in the middle of an entry")
            self._at = min(missing, len(self._chunk))
            parts.append(self._chunk[: self._at])
            missing -= self._at
        return b"".join(parts)

    def _pieces(self) -> Iterator[memoryview]:
        while self._left:
            if self._at == len(self._chunk) and not self._next_chunk():
                raise self.broken("a whole tar", f"its end after {self.size} bytes, in the middle of an entry")
            piece = self._chunk[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def _expand(self, holes: sparse.Map) -> Iterator[memoryview]:
        """The data of a sparse file with its holes filled: the pieces as stored, cut where the map says so."""
        at = 0
        for offset, length in holes.segments:
            yield from _zeros(offset - at)
            after, self._left = self._left - length, length
            yield from self._pieces()
            self._left = after
            at = offset + length
        yield from _zeros(holes.size - at)

    def _finish_entry(self) -> None:
        if self._left or self._pad:
            self._left += self._pad
            self._pad = 0
            for _ in self._pieces():
                pass

    # ------------------------------------------------------------ headers

    def _read_entry(self, block: bytes) -> Entry:
        """The entry of a header block, with what the extended headers before it say."""
        long: dict[bytes, bytes] = {}
        while True:
            self.count += 1
            if self.count > self.limits.entries:
                raise self.broken(f"at most {self.limits.entries} entries", "more")
            fields = _HEADER.unpack(block)
            self._check_sum(block, fields[6])
            flag = fields[7]
            if flag not in b"xgXLKVN":
                return self._make_entry(fields, long)
            text = self._read_extension(fields[4])
            if flag in b"xX":
                long.update(self._read_records(text))
            elif flag == b"L":
                long.setdefault(b"path", text.partition(b"\0")[0])
            elif flag == b"K":
                long.setdefault(b"linkpath", text.partition(b"\0")[0])
            # Compat: global headers (g) are ignored as Docker ignores them; V is a volume's label, N an old name list.
            self._finish_entry()
            block = self._take(_SIZE)

    def _check_sum(self, block: bytes, stored: bytes) -> None:
        try:
            expected = int(_text(stored), 8)
        except ValueError:
            expected = -1
        if sum(block) - sum(stored) + 256 != expected:
            signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + block[156:]) + 256
            if signed != expected:
                where = "a tar" if self.count == 1 else f"a header after {self.count - 1} entries"
                raise self.broken(where, "bytes that are none")

    def _read_extension(self, field: bytes) -> bytes:
        size = self._number(field, "size")
        if not 0 <= size <= self.limits.header:
            raise self.broken(f"an extended header of at most {self.limits.header} bytes", f"one of {size}")
        self._remember(size)
        text = self._take(size)
        self._take(-size % _SIZE)
        return text

    def _remember(self, size: int) -> None:
        self._remembered += size
        if self._remembered > self.limits.names:
            raise self.broken(f"names and attributes of at most {self.limits.names} bytes in all", "more")

    def _read_records(self, text: bytes) -> dict[bytes, bytes]:
        """PAX records, `LENGTH KEY=VALUE\\n`; the last of a key counts. Sparse maps keep all, joined by commas."""
        records: dict[bytes, bytes] = {}
        numbers: list[bytes] = []
        at = 0
        while at < len(text):
            space = text.find(b" ", at, at + 20)
            length = text[at:space]
            end = at + int(length) if space > at and length.isdigit() else -1
            key, equals, value = text[space + 1 : end - 1].partition(b"=")
            if not (space < end <= len(text) and text[end - 1 : end] == b"\n" and equals and key):
                raise self.broken("PAX records", "one whose length or form is wrong")
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                numbers.append(value)
            records[key] = value
            at = end
        if numbers:
            records[b"GNU.sparse.map"] = b",".join(numbers)
        return records

    def _make_entry(self, fields: tuple[bytes, ...], long: dict[bytes, bytes]) -> Entry:
        name, link, flag = _text(fields[0]), _text(fields[8]), fields[7]
        if fields[9] == b"ustar\0" and fields[15][0]:
            prefix = fields[15][:131] if fields[17] == b"tar\0" else fields[15]
            name = _text(prefix) + b"/" + name
        mode, uid, gid = self._number(fields[1], "mode"), self._number(fields[2], "uid"), self._number(fields[3], "gid")
        size, mtime = self._number(fields[4], "size"), self._number(fields[5], "mtime") * 1_000_000_000
        xattrs: dict[bytes, bytes] = {}
        if long:
            name, link = long.get(b"path") or name, long.get(b"linkpath") or link
            uid, gid = self._decimal(long, b"uid", uid), self._decimal(long, b"gid", gid)
            size = self._decimal(long, b"size", size)
            if b"mtime" in long:
                mtime = self._time(long[b"mtime"])
            xattrs = {key[13:]: value for key, value in long.items() if key.startswith(b"SCHILY.xattr.")}
        mtime = min(max(mtime, -(1 << 63)), (1 << 63) - 1)
        if flag in (b"\0", b"7"):
            flag = FILE
        if flag == FILE and name.endswith(b"/"):
            flag = DIRECTORY  # Compat: tars older than POSIX say so only by the slash.
        return self._check_entry(
            Entry(
                name=name, type=flag, mode=mode & 0o7777, uid=uid, gid=gid, mtime=mtime,
                size=size, link=link, xattrs=xattrs,
            ),
            fields,
            long,
        )  # fmt: skip

    def _check_entry(self, entry: Entry, fields: tuple[bytes, ...], long: dict[bytes, bytes]) -> Entry:
        flag = entry.type
        given = long.get(b"GNU.sparse.name") or entry.name
        entry.name = self.clean_name(given)
        self._remember(len(given) + len(entry.link))
        if not (0 <= entry.uid < 0xFFFFFFFF and 0 <= entry.gid < 0xFFFFFFFF):
            raise self.broken("an owner of 32 bits", f"{entry.uid}:{entry.gid}", entry.name)
        self._check_attributes(entry)
        self._map = None
        if flag == FILE or flag == b"S":
            self._begin_data(entry, fields, long)
            return entry
        # Compat: as Go's reader, sizes of links, folders and devices mean nothing: no data follows.
        entry.size = 0
        if flag == SYMLINK:
            self._check_link(entry)
        elif flag == HARD_LINK:
            entry.link = self.clean_name(entry.link)
        elif flag in (CHARACTER, BLOCK):
            entry.major, entry.minor = self._number(fields[13], "major"), self._number(fields[14], "minor")
            if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
                raise self.broken("a device's number", f"{entry.major}:{entry.minor}", entry.name)
        elif flag not in (DIRECTORY, FIFO):
            raise self.broken("a file, folder, link, device or fifo", f"the type {printable(flag)}", entry.name)
        return entry

    def _begin_data(self, entry: Entry, fields: tuple[bytes, ...], long: dict[bytes, bytes]) -> None:
        stored = entry.size
        if not 0 <= stored <= self.limits.size:
            raise self.broken(f"a file of at most {self.limits.size} bytes", f"{stored}", entry.name)
        self._left, self._pad = stored, -stored % _SIZE
        try:
            if entry.type == b"S":
                self._map = sparse.read_gnu(fields[16:], fields[15], self._take)
            elif b"GNU.sparse.map" in long or b"GNU.sparse.major" in long:
                self._map, used = sparse.read_pax(long, self._take, limit=min(stored, self.limits.header))
                self._left -= used
        except ValueError as error:
            raise self.broken("a sparse file's map", str(error), entry.name) from None
        entry.type = FILE
        if self._map is None:
            return
        if self._map.stored != self._left:
            raise self.broken(f"{self._left} bytes in a sparse file's map", f"{self._map.stored}", entry.name)
        entry.size = self._map.size
        self._holes += entry.size - self._left
        if self._holes + self.size > self.limits.size:
            raise self.broken(f"at most {self.limits.size} bytes with holes filled", "more", entry.name)
        if self._holes > max(self.limits.holes, self.size * HOLES_RATIO):
            most = f"holes of at most {self.limits.holes} bytes, or {HOLES_RATIO} times the tar"
            raise self.broken(most, f"{self._holes} bytes after {self.size}", entry.name)

    def _check_attributes(self, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if not 0 < len(name) <= self.limits.component or b"\0" in name or name.endswith(b"."):
                expected = f"an attribute's name of at most {self.limits.component} bytes"
                raise self.broken(expected, f'"{printable(name)}"', entry.name)
            if len(value) > self.limits.attribute:
                expected = f"at most {self.limits.attribute} bytes as the attribute {printable(name)}"
                raise self.broken(expected, f"{len(value)}", entry.name)

    def _check_link(self, entry: Entry) -> None:
        if not entry.link or b"\0" in entry.link:
            raise self.broken("a link's target", "none, or one with a NUL byte", entry.name)
        if len(entry.link) > self.limits.name:
            raise self.broken(f"a target of at most {self.limits.name} bytes", f"{len(entry.link)}", entry.name)

    def clean_name(self, name: bytes) -> bytes:
        """The canonical form of a name: relative, without `.`, `..`, doubled or trailing slashes; ROOT for the root."""
        path = (name[2:] if name.startswith(b"./") else name).strip(b"/")
        if not name or b"\0" in name:
            raise self.broken("an entry's name", "none, or one with a NUL byte", name)
        if len(path) > self.limits.component:
            self._check_length(path)
        if b"//" in path or b"/." in path or path.startswith(b"."):
            path = self._resolve_dots(path)
        if path.count(b"/") > self.limits.depth:
            raise self.broken(f"at most {self.limits.depth} folders above it", f"{path.count(b'/')}", path)
        return path

    def _check_length(self, path: bytes) -> None:
        if len(path) > self.limits.name:
            raise self.broken(f"a name of at most {self.limits.name} bytes", f"{len(path)}", path)
        longest = max(map(len, path.split(b"/")))
        if longest > self.limits.component:
            raise self.broken(f"at most {self.limits.component} bytes between slashes", f"{longest}", path)

    def _resolve_dots(self, path: bytes) -> bytes:
        parts: list[bytes] = []
        for part in path.split(b"/"):
            if part == b"..":
                if not parts:
                    raise self.broken("a path inside the layer", "one that leaves it", path)
                parts.pop()
            elif part not in (b"", b"."):
                parts.append(part)
        return b"/".join(parts)

    # ------------------------------------------------------------ numbers

    def _number(self, field: bytes, label: str) -> int:
        """A numeric field: octal digits, or base 256 where the first bit is set."""
        if field[0] & 0x80:
            value = int.from_bytes(field, "big")
            bits = 8 * len(field) - 1
            value &= (1 << bits) - 1
            return value - (1 << bits) if field[0] & 0x40 else value
        text = field.partition(b"\0")[0].strip()
        if not text:
            return 0
        if not text.isdigit():
            raise self.broken(f"octal digits as {label}", f'"{printable(field)}"')
        try:
            return int(text, 8)
        except ValueError:
            raise self.broken(f"octal digits as {label}", f'"{printable(field)}"') from None

    def _decimal(self, records: dict[bytes, bytes], key: bytes, default: int) -> int:
        text = records.get(key)
        if not text:
            return default
        if not text.isdigit() or len(text) > 20:
            raise self.broken(f"digits as {printable(key)}", f'"{printable(text)}"')
        return int(text)

    def _time(self, text: bytes) -> int:
        """Nanoseconds of a PAX time, `-12.5`."""
        seconds, _, fraction = text.lstrip(b"-").partition(b".")
        if not seconds.isdigit() or len(seconds) > 18 or not (fraction.isdigit() or not fraction):
            raise self.broken("a time", f'"{printable(text)}"')
        value = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or 0)
        return -value if text.startswith(b"-") else value


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _zeros(count: int) -> Iterator[memoryview]:
    while count > 0:
        yield _PADDING[:count]
        count -= len(_PADDING)
