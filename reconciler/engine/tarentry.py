"""What tarstream.py makes of a tar: entries, and what a tar may have at most."""

from msgspec import Struct

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
"""What an entry is: tar's own type flags."""

ROOT = b""
"""The canonical name of the layer's root entry."""


class Limits(Struct, frozen=True, kw_only=True):
    """What a layer may have at most. Each is named in the error of a layer that has more."""

    entries: int = 1_000_000
    siblings: int = 65_536
    """Things in one folder: sqfstar takes time by their square."""
    depth: int = 1024
    """Folders above an entry."""
    name: int = 4095
    """Bytes of a whole name or a link's target: the kernel's PATH_MAX."""
    component: int = 255
    """Bytes between two slashes: NAME_MAX."""
    header: int = 1 << 20
    """Bytes of one PAX header, long name or sparse map."""
    names: int = 256 << 20
    """Bytes of all names, links and attributes together: they are what we must remember."""
    size: int = 32 << 30
    """Bytes of the whole layer, uncompressed, holes of sparse files included."""
    holes: int = 1 << 30
    """Bytes that holes of sparse files may add, where they are more than HOLES_RATIO times what the tar has."""
    attribute: int = 64 << 10
    """Bytes of one attribute's value: the kernel's XATTR_SIZE_MAX. Its name has at most 255."""
    seconds: int = 6 * 3600
    """How long all of it may take to come and to be read."""


HOLES_RATIO = 200
"""As of gzip (content/unpack.py): a hole costs nothing in a tar, and all of its zeros on a disk."""


LIMITS = Limits()


class Entry(Struct, kw_only=True):
    """One thing in a layer. `name` and a hard link's `link` are canonical: no leading slash, no `.`, no `..`."""

    name: bytes
    type: bytes
    mode: int = 0o755
    """Permission bits with setuid, setgid and sticky."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Nanoseconds since the epoch, within 64 bits: what lies beyond is the nearest that fits."""
    size: int = 0
    """Bytes of data that follow: files only."""
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: dict[bytes, bytes] = {}


def printable(name: bytes) -> str:
    """A name as people may see it: no control characters, at most 80 characters of it."""
    text = name[:400].decode(errors="backslashreplace")
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= 80 else text[:60] + "…" + text[-16:]
