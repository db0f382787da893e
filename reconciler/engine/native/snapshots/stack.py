"""Puts a writable layer onto the layers of an image: the root of one container, mounted at `RUN/bundles/INC/rootfs`.

The layers come from mounts.py; upper and work folders lie in `ROOT/containers/INC` and outlive the mount. Called by the
container driver, from many threads. Lowers are hostile: nothing in them redirects or stands in for other files.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layers import stored
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.snapshots import mounts as layer_mounts
from reconciler.linux import files, mounts
from reconciler.model.errors import Failed
from reconciler.model.key import Kind, is_incarnation, kind_of
from reconciler.model.observation import PRESENT, Part, Stray, altered, missing
from reconciler.model.record import View

_OPTIONS = (("redirect_dir", "nofollow"), ("metacopy", "off"))
_LAYERS_MOST = 500
"""Kernel: the most lowers of an overlay."""


def rootfs_path(layout: Layout, incarnation: str) -> Path:
    """Where a container's root is mounted."""
    if not re.fullmatch(r"[0-9a-f]{12}", incarnation):
        raise Failed(f"incarnation {incarnation!a}: it is not 12 hex digits")
    return layout.bundles / incarnation / "rootfs"


def mount_root(layout: Layout, incarnation: str, diff_ids: Sequence[str]) -> Path:
    """Mount a container's root, and its layers (oldest first) where they are not mounted: its path.

    Idempotent: what is mounted stays, and what its writable layer holds is kept. Raises ContentError for a layer that is
    not here, Failed for what the kernel refuses; `unmount_root` and `remove_writable` remove what was done until then.
    """
    rootfs = rootfs_path(layout, incarnation)
    lowers = choose_lowers(layout, diff_ids)
    try:
        layer_mounts.hold_layers(layout, incarnation, lowers)
        folder = layout.containers / incarnation
        if mounts.is_mount_point(rootfs):
            if (folder / "upper").is_dir() and (folder / "work").is_dir():
                return rootfs
            # What was written is lost; a root whose writable layer is no longer anywhere takes nothing more.
            layer_mounts.unmount_all(rootfs)
        upper = _ensure_upper(layout, folder, diff_ids)
        _ensure_folder(folder / "work")
        files.make_folders(rootfs.parent)
        rootfs.mkdir(mode=0o755, exist_ok=True)
        mounts.mount_overlay(
            rootfs,
            lowers=[layer_mounts.mount_point(layout, diff_id) for diff_id in lowers] or [_empty(layout)],
            upper=upper,
            work=folder / "work",
            options=_OPTIONS,
            source=f"{layout.root_id}-{incarnation}",
            attributes=mounts.NODEV,
        )
    except OSError as error:
        hint = "`reconcile doctor` says what the kernel lacks; free space, if the disk is full"
        raise Failed(f"container {incarnation}: mount its root: {error.strerror or error}", hint=hint) from error
    return rootfs


def choose_lowers(layout: Layout, diff_ids: Sequence[str]) -> list[str]:
    """The layers that count, topmost first: each once, and none below one that hides everything.

    A layer that comes twice counts where it lies highest: what it has is found there first anyway, and overlayfs refuses
    to have it twice.
    """
    lowers: list[str] = []
    for diff_id in reversed(diff_ids):
        if diff_id not in lowers:
            lowers.append(diff_id)
        if _read_marks(layout, diff_id)[1]:
            break
    if len(lowers) > _LAYERS_MOST:
        raise Failed(f"an image of {len(lowers)} layers: overlayfs takes {_LAYERS_MOST}", hint="build it with fewer")
    return lowers


def _read_marks(layout: Layout, diff_id: str) -> tuple[stored.RootEntry | None, bool]:
    """What a layer says of the root folder, and whether it hides all below; nothing for a layer that is not here."""
    try:
        return _read_marks_cached(layout, diff_id)
    except LookupError:
        return None, False


@lru_cache(maxsize=4096)
def _read_marks_cached(layout: Layout, diff_id: str) -> tuple[stored.RootEntry | None, bool]:
    # What has a digest never says anything else, so this is kept for good; that it is not here is not.
    facts = stored.read_facts(layout, diff_id)
    if facts is None:
        raise LookupError(diff_id)
    return facts.root, facts.opaque_root


def _ensure_upper(layout: Layout, folder: Path, diff_ids: Sequence[str]) -> Path:
    """The writable layer, whose own mode and owner are those of the image's root entry: of the topmost layer with one."""
    upper, staged = folder / "upper", folder / f"{files.STAGING}upper"
    if upper.is_dir():
        return upper
    files.make_folders(folder)
    staged.mkdir(mode=0o755, exist_ok=True)
    roots = (_read_marks(layout, diff_id)[0] for diff_id in reversed(diff_ids))
    root = next((root for root in roots if root is not None), None)
    os.chown(staged, root.uid if root else 0, root.gid if root else 0)
    staged.chmod(root.mode if root else 0o755)
    for name, value in (root.xattrs if root else {}).items():
        os.setxattr(staged, name, value)
    # Order: renamed only now, so that a kill before this never leaves a root folder with our mode for the image's.
    staged.rename(upper)
    return upper


