"""Mounts that lie in another mount: put together by us in the bundle, so that the runtime never follows a path in there.

Whoever shares a volume with a container can put a link where that container's next mount is to go, at the very moment at
which it is looked for. runc (before 1.1.14) then makes the mount point wherever on the host the link leads (CVE-2024-45310,
after CVE-2021-30465). So the outer mount and all in it become one tree under BUNDLE/trees, by descriptors and openat2, and
the runtime binds that as a whole, at a path of the image that nobody else can change. Written down by writing.py as
monitor.json's `trees`, made anew at each start by conmon.py, which imports this only then. Standard library and `linux`.
"""

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from reconciler.engine.native.runtime import bundle, targets
from reconciler.linux import files, mounts, paths

FOLDER = "trees"
_TRIES = 16
_ATTRIBUTES = {"ro": mounts.RDONLY, "nosuid": mounts.NOSUID, "nodev": mounts.NODEV, "noexec": mounts.NOEXEC}

Entry = dict[str, Any]
"""A mount as in config.json: destination, type, source, options."""


def arrange(path: str, wanted: Sequence[Entry]) -> tuple[list[Entry], list[dict[str, Any]]]:
    """The mounts that the runtime makes, and the trees of a bundle. `wanted` has outer mounts before what lies in them.

    Raises OSError for links in a circle.
    """
    top: list[Entry] = []
    trees: dict[str, dict[str, Any]] = {}
    placed: dict[str, Entry] = {}
    tree_of: dict[str, str] = {}
    for mount in wanted:
        target = targets.resolve(f"{path}/{bundle.ROOTFS}", mount["destination"], placed)
        outer = targets.find_outer(target, placed)
        if outer and outer not in tree_of and placed[outer]["type"] == "bind":
            source, place = placed[outer]["source"], f"{FOLDER}/{_digest(outer)}"
            trees[outer] = {"place": place, "source": source, "read_only": "ro" in placed[outer]["options"], "inner": []}
            placed[outer]["source"] = f"{path}/{place}"
            tree_of[outer] = outer
        if outer in tree_of:
            tree_of[target] = tree_of[outer]
            trees[tree_of[outer]]["inner"].append({**mount, "inside": target.removeprefix(tree_of[outer]).lstrip("/")})
        else:
            top.append(mount)
        placed.setdefault(target, mount)
    return top, list(trees.values())


def _digest(target: str) -> str:
    return hashlib.sha256(target.encode(errors="surrogateescape")).hexdigest()[:16]


# ---------------------------------------------------------------- on the machine


def assemble(path: str, trees: Sequence[Mapping[str, Any]]) -> None:
    """Make all trees of a bundle anew: what is in a tmpfs ends with a run. Raises OSError naming the target."""
    for tree in trees:
        place = f"{path}/{tree['place']}"
        _clear(place)
        files.make_folders(place)
        mounts.bind(tree["source"], place, recursive=True)
        mounts.make_private(place, recursive=True)
        root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for inner in tree["inner"]:
                try:
                    _mount(root, inner, read_only=tree["read_only"])
                except OSError as error:
                    raise OSError(error.errno, f"mount at {inner['destination']}: {error.strerror}") from error
        finally:
            os.close(root)


def _mount(root: int, inner: Entry, *, read_only: bool) -> None:
    made = _detached(inner)
    try:
        for attempt in range(_TRIES):
            # Race: a neighbour may take the point away once we have it; the kernel then says ENOENT.
            with suppress(FileNotFoundError):
                point = _open_point(root, inner["inside"], folder=_is_folder(made), read_only=read_only)
                try:
                    return mounts.attach(made, point)
                except FileNotFoundError:
                    if attempt == _TRIES - 1:
                        raise
                finally:
                    os.close(point)
        raise OSError(errno.EBUSY, "the folder changes faster than something can be mounted in it")
    finally:
        os.close(made)


def _detached(inner: Entry) -> int:
    attributes = sum(_ATTRIBUTES.get(option, 0) for option in inner["options"])
    if inner["type"] == "tmpfs":
        options = [option.partition("=")[::2] for option in inner["options"] if "=" in option]
        return mounts.create_filesystem("tmpfs", [("source", "tmpfs"), *options], attributes)
    tree = mounts.clone_tree(inner["source"], recursive=True)
    if attributes:
        mounts.set_attributes(tree, add=attributes)
    return tree


def _is_folder(mount: int) -> bool:
    return stat.S_ISDIR(os.fstat(mount).st_mode)


def _open_point(root: int, inside: str, *, folder: bool, read_only: bool) -> int:
    """The mount point, inside the tree whatever links lie there; made where it is missing."""
    try:
        return paths.open_in_root(root, inside, os.O_PATH)
    except FileNotFoundError:
        if read_only:
            raise OSError(errno.EROFS, "there is no such file or folder in the read-only mount that it lies in") from None
    if folder:
        paths.mkdir_in_root(root, inside)
    else:
        above = posixpath.dirname(inside)
        paths.mkdir_in_root(root, above)
        with suppress(FileExistsError):
            os.close(paths.open_in_root(root, inside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))
    return paths.open_in_root(root, inside, os.O_PATH)


def _clear(place: str) -> None:
    for _ in range(64):
        if not mounts.is_mount_point(place):
            return
        mounts.unmount(place, lazy=True)


def take_down(path: str) -> None:
    """Unmount all trees of a bundle."""
    try:
        names = os.listdir(f"{path}/{FOLDER}")  # noqa: PTH208 - as all paths here
    except FileNotFoundError:
        return
    for name in names:
        _clear(f"{path}/{FOLDER}/{name}")
