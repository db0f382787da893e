"""Mounts the images of layers, each once, for all containers that use it; and takes them down after the last.

A layer's mount point is `RUN/layers/HEX`; who uses it is the empty files of `RUN/layer-users/HEX/`, named by incarnation,
which go with a reboot just as the mounts do. Feeds stack.py. Never writes into an image: all is mounted read-only.
"""

import os
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.engine.native.layers import stored, tree
from reconciler.engine.native.layout import Layout
from reconciler.linux import files, mounts
from reconciler.model.errors import ContentError, Failed

_LOCK_SECONDS = 60.0
_ATTRIBUTES = mounts.RDONLY | mounts.NODEV | mounts.NOSUID
_threads = threading.Lock()


def mount_point(layout: Layout, diff_id: str) -> Path:
    """Where a layer is mounted."""
    return layout.layer_mounts / stored.layer_hex(diff_id)


def hold_layers(layout: Layout, incarnation: str, diff_ids: Iterable[str]) -> None:
    """Note that a container uses these layers, and mount those that are not mounted. Idempotent.

    Raises ContentError for a layer that is not here or not whole, Failed for what the kernel refuses.
    """
    users, points = str(_users(layout)), str(layout.layer_mounts)
    with _locked(layout):
        for diff_id in diff_ids:
            name = stored.layer_hex(diff_id)
            # Order: the note comes first, so that a crash leaves a note too many and never a mount too few.
            files.make_folders(f"{users}/{name}")
            os.close(os.open(f"{users}/{name}/{incarnation}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            if not mounts.is_mount_point(f"{points}/{name}"):
                _mount(layout, diff_id)


def _mount(layout: Layout, diff_id: str) -> None:
    facts = stored.read_facts(layout, diff_id)
    if facts is None or not stored.has_layer(layout, diff_id):
        raise ContentError(
            f"layer {diff_id}", "the image made of it", "none, or a damaged one", "apply again: it is pulled anew"
        )
    image, target = stored.image_path(layout, diff_id, facts.form), mount_point(layout, diff_id)
    try:
        files.make_folders(target)
        if facts.form == tree.FORM:
            mounts.bind(image, target, attributes=_ATTRIBUTES)
        else:
            mounts.mount_image(image, target, facts.form, attributes=_ATTRIBUTES)
    except OSError as error:
        hint = "`reconcile doctor` says what the kernel lacks"
        raise Failed(f"layer {diff_id}: mount {image.name}: {error.strerror or error}", hint=hint) from error
    if not facts.synced and facts.boot_id != stored.read_boot_id():
        stored.sync_layer(layout, diff_id)  # It has just been found whole on the disk: note it.


def release_layers(layout: Layout, incarnations: Collection[str]) -> list[str]:
    """These containers use no layer any more; unmount what nobody uses now: the diff_ids that went."""
    if not incarnations or not _users(layout).is_dir():
        return []
    gone = []
    with _locked(layout):
        for name in _list(_users(layout)):
            for incarnation in incarnations:
                (_users(layout) / name / incarnation).unlink(missing_ok=True)
            if _unmount_unused(layout, name):
                gone.append(f"sha256:{name}")
    return gone


def unmount_layers(layout: Layout, keep: Collection[str] = ()) -> list[str]:
    """Unmount every layer that no container uses and that is not in `keep`: the diff_ids that went."""
    kept = {stored.layer_hex(diff_id) for diff_id in keep}
    if not layout.layer_mounts.is_dir():
        return []
    with _locked(layout):
        names = [name for name in _list(layout.layer_mounts) if name not in kept]
        return [f"sha256:{name}" for name in names if _unmount_unused(layout, name)]


def read_users(layout: Layout) -> dict[str, list[str]]:
    """Incarnations by the hex of each layer that they use."""
    return {name: _list(_users(layout) / name) for name in _list(_users(layout))}


def _unmount_unused(layout: Layout, name: str) -> bool:
    try:
        (_users(layout) / name).rmdir()
    except FileNotFoundError:
        pass
    except OSError:  # ENOTEMPTY: it is used.
        return False
    target = layout.layer_mounts / name
    was_mounted = unmount_all(target)
    with suppress(OSError):
        target.rmdir()
    return was_mounted


def unmount_all(target: Path) -> bool:
    """Take off everything that is mounted at one point; whether there was something."""
    found = False
    for _ in range(64):
        if not mounts.is_mount_point(target):
            break
        found = True
        try:
            mounts.unmount(target)
        except OSError:  # Somebody's working directory is in it: hide it now, it ends with that.
            mounts.unmount(target, lazy=True)
    return found


def _users(layout: Layout) -> Path:
    return layout.run / "layer-users"


def _list(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(files.STAGING)]  # noqa: PTH208
    except FileNotFoundError:
        return []


@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Alone among threads and processes. The first of the two is there so that threads need not poll the second."""
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _threads, files.lock(layout.run / "layers.lock", _LOCK_SECONDS, doing="mount layers"):
        yield
