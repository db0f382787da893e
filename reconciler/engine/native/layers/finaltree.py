"""Turns all entries of a layer into the tree that is left at its end, and that into entries without contradiction.

For layers that onepass.py can't write: tar's semantics are sequential (the last of a name wins, a hard link keeps what it
linked, a link may be somebody's folder), an image's are not. Two more readings: one to learn the tree, one for the data.
Feeds layer.py; never touches a file. Links are resolved inside the layer, as a process chrooted into it would.
"""

from collections.abc import Iterator

from reconciler.engine.native.layers import whiteouts
from reconciler.engine.tarentry import DIRECTORY, FILE, HARD_LINK, ROOT, SYMLINK, Entry
from reconciler.engine.tarstream import TarStream

_LINKS = 40
"""Links followed for one name: the kernel's own limit."""


class _Leaf:
    """Anything but a folder: one inode, which several names may have."""

    __slots__ = ("entry", "number", "paths")

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry = entry
        self.number = number
        self.paths: list[bytes] = []


class _Folder:
    __slots__ = ("children", "entry", "opaque", "parent", "removed")

    def __init__(self, entry: Entry, parent: "_Folder | None") -> None:
        self.entry = entry
        self.parent = parent
        self.children: dict[bytes, _Node] = {}
        self.removed: set[bytes] = set()
        self.opaque = False


_Node = _Leaf | _Folder


class FinalTree:
    """The tree of a layer. `learn` reads it once; `entries` then writes it, along another reading of the same bytes."""

    def __init__(self) -> None:
        self.root: Entry | None = None
        self._top = _Folder(Entry(name=ROOT, type=DIRECTORY), None)
        self._later: list[tuple[_Folder, bytes, Entry]] = []
        self._files: dict[int, _Leaf] = {}

    @property
    def opaque_root(self) -> bool:
        """Whether the layer hides everything below it."""
        return self._top.opaque

    # ------------------------------------------------------------ learning

    def learn(self, stream: TarStream) -> None:
        """Apply every entry in turn."""
        for number, entry in enumerate(stream.entries()):
            if not whiteouts.is_ordinary(entry.name):
                self._apply_whiteout(entry, stream)
            elif not whiteouts.is_foreign_mark(entry):
                entry.xattrs = whiteouts.keep_xattrs(entry.xattrs)
                self._apply(entry, number, stream)
        for folder, base, entry in self._later:
            self._link(folder, base, entry, stream)

    def _apply(self, entry: Entry, number: int, stream: TarStream) -> None:
        if entry.name == ROOT:
            if entry.type != DIRECTORY:
                raise stream.broken("a folder as the layer's root", "something else", entry.name)
            self.root = entry
            return
        folder, base = self._find_folder(entry.name, entry.name, stream)
        old = folder.children.get(base)
        if entry.type == DIRECTORY:
            if isinstance(old, _Folder):
                old.entry = entry
            else:
                folder.children[base] = _Folder(entry, folder)
        elif entry.type != HARD_LINK:
            folder.children[base] = _Leaf(entry, number)
        elif (target := self._look_up(entry.link, stream)) is None:
            self._later.append((folder, base, entry))
        else:
            self._put_link(folder, base, target, entry, stream)

    def _link(self, folder: _Folder, base: bytes, entry: Entry, stream: TarStream) -> None:
        """A hard link to what came after it."""
        target = self._look_up(entry.link, stream)
        if target is None:
            raise stream.broken(
                "a hard link to something in this layer", f'"{entry.link.decode(errors="replace")}"', entry.name
            )
        if base not in folder.children:
            self._put_link(folder, base, target, entry, stream)

    def _put_link(self, folder: _Folder, base: bytes, target: _Node, entry: Entry, stream: TarStream) -> None:
        if isinstance(target, _Folder):
            raise stream.broken("a hard link to a file", "one to a folder", entry.name)
        folder.children[base] = target

    def _apply_whiteout(self, entry: Entry, stream: TarStream) -> None:
        try:
            mark = whiteouts.read_whiteout(entry.name)
        except ValueError as error:
            raise stream.broken("a name", str(error), entry.name) from None
        if mark is None:
            return
        if mark.opaque:
            folder, _ = self._find_folder(mark.path + b"/x" if mark.path else b"x", entry.name, stream)
            folder.opaque = True
        else:
            folder, base = self._find_folder(mark.path, entry.name, stream)
            folder.removed.add(base)

    def _look_up(self, path: bytes, stream: TarStream) -> _Node | None:
        folder, base = self._find_folder(path, path, stream, make=False)
        return folder.children.get(base)

    def _find_folder(self, path: bytes, named: bytes, stream: TarStream, *, make: bool = True) -> tuple[_Folder, bytes]:
        """The folder that `path` lies in, links on the way resolved, and its last component."""
        *parts, base = path.split(b"/")
        here, left = self._top, _LINKS
        parts.reverse()
        while parts:
            part = parts.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                here = here.parent or here
                continue
            child = here.children.get(part)
            if child is None:
                child = _Folder(Entry(name=part, type=DIRECTORY), here)
                if make:
                    here.children[part] = child
            if isinstance(child, _Folder):
                here = child
            elif child.entry.type == SYMLINK and left:
                left -= 1
                target = child.entry.link
                here = self._top if target.startswith(b"/") else here
                parts += reversed(target.split(b"/"))
            else:
                raise stream.broken("a folder above it", "something else, or too many links", named)
        return here, base

    # ------------------------------------------------------------ writing

    def entries(self, stream: TarStream) -> Iterator[Entry]:
        """What to write, in order. `stream` is another reading of the same bytes; the data of a file is its."""
        yield from self._without_data(stream)
        for number, entry in enumerate(stream.entries()):
            leaf = self._files.get(number)
            if leaf is None:
                continue
            entry.name, entry.xattrs = leaf.paths[0], leaf.entry.xattrs
            yield entry
            for path in leaf.paths[1:]:
                yield Entry(name=path, type=HARD_LINK, link=leaf.paths[0])

    def _without_data(self, stream: TarStream) -> Iterator[Entry]:
        """Folders, each before what lies in it, and what has no data; files are noted for their turn."""
        pending = [(self._top, ROOT)]
        while pending:
            folder, path = pending.pop()
            if path:
                yield self._write_folder(folder, path, stream)
            prefix = path + b"/" if path else b""
            for base, child in folder.children.items():
                if isinstance(child, _Folder):
                    child.opaque = child.opaque or base in folder.removed
                    pending.append((child, prefix + base))
                else:
                    yield from self._write_leaf(child, prefix + base)
            for base in sorted(folder.removed - folder.children.keys()):
                yield whiteouts.whiteout_entry(prefix + base)

    def _write_folder(self, folder: _Folder, path: bytes, stream: TarStream) -> Entry:
        stream.clean_name(path)  # Links may have made it longer or deeper than it was.
        entry = folder.entry
        entry.name = path
        if folder.opaque:
            whiteouts.make_opaque(entry)
        return entry

    def _write_leaf(self, leaf: _Leaf, path: bytes) -> Iterator[Entry]:
        leaf.paths.append(path)
        if leaf.entry.type == FILE:
            self._files[leaf.number] = leaf
        elif len(leaf.paths) == 1:
            leaf.entry.name = path
            yield leaf.entry
        else:
            yield Entry(name=path, type=HARD_LINK, link=leaf.paths[0])
