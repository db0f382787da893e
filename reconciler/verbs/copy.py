"""`cp`, the container's side: what is at a path, a tar of it, a tar into a folder. Each copy is recorded.

`copying.py` has this machine's side. No path here is another than the container's own.
"""

from collections.abc import Callable
from typing import IO

from reconciler.converge.view import made_of
from reconciler.engine.protocol import FileSeen
from reconciler.model.errors import Failed
from reconciler.model.events import Emit, Note
from reconciler.model.key import Key
from reconciler.model.observation import Phase
from reconciler.model.record import Made
from reconciler.verbs.names import find_containers, find_one
from reconciler.verbs.record import recorded
from reconciler.verbs.root import Root

_ROOT = (0, 0)


def look(root: Root, name: str, path: str, *, follow: bool) -> tuple[Key, FileSeen | None]:
    """Which container a name means, and what is at its path."""
    made = _find(root, name)
    return made.key, root.engine.inside.look(made, path, follow=follow)


def read(root: Root, name: str, path: str, to: IO[bytes], *, top: str, follow: bool, emit: Emit) -> None:
    """A tar of what is there, under the name `top`. Raises Failed."""
    made = _find(root, name)
    with recorded(root, "cp", made.key, words=f"out {path}", emit=emit):
        root.engine.inside.copy_out(made, path, to, top=top, follow=follow, skipped=_skipper(emit))


def write(root: Root, name: str, folder: str, stream: IO[bytes], *, owners: bool, emit: Emit) -> None:
    """A tar into a folder that is there; with `owners` as it has them, else all of it is root's. Raises Failed."""
    made = _find(root, name)
    with recorded(root, "cp", made.key, words=f"in {folder}", emit=emit):
        owner = None if owners else _ROOT
        root.engine.inside.copy_in(made, folder, stream, owner=owner, skipped=_skipper(emit))


class NearSide:
    """The container's side of a copy (`copying.Side`) in this process."""

    def __init__(self, root: Root, name: str, *, emit: Emit) -> None:
        self.name = name
        self._root = root
        self._emit = emit

    def look(self, path: str, *, follow: bool) -> FileSeen | None:
        """As the protocol says; from now on the container goes by its key."""
        self.name, seen = look(self._root, self.name, path, follow=follow)
        return seen

    def read(self, path: str, to: IO[bytes], *, top: str, follow: bool) -> None:
        """As the protocol says."""
        read(self._root, self.name, path, to, top=top, follow=follow, emit=self._emit)

    def write(self, folder: str, stream: IO[bytes], *, owners: bool) -> None:
        """As the protocol says."""
        write(self._root, self.name, folder, stream, owners=owners, emit=self._emit)


def _skipper(emit: Emit) -> Callable[[str], None]:
    """Who is told of what is no file, folder or link."""
    return lambda name: emit(Note(text=f"{name}: a device or a socket is not copied", level="warning"))


def _find(root: Root, name: str) -> Made:
    """The container of a name; of several indexes the first that runs."""
    with root.store.read() as tx:
        records = tx.records()
    found = find_containers(records, name)
    states = root.engine.containers.states([made_of(record) for record in found])
    record = find_one(records, name, {record.key: states[record.incarnation] for record in found})
    if states[record.incarnation].phase is Phase.MISSING:
        raise Failed(f"{record.key}: cp: it is not on the machine", hint=f"reconcile start {name}")
    return made_of(record)
