"""Files of a container from outside: what is at a path, a tar of it, a tar into it. The machinery of `cp`.

A container that runs is reached by the root of its first process, `/proc/PID/root`, which shows its volumes, binds and
tmpfs; one that does not by its mounted root. Every path is resolved by openat2 with RESOLVE_IN_ROOT on that descriptor,
without the links of /proc: whatever the container does meanwhile, the kernel leads nobody out of it. No process of ours
enters its namespaces, so that nothing of it is run or loaded.
"""

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from reconciler.engine.native.runtime import bundle, status
from reconciler.engine.protocol import FileSeen
from reconciler.linux import mounts, paths, process, tarball
from reconciler.model.errors import Failed
from reconciler.model.key import split_key
from reconciler.model.observation import Phase
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec

_LIVE = (Phase.RUNNING, Phase.PAUSED)


@contextmanager
def opened_root(path: str, made: Made, wanted: str) -> Iterator[int]:
    """A descriptor of the root that a container sees, for a path in it. Raises Failed."""
    now = status.read_status(path, made.incarnation)
    if now.phase in _LIVE:
        root = _open_live(path)
    else:
        _check_resting(path, made, wanted)
        root = os.open(f"{path}/{bundle.ROOTFS}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if root < 0:
        raise Failed(f"{made.key}: cp: it ended just now", hint="try again")
    try:
        yield root
    finally:
        os.close(root)


def _open_live(path: str) -> int:
    state = bundle.read_json(path, bundle.STATE)
    try:
        root = os.open(f"/proc/{state['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    # Race: the pid may be another's by now; what was opened while it was its own stays that.
    if process.is_alive(state["pid"], state["start_time"]):
        return root
    os.close(root)
    return -1


def _check_resting(path: str, made: Made, wanted: str) -> None:
    name = split_key(made.key).name
    if not mounts.is_mount_point(f"{path}/{bundle.ROOTFS}"):
        raise Failed(f"{made.key}: cp: its root is not mounted", hint=f"reconcile start {name}")
    assert isinstance(made.spec, ContainerSpec)
    clean = posixpath.normpath("/" + wanted.lstrip("/"))
    for target in (*made.spec.mounts, *made.spec.configs, *made.spec.secrets):
        if f"{clean}/".startswith(f"{posixpath.normpath(target)}/"):
            raise Failed(
                f"{made.key}: cp: {wanted} is on the mount {target}, which is there only while it runs",
                hint=f"reconcile start {name}",
            )


def look(path: str, made: Made, wanted: str, *, follow: bool) -> FileSeen | None:
    """What is at a path; None for nothing."""
    with opened_root(path, made, wanted) as root, _told(made, wanted):
        try:
            found = _open(root, wanted, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            mode = os.fstat(found).st_mode
        finally:
            os.close(found)
        return FileSeen(folder=stat.S_ISDIR(mode), link=stat.S_ISLNK(mode))


def _open(root: int, wanted: str, *, follow: bool) -> int:
    return paths.open_in_root(root, wanted, os.O_PATH | (0 if follow else os.O_NOFOLLOW))


def copy_out(
    path: str, made: Made, wanted: str, to: IO[bytes], *, top: str, follow: bool, skipped: Callable[[str], None]
) -> None:
    """A tar of what is at a path, under the name `top`."""
    with opened_root(path, made, wanted) as root, _told(made, wanted):
        start = _open(root, wanted, follow=follow)
        try:
            tarball.pack(start, top, to, skipped=skipped)
        finally:
            os.close(start)


def copy_in(
    path: str, made: Made, folder: str, stream: IO[bytes], *, owner: tuple[int, int] | None, skipped: Callable[[str], None]
) -> None:
    """A tar unpacked into a folder that is there."""
    assert isinstance(made.spec, ContainerSpec)
    with opened_root(path, made, folder) as root, _told(made, folder):
        if made.spec.read_only and status.read_status(path, made.incarnation).phase not in _LIVE:
            raise Failed(f"{made.key}: cp: its root is read-only")
        os.close(paths.open_in_root(root, folder, os.O_PATH | os.O_DIRECTORY))
        tarball.unpack(stream, tarball.Place(folder, root=root), owner=owner, set_ids=True, skipped=skipped)


@contextmanager
def _told(made: Made, wanted: str) -> Iterator[None]:
    try:
        yield
    except (OSError, tarfile.TarError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        words = getattr(error, "strerror", None) or str(error)
        raise Failed(f"{made.key}: cp: {wanted}: {words}", hint="is the path right? It is the container's own") from error
