"""`cp`, this machine's side: between a container, wherever it is, and here, by Docker's rules for what becomes of a name.

Both ways are a tar stream through a pipe: one side packs, the other unpacks where it is confined. What comes out of a
container is unpacked beneath one folder without following any link, and loses its setuid bits unless the owners are kept.
"""

import os
import posixpath
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from reconciler.engine.protocol import FileSeen
from reconciler.linux import tarball
from reconciler.model.errors import Failed
from reconciler.model.events import Emit, Note


class Side(Protocol):
    """A container's side of a copy: its own paths alone. Raises ReconcileError."""

    name: str
    """What it is called in errors."""

    def look(self, path: str, *, follow: bool) -> FileSeen | None:
        """What is there. Called before the others."""

    def read(self, path: str, to: IO[bytes], *, top: str, follow: bool) -> None:
        """Write a tar of what is there to a stream, under the name `top`. May be called from a thread."""

    def write(self, folder: str, stream: IO[bytes], *, owners: bool) -> None:
        """Unpack a tar from a pipe of which nothing was read; with `owners` as it has them."""


def copy_from(side: Side, path: str, to: str, *, archive: bool, follow: bool, emit: Emit) -> None:
    """CONTAINER:PATH to a local path. Raises Failed."""
    seen = side.look(path, follow=follow)
    if seen is None:
        raise Failed(f"{side.name}: cp: {path}: there is no such file")
    parent, top = choose_target(path, seen, to, _look_local(to), where="here")
    try:
        folder = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Failed(f"cp: {parent}: {error.strerror}", hint="the folder that it goes into must be there") from error
    try:
        owner = None if archive else (os.geteuid(), os.getegid())
        _pipe(
            lambda out: side.read(path, out, top=top, follow=follow),
            lambda stream: _unpack_here(stream, folder, to, owner=owner, set_ids=archive, skipped=_skipper(emit)),
        )
    finally:
        os.close(folder)


def copy_tar_from(side: Side, path: str, out: IO[bytes], *, follow: bool) -> None:
    """CONTAINER:PATH as a tar to a stream."""
    if side.look(path, follow=follow) is None:
        raise Failed(f"{side.name}: cp: {path}: there is no such file")
    top = "" if _is_contents(path) else posixpath.basename(path.rstrip("/"))
    side.read(path, out, top=top, follow=follow)


def copy_to(side: Side, source: str, path: str, *, archive: bool, follow: bool, emit: Emit) -> None:
    """A local path to CONTAINER:PATH. Raises Failed."""
    seen = _look_local(source, follow=follow)
    if seen is None:
        raise Failed(f"cp: {source}: there is no such file here")
    there = side.look(path, follow=True)
    parent, top = choose_target(source, seen, path, there, where=f"in {side.name}")
    try:
        start = os.open(source, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise Failed(f"cp: {source}: {error.strerror}") from error
    try:
        _pipe(
            lambda out: tarball.pack(start, top, out, skipped=_skipper(emit)),
            lambda stream: side.write(parent or "/", stream, owners=archive),
        )
    finally:
        os.close(start)


def copy_tar_to(side: Side, stream: IO[bytes], path: str) -> None:
    """A tar from a stream into the folder CONTAINER:PATH; owners as the tar has them."""
    there = side.look(path, follow=True)
    if there is None or not there.folder:
        raise Failed(f"{side.name}: cp: {path} is no folder; a tar is unpacked into one")
    side.write(path, stream, owners=True)


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
