"""`cp`: between a container and this machine, by Docker's rules for what becomes of a name.

Both ways are a tar stream through a pipe: one side packs, the other unpacks where it is confined. What comes out of a
container is unpacked beneath one folder without following any link, and loses its setuid bits unless the owners are kept.
"""

import os
import posixpath
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from reconciler.converge.view import made_of
from reconciler.engine.protocol import FileSeen
from reconciler.linux import tarball
from reconciler.model.errors import Failed
from reconciler.model.events import Emit, Note
from reconciler.model.observation import Phase
from reconciler.model.record import Made
from reconciler.verbs.names import find_containers, find_one
from reconciler.verbs.root import Root

_ROOT = (0, 0)


def copy_from(root: Root, name: str, path: str, to: str, *, archive: bool, follow: bool, emit: Emit) -> None:
    """CONTAINER:PATH to a local path. Raises Failed."""
    made, inside = _find(root, name), root.engine.inside
    seen = inside.look(made, path, follow=follow)
    if seen is None:
        raise Failed(f"{made.key}: cp: {path}: there is no such file")
    parent, top = choose_target(path, seen, to, _look_local(to), where="here")
    skipped = _skipper(emit)
    try:
        folder = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"cp: {parent}: {error.strerror}", hint="the folder that it goes into must be there") from error
    try:
        owner = None if archive else (os.geteuid(), os.getegid())
        _pipe(
            lambda out: inside.copy_out(made, path, out, top=top, follow=follow, skipped=skipped),
            lambda stream: _unpack_here(stream, folder, to, owner=owner, set_ids=archive, skipped=skipped),
        )
    finally:
        os.close(folder)


def copy_tar_from(root: Root, name: str, path: str, out: IO[bytes], *, follow: bool, emit: Emit) -> None:
    """CONTAINER:PATH as a tar to a stream."""
    made = _find(root, name)
    top = "" if _is_contents(path) else posixpath.basename(path.rstrip("/"))
    root.engine.inside.copy_out(made, path, out, top=top, follow=follow, skipped=_skipper(emit))


def copy_to(root: Root, source: str, name: str, path: str, *, archive: bool, follow: bool, emit: Emit) -> None:
    """A local path to CONTAINER:PATH. Raises Failed."""
    made, inside = _find(root, name), root.engine.inside
    seen = _look_local(source, follow=follow)
    if seen is None:
        raise Failed(f"cp: {source}: there is no such file here")
    there = inside.look(made, path, follow=True)
    parent, top = choose_target(source, seen, path, there, where=f"in {made.key}")
    skipped = _skipper(emit)
    try:
        start = os.open(source, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise Failed(f"cp: {source}: {error.strerror}") from error
    try:
        _pipe(
            lambda out: tarball.pack(start, top, out, skipped=skipped),
            lambda stream: inside.copy_in(made, parent or "/", stream, owner=None if archive else _ROOT, skipped=skipped),
        )
    finally:
        os.close(start)


def copy_tar_to(root: Root, stream: IO[bytes], name: str, path: str, *, emit: Emit) -> None:
    """A tar from a stream into the folder CONTAINER:PATH; owners as the tar has them."""
    made, inside = _find(root, name), root.engine.inside
    there = inside.look(made, path, follow=True)
    if there is None or not there.folder:
        raise Failed(f"{made.key}: cp: {path} is no folder; a tar is unpacked into one")
    inside.copy_in(made, path, stream, owner=None, skipped=_skipper(emit))


def choose_target(source: str, seen: FileSeen, target: str, there: FileSeen | None, *, where: str) -> tuple[str, str]:
    """The folder to unpack into and the name of the top in it ("" for a folder's contents), as `docker cp` has it. Pure."""
    name = posixpath.basename(source.rstrip("/"))
    if there is None:
        if target.endswith("/") and not seen.folder:
            raise Failed(f"cp: {target}: there is no such folder {where}", hint="make it first, or leave the last / out")
        clean = target.rstrip("/")
        return posixpath.dirname(clean), posixpath.basename(clean)
    if there.folder:
        return target, "" if seen.folder and (_is_contents(source) or name in ("", "..")) else name
    if seen.folder:
        raise Failed(f"cp: {target} is a file {where}, and {source} a folder")
    if target.endswith("/"):
        raise Failed(f"cp: {target} is no folder {where}")
    return posixpath.dirname(target), posixpath.basename(target)


def _is_contents(path: str) -> bool:
    """Whether a path ends in `/.`, which means what is in a folder."""
    return path == "." or path.endswith("/.")


def _look_local(path: str, *, follow: bool = True) -> FileSeen | None:
    place = Path(path)
    if not (place.exists() if follow else os.path.lexists(path)):
        return None
    return FileSeen(folder=place.is_dir() and (follow or not place.is_symlink()), link=place.is_symlink())


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


def _unpack_here(
    stream: IO[bytes], folder: int, to: str, *, owner: tuple[int, int] | None, set_ids: bool, skipped: Callable[[str], None]
) -> None:
    try:
        tarball.unpack(stream, tarball.Place(folder=folder), owner=owner, set_ids=set_ids, skipped=skipped)
    except (OSError, tarfile.TarError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise Failed(f"cp: {to}: {words}", hint="what was copied before that is there") from error


def _skipper(emit: Emit) -> Callable[[str], None]:
    return lambda name: emit(Note(text=f"{name}: a device or a socket is not copied", level="warning"))


def _pipe(pack: Callable[[IO[bytes]], None], unpack: Callable[[IO[bytes]], None]) -> None:
    """Run both ends of a pipe. The packer's error is the cause where both fail."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            with os.fdopen(write_end, "wb") as out:
                pack(out)
        except BrokenPipeError:
            return  # The other end says why.
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    thread = threading.Thread(target=run, name="cp")
    thread.start()
    try:
        with os.fdopen(read_end, "rb") as stream:
            unpack(stream)
    except Exception:
        thread.join()
        if failed:
            raise failed[0] from None
        raise
    thread.join()
    if failed:
        raise failed[0]
