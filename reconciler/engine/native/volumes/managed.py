"""Managed volumes: `ROOT/volumes/ID/` with the data and a small file that says whose it is, for `recover`.

The id is generated, never a name. Used by the volume and container drivers. Data goes only by `remove_volume`; nothing
here looks for volumes to clean up. Who mounts one adds nosuid and nodev (hostile D3).
"""

import contextlib
import errno
import os
import re
from pathlib import Path

import msgspec

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes import copyup
from reconciler.linux import files, mounts, paths
from reconciler.model.errors import Failed
from reconciler.model.spec import Sensitive, VolumeSpec

_LOCK_SECONDS = 120.0


class VolumeFile(msgspec.Struct, frozen=True, kw_only=True):
    """`volume.json`"""

    key: str
    spec: VolumeSpec
    root_id: str
    created: float
    """Seconds since the epoch."""
    used: bool = False
    """A container has had it: an empty one is empty because somebody emptied it."""


def _folder(layout: Layout, volume_id: str) -> Path:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", volume_id):
        raise Failed(f"volume id {volume_id!a}: it is not one that we generate")
    return layout.volumes / volume_id


def volume_data(layout: Layout, volume_id: str) -> Path:
    """The folder that is mounted into containers."""
    return _folder(layout, volume_id) / "data"


def is_empty(layout: Layout, volume_id: str) -> bool | None:
    """Whether nothing is in a volume; None where it is not there."""
    try:
        with os.scandir(volume_data(layout, volume_id)) as entries:
            return next(entries, None) is None
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_volume(layout: Layout, volume_id: str) -> VolumeFile | None:
    """What a volume's folder says of itself, None where there is none or nothing that can be read."""
    try:
        return msgspec.json.decode((_folder(layout, volume_id) / "volume.json").read_bytes(), type=VolumeFile)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def ensure_volume(layout: Layout, volume_id: str, *, key: str, spec: VolumeSpec, created: float) -> None:
    """Make a volume's folders and its file. Idempotent: data that is there stays. Raises Failed, and leaves nothing new."""
    folder = _folder(layout, volume_id)
    fresh = not folder.exists()
    try:
        files.make_folders(folder)
        data = folder / "data"
        if not data.is_dir():
            data.mkdir()
            data.chmod(0o755)
        old = read_volume(layout, volume_id)
        used = old is not None and old.used
        new = VolumeFile(key=key, spec=_hidden(spec), root_id=layout.root_id, created=created, used=used)
        if old is None or new != msgspec.structs.replace(old, spec=_hidden(old.spec)):
            _write(folder, new)
    except OSError as error:
        if fresh:
            # Who comes next makes it under another id. Only what is empty goes.
            for made in (folder / "data", folder):
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise Failed(f"{key}: make {folder}: {error.strerror or error}", hint="free space, if the disk is full") from error


def note_sealed(layout: Layout, volume_id: str, spec: VolumeSpec) -> None:
    """Keep a volume's spec with its secrets, which the caller has sealed."""
    known = read_volume(layout, volume_id)
    if known is not None and known.spec != spec and _hidden(known.spec) == _hidden(spec):
        _write(_folder(layout, volume_id), msgspec.structs.replace(known, spec=spec))


def _hidden(spec: VolumeSpec) -> VolumeSpec:
    """Without the secrets that it has."""
    opts = {name: Sensitive("") if isinstance(value, Sensitive) else value for name, value in spec.driver_opts.items()}
    return msgspec.structs.replace(spec, driver_opts=opts) if opts != spec.driver_opts else spec


def mark_used(layout: Layout, volume_id: str, *, used: bool) -> None:
    """Say whether a container has had it, of a volume whose data is put back."""
    known = read_volume(layout, volume_id)
    if known is not None and known.used != used:
        _write(_folder(layout, volume_id), msgspec.structs.replace(known, used=used))


def _write(folder: Path, content: VolumeFile) -> None:
    files.write_atomic(folder / "volume.json", msgspec.json.encode(content), durable=True)


def remove_volume(layout: Layout, volume_id: str) -> None:
    """Remove a volume with its data. What is gone already is no error. Raises Failed; a second call goes on."""
    folder = _folder(layout, volume_id)
    try:
        # Order: the file that says whose it is goes last, so that what a kill leaves can still be told.
        _check_unmounted(folder / "data")
        files.remove_tree(folder / "data")
        files.remove_tree(folder)
    except OSError as error:
        where = error.filename or folder
        raise Failed(
            f"volume {volume_id}: remove {where}: {error.strerror}", hint="unmount what is mounted there"
        ) from error


def _check_unmounted(data: Path) -> None:
    """What is mounted there is not ours to remove."""
    if mounts.is_mount_point(data):
        raise OSError(errno.EBUSY, "something is mounted on it", str(data))


def volume_size(layout: Layout, volume_id: str) -> int:
    """Bytes of a volume's data, by walking it; 0 where it is not there."""
    return files.measure_tree(volume_data(layout, volume_id))


def open_subpath(layout: Layout, volume_id: str, subpath: str) -> int:
    """A descriptor (O_PATH, the caller closes) of a folder or file in a volume, to be bound somewhere.

    Links in the volume end inside it, whoever wrote them and whenever (CVE-2017-1002101, CVE-2021-25741). Raises Failed
    where it does not exist.
    """
    try:
        return paths.open_in_root(volume_data(layout, volume_id), subpath or "/", os.O_PATH)
    except OSError as error:
        raise Failed(
            f"volume {volume_id}: subpath {subpath!r}: {error.strerror or error}", hint="make it in the volume first"
        ) from error


def copy_up(layout: Layout, volume_id: str, *, rootfs: str | Path, target: str) -> bool:
    """Fill a volume with what an image has at `target`, at its first use; whether it did.

    Compat: as Docker, only a volume that is new and empty is filled, with owner and mode of the target folder. Devices
    and sockets are left out. Call it while nothing runs in `rootfs`. Raises Failed; the volume is then as it was.
    """
    folder = _folder(layout, volume_id)
    try:
        with files.lock(folder / "lock", _LOCK_SECONDS, doing="fill a new volume"):
            return _fill(layout, volume_id, folder, rootfs, target)
    except OSError as error:
        raise Failed(
            f"volume {volume_id}: copy {target} of the image into it: {error.strerror or error}",
            hint="free space, if the disk is full",
        ) from error


def _fill(layout: Layout, volume_id: str, folder: Path, rootfs: str | Path, target: str) -> bool:
    known = read_volume(layout, volume_id)
    if known is None or known.used:
        return False
    filled = False
    data = folder / "data"
    if not any(data.iterdir()):
        try:
            source = paths.open_in_root(rootfs, target, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            pass
        else:
            try:
                filled = _replace(data, source)
            finally:
                os.close(source)
    _write(folder, msgspec.structs.replace(known, used=True))
    return filled


def _replace(data: Path, source: int) -> bool:
    """Copy beside the data and rename over it, which an empty folder lets be done: a kill leaves it empty or full."""
    for old in data.parent.glob(f"{files.STAGING}data-*"):
        files.remove_tree(old)
    with files.staged_directory(data) as staged:
        copyup.copy_tree(source, staged)
    return True