def _ensure_folder(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _empty(layout: Layout) -> Path:
    """The only lower of an image without layers."""
    path = layout.run / "no-layers"
    _ensure_folder(path)
    return path


def unmount_root(layout: Layout, incarnation: str) -> None:
    """Take a container's root down, and the layers that nobody else uses. What is gone already is no error."""
    try:
        rootfs = rootfs_path(layout, incarnation)
        layer_mounts.unmount_all(rootfs)
        with suppress(FileNotFoundError):
            rootfs.rmdir()
        layer_mounts.release_layers(layout, (incarnation,))
    except OSError as error:
        raise Failed(
            f"container {incarnation}: unmount its root: {error.strerror or error}", hint="see who uses it with `fuser -vm`"
        ) from error


def remove_writable(layout: Layout, incarnation: str) -> None:
    """Remove what a container wrote; its root must be unmounted. What is gone already is no error. Logs are left."""
    rootfs_path(layout, incarnation)
    folder = layout.containers / incarnation
    try:
        for name in ("upper", "work", f"{files.STAGING}upper"):
            files.remove_tree(folder / name)
        with suppress(OSError):  # ENOTEMPTY: its logs are there.
            folder.rmdir()
    except OSError as error:
        raise Failed(
            f"container {incarnation}: remove its writable layer: {error.strerror or error}",
            hint=f"see what is in {folder}",
        ) from error


def writable_size(layout: Layout, incarnation: str) -> int:
    """Bytes that a container wrote, by walking them."""
    return files.measure_tree(layout.containers / incarnation / "upper")


# ---------------------------------------------------------------- looking


def observe_roots(layout: Layout, roots: Mapping[str, Sequence[str]], glimpse: Glimpse) -> dict[str, Part]:
    """How the root mount of each incarnation (with its image's layers) stands, by the mounts of the glimpse.

    A root that is gone or another can't be mended beneath a running container; a layer's mount point that is gone can,
    for the overlay holds the layer itself.
    """
    points: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    found = {}
    bundles, containers = str(layout.bundles), str(layout.containers)
    for incarnation, diff_ids in roots.items():
        image = tuple(diff_ids)
        if image not in points:
            lowers = choose_lowers(layout, image)
            points[image] = [(diff_id, str(layer_mounts.mount_point(layout, diff_id))) for diff_id in lowers]
        found[incarnation] = _observe_root(f"{bundles}/{incarnation}/rootfs", f"{containers}/{incarnation}", glimpse)
        if found[incarnation] is PRESENT:
            found[incarnation] = _observe_layers(points[image], glimpse)
    return found


def _observe_root(rootfs: str, folder: str, glimpse: Glimpse) -> Part:
    entry = glimpse.mounts.get(rootfs)
    if entry is None:
        return missing("restart")
    if entry.fstype != "overlay":
        return altered("file system", "overlay", entry.fstype, "restart")
    if entry.read_only:
        return altered("options", "rw", entry.options, "restart")
    upper = f"{folder}/upper"
    for name in ("upper", "work"):
        if not os.path.isdir(f"{folder}/{name}"):  # noqa: PTH112 - asked for each container
            return altered(f"folder {name}", "there", "missing", "restart")
    found = next((option[9:] for option in entry.super_options.split(",") if option.startswith("upperdir=")), "")
    return PRESENT if found == upper else altered("upperdir", upper, found, "restart")


def _observe_layers(points: Sequence[tuple[str, str]], glimpse: Glimpse) -> Part:
    gone = [diff_id for diff_id, point in points if point not in glimpse.mounts]
    return altered("layers", f"{gone[0]} mounted", "not mounted") if gone else PRESENT


def strays(layout: Layout, view: View, glimpse: Glimpse) -> list[Stray]:
    """Roots, layers and writable folders of containers that are not in the view: left by a crash."""
    known = {made.incarnation for made in view.made if kind_of(made.key) is Kind.CONTAINER}
    users = layer_mounts.read_users(layout)
    bundles, images = f"{layout.bundles}/", f"{layout.layer_mounts}/"
    in_bundles = (point[len(bundles) :].split("/") for point in glimpse.mounts if point.startswith(bundles))
    roots = {below[0] for below in in_bundles if below[1:] == ["rootfs"]}
    gone = sorted(roots.union(*users.values()) - known)
    mounted = [point for point in glimpse.mounts if point.startswith(images) and "/" not in point[len(images) :]]
    layers = sorted(point for point in mounted if not users.get(point[len(images) :]))
    folders = [name for name in _scan(layout.containers) if name not in known and is_incarnation(name)]
    return [
        *(Stray(kind="mount", name=f"{layout.bundles}/{incarnation}/rootfs") for incarnation in gone),
        *(Stray(kind="mount", name=point) for point in layers),
        *(Stray(kind="folder", name=f"{layout.containers}/{name}") for name in folders),
    ]


def _scan(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return []


def remove_stray(layout: Layout, stray: Stray) -> None:
    """Remove one of `strays`; anything else, and what is gone already, is left alone. Mounts go before folders."""
    path = Path(stray.name)
    try:
        if path.parent == layout.layer_mounts:
            layer_mounts.unmount_layers(layout)
        elif path.name == "rootfs" and path.parent.parent == layout.bundles:
            unmount_root(layout, path.parent.name)
        elif path.parent == layout.containers:
            files.remove_tree(path)
    except OSError as error:
        raise Failed(f"{path}: remove it: {error.strerror or error}", hint="see who uses it with `fuser -vm`") from error
