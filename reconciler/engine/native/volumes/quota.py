"""`size:` of a volume: a project quota on its folder, where the file system of the root has them."""

import errno
import zlib
from pathlib import Path

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes.managed import volume_data
from reconciler.linux import mounts, quotas
from reconciler.model.errors import Failed
from reconciler.model.observation import PRESENT, Part, altered

_FIRST = 0x52000000
"""Our projects' numbers begin here; those that people write in /etc/projects are small."""


def check_possible(layout: Layout, *, key: str) -> None:
    """Raise Failed, naming the file system, where a volume can't have a size."""
    place = _existing(layout.volumes)
    try:
        quotas.read_project(place)
        quotas.read_limit(place, _FIRST)
    except OSError as error:
        entry = _covering(place)
        where = f"{entry.point} is {entry.fstype} on {entry.source}" if entry else str(place)
        raise Failed(
            f"{key}: size: {where}, which bounds no folder ({error.strerror})",
            hint="mount an ext4 (made with -O project,quota) or xfs with prjquota for the root, or leave size out",
        ) from error


def ensure_size(layout: Layout, volume_id: str, *, key: str, size: int) -> None:
    """Bound a volume; 0 takes a bound away that it has. Raises Failed."""
    data = volume_data(layout, volume_id)
    try:
        project = quotas.read_project(data)
        if size == 0 and project < _FIRST:
            return
        if project < _FIRST:
            project = _choose_project(data, volume_id)
            quotas.set_project(data, project)
        quotas.set_limit(data, project, size)
    except OSError as error:
        if size == 0:
            return
        raise Failed(
            f"{key}: size: bound {data}: {error.strerror}", hint="`reconcile doctor`, or leave size out"
        ) from error


def _choose_project(data: Path, volume_id: str) -> int:
    """A number that nothing is held under: told by the volume's id, or one of those after it."""
    project = _FIRST + zlib.crc32(volume_id.encode()) % 0x1000000
    for _ in range(1000):
        limit, used = quotas.read_limit(data, project)
        if not limit and not used:
            return project
        project += 1
    raise OSError(errno.ENOSPC, "no project is free")


def observe_size(layout: Layout, volume_id: str, size: int) -> Part:
    """Whether the bound is as it should be."""
    data = volume_data(layout, volume_id)
    try:
        project = quotas.read_project(data)
        limit = quotas.read_limit(data, project)[0] if project >= _FIRST else 0
    except OSError:
        limit = 0
    wanted = -(-size // 1024) * 1024
    return PRESENT if limit == wanted else altered("size", str(wanted), str(limit))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _covering(path: Path) -> mounts.MountEntry | None:
    """The mount that a path lies on."""
    resolved = f"{path.resolve()}/"
    entries = [each for each in mounts.read_mountinfo() if resolved.startswith(each.point.rstrip("/") + "/")]
    return max(entries, key=lambda each: (len(each.point), each.id), default=None)
