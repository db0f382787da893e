"""Turns what OCI layers say of removal into what overlayfs reads, and drops overlay's own marks that a layer brings.

Source: OCI image-spec 1.1, layer.md, "Whiteouts"; kernel, Documentation/filesystems/overlayfs.rst. Pure.
"""

from reconciler.engine.tarentry import CHARACTER, ROOT, Entry

_PREFIX = b".wh."
_OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."

OPAQUE_XATTR = (b"trusted.overlay.opaque", b"y")
"""Set on a folder, it hides what lower layers have in it."""


class Whiteout:
    """What an entry's name says, if it begins with `.wh.`."""

    __slots__ = ("opaque", "path")

    def __init__(self, path: bytes, *, opaque: bool) -> None:
        self.path = path
        """What it hides: a path of lower layers, or for an opaque one the folder whose content it hides."""
        self.opaque = opaque


def is_ordinary(path: bytes) -> bool:
    """Whether no component of a canonical path begins as whiteouts do."""
    return _PREFIX not in path or (not path.startswith(_PREFIX) and b"/" + _PREFIX not in path)


def read_whiteout(path: bytes) -> Whiteout | None:
    """What a path that is not ordinary says: None for AUFS's own records, which mean nothing to us.

    Raises ValueError where it says nothing: `.wh.` without a name, `.wh..`, `.wh...`, or in a folder's name.
    """
    folder, _, base = path.rpartition(b"/")
    if any(part.startswith(_META) for part in folder.split(b"/")):
        return None
    if not is_ordinary(folder):
        raise ValueError("a folder whose name begins as whiteouts do")
    if base == _OPAQUE:
        return Whiteout(folder, opaque=True)
    if base.startswith(_META):
        return None
    name = base[len(_PREFIX) :]
    if name in (b"", b".", b".."):
        raise ValueError("a whiteout of no name")
    return Whiteout(folder + b"/" + name if folder else name, opaque=False)


def is_foreign_mark(entry: Entry) -> bool:
    """Whether an entry is what overlayfs takes for a whiteout: only ours may be (CVE-2023-0386)."""
    return entry.type == CHARACTER and entry.major == 0 and entry.minor == 0


def keep_xattrs(xattrs: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The attributes that an image may bring: file capabilities, and `user.` without overlay's own.

    `trusted.*` would be marks of overlayfs, `security.ima`, `.evm`, `.selinux` speak of another machine.
    """
    return {
        name: value
        for name, value in xattrs.items()
        if name == b"security.capability" or (name.startswith(b"user.") and not name.startswith(b"user.overlay."))
    }


def whiteout_entry(path: bytes) -> Entry:
    """The device 0:0 by which overlayfs hides `path`."""
    return Entry(name=path, type=CHARACTER, mode=0)


def make_opaque(folder: Entry) -> None:
    """Let a folder hide what lower layers have in it. The root entry must not be: overlayfs does not look there."""
    assert folder.name != ROOT
    name, value = OPAQUE_XATTR
    folder.xattrs = {**folder.xattrs, name: value}
