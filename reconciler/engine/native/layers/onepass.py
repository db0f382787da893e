"""Turns the entries of a layer, as they come, into those of an image that is made in the same breath.

Optimistic: it remembers only which names there were. A layer whose later entries change what earlier ones said (a name
twice, a hard link to what comes later, a link as somebody's folder, a whiteout beside an entry of its name) raises
Contradiction, and finaltree.py looks at the whole of it first. Feeds layer.py; never touches a file.
"""

from collections.abc import Iterator

from reconciler.engine.native.layers import whiteouts
from reconciler.engine.tarentry import DIRECTORY, HARD_LINK, ROOT, Entry
from reconciler.engine.tarstream import TarStream

_WHITEOUT = b"w"


class Contradiction(Exception):
    """This layer can't be written in one pass."""


class OnePass:
    """One optimistic pass. `root` and `opaque_root` are filled once `entries` has ended."""

    def __init__(self, stream: TarStream) -> None:
        self.root: Entry | None = None
        """The layer's own root entry, if it has one: its mode, owner and attributes."""
        self.opaque_root = False
        """Whether the layer hides everything below it."""
        self._stream = stream
        self._kinds: dict[bytes, bytes] = {ROOT: DIRECTORY}
        self._held: Entry | None = None

    def entries(self) -> Iterator[Entry]:
        """What to write, in order: every folder before what lies in it. The data of a file is the stream's."""
        for entry in self._stream.entries():
            if whiteouts.is_ordinary(entry.name):
                if not whiteouts.is_foreign_mark(entry):
                    yield from self._take(entry)
            else:
                yield from self._take_whiteout(entry)
        yield from self._release()

    def _take(self, entry: Entry) -> Iterator[Entry]:
        path = entry.name
        if entry.xattrs:
            entry.xattrs = whiteouts.keep_xattrs(entry.xattrs)
        if path == ROOT:
            self.root = self._check_root(entry)
            return
        if path in self._kinds:
            raise Contradiction
        if self._held is not None:
            yield from self._release()
        folder = path[: max(path.rfind(b"/"), 0)]
        if self._kinds.get(folder) != DIRECTORY:
            yield from self._make_folders(folder)
        if entry.type == HARD_LINK and self._kinds.get(entry.link, DIRECTORY) in (DIRECTORY, _WHITEOUT):
            raise Contradiction
        self._kinds[path] = entry.type
        if entry.type == DIRECTORY:
            self._held = entry  # Order: an opaque mark for it may be the next entry.
        else:
            yield entry

    def _check_root(self, entry: Entry) -> Entry:
        if entry.type != DIRECTORY:
            raise self._stream.broken("a folder as the layer's root", "something else", entry.name)
        return entry

    def _release(self) -> Iterator[Entry]:
        held, self._held = self._held, None
        if held is not None:
            yield held

    def _make_folders(self, folder: bytes) -> Iterator[Entry]:
        """Folders that the layer does not name, from the outermost in: 0755, 0:0."""
        missing = []
        while (kind := self._kinds.get(folder)) is None:
            missing.append(folder)
            folder = folder[: max(folder.rfind(b"/"), 0)]
        if kind != DIRECTORY:
            raise Contradiction
        for path in reversed(missing):
            self._kinds[path] = DIRECTORY
            yield Entry(name=path, type=DIRECTORY)

    def _take_whiteout(self, entry: Entry) -> Iterator[Entry]:
        try:
            mark = whiteouts.read_whiteout(entry.name)
        except ValueError as error:
            raise self._stream.broken("a name", str(error), entry.name) from None
        if mark is None:
            return
        if mark.opaque:
            yield from self._mark_opaque(mark.path)
            return
        if mark.path in self._kinds:
            raise Contradiction
        yield from self._release()
        yield from self._make_folders(mark.path[: max(mark.path.rfind(b"/"), 0)])
        self._kinds[mark.path] = _WHITEOUT
        yield whiteouts.whiteout_entry(mark.path)

    def _mark_opaque(self, folder: bytes) -> Iterator[Entry]:
        if folder == ROOT:
            self.opaque_root = True
            return
        if self._held is None or self._held.name != folder:
            if folder in self._kinds:
                raise Contradiction
            yield from self._release()
            yield from self._make_folders(folder[: max(folder.rfind(b"/"), 0)])
            self._kinds[folder] = DIRECTORY
            self._held = Entry(name=folder, type=DIRECTORY)
        whiteouts.make_opaque(self._held)
