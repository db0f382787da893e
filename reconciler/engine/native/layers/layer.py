"""Turns the uncompressed bytes of a layer into a file of its own that can be mounted; removes one.

Everything is made in a staging folder and renamed, the JSON last, so an error leaves nothing. The kernel only ever mounts
what is made here: no byte of a layer is taken for a file system. Called from several threads and processes at once.
"""

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import msgspec

from reconciler.engine.native.layers import erofs, squashfs, tree
from reconciler.engine.native.layers.finaltree import FinalTree
from reconciler.engine.native.layers.onepass import Contradiction, OnePass
from reconciler.engine.native.layers.stored import (
    LayerFacts,
    RootEntry,
    has_layer,
    hash_image,
    image_path,
    layer_hex,
    layer_size,
    lock_layers,
    read_boot_id,
    read_facts,
    write_facts,
)
from reconciler.engine.native.layout import Layout
from reconciler.engine.tarentry import LIMITS, Entry, Limits
from reconciler.engine.tarstream import TarStream
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed


class Maker(Protocol):
    """Makes one image of entries that do not contradict each other. Raises model errors."""

    def begin(self, entry: Entry) -> None:
        """The next entry; `entry.size` bytes of data follow by `write`."""

    def write(self, piece: memoryview) -> None:
        """A piece of the current entry's data."""

    def finish(self) -> Path:
        """The image, whole."""

    def close(self) -> None:
        """Let go of everything; again changes nothing."""


# ---------------------------------------------------------------- writing


@lru_cache(maxsize=1)
def choose_form() -> str:
    """The best form that this machine can make and mount: erofs, squashfs, or trees where there is neither."""
    return next((maker.FORM for maker in (erofs, squashfs) if maker.is_usable()), tree.FORM)


def _make(form: str, folder: Path, what: str) -> Maker:
    if form == erofs.FORM:
        return erofs.make(folder, what=what)
    if form == squashfs.FORM:
        return squashfs.make(folder, what=what)
    return tree.make(folder, what=what)


def write_layer(
    layout: Layout,
    diff_id: str,
    chunks: Iterable[bytes],
    *,
    what: str,
    reread: Callable[[], Iterable[bytes]] | None = None,
    form: str = "",
    limits: Limits = LIMITS,
) -> int:
    """Make a layer of its uncompressed tar, and return the bytes that it takes on disk.

    All of `chunks` is read; its sha256 must be `diff_id`. `reread` gives the same bytes again, for layers that contradict
    themselves. `what` is how errors call the layer; `form` is chosen where empty. Raises ContentError for a wrong digest,
    what is no tar, or more than the limits allow; ProgramFailed and Failed for the machine's part. After an error nothing
    of it is left. A layer that is here already is read all the same, and stays as it is.
    """
    expected = layer_hex(diff_id)
    form = form or choose_form()
    try:
        with _staging(layout, expected) as folder:
            stream = TarStream(chunks, what=what, limits=limits)
            try:
                image, tree_of = _write_once(stream, expected, form, folder)
            except Contradiction:
                _check_digest(stream, expected)
                if reread is None:
                    raise stream.broken("a tar whose entries do not contradict each other", "one that does") from None
                image, tree_of = _write_again(reread, what, limits, expected, form, folder)
            return _commit(layout, expected, image, form, tree_of)
    except OSError as error:
        raise Failed(
            f"{what}: write the layer under {layout.layers}: {error.strerror or error}",
            hint="free space and see that the folder can be written; nothing of the layer was kept",
        ) from error


def _write_once(stream: TarStream, expected: str, form: str, folder: Path) -> tuple[Path, OnePass | FinalTree]:
    maker = _make(form, folder, stream.what)
    try:
        tree_of = OnePass(stream)
        _copy(tree_of.entries(), stream, maker)
        _check_digest(stream, expected)
        return maker.finish(), tree_of
    finally:
        maker.close()


def _write_again(
    reread: Callable[[], Iterable[bytes]], what: str, limits: Limits, expected: str, form: str, folder: Path
) -> tuple[Path, OnePass | FinalTree]:
    files.remove_tree(folder / "image") if form == tree.FORM else (folder / "image").unlink(missing_ok=True)
    tree_of = FinalTree()
    first = TarStream(reread(), what=what, limits=limits)
    tree_of.learn(first)
    _check_digest(first, expected)
    second = TarStream(reread(), what=what, limits=limits)
    maker = _make(form, folder, what)
    try:
        _copy(tree_of.entries(second), second, maker)
        _check_digest(second, expected)  # Race: the kept blob may have been changed between the two.
        return maker.finish(), tree_of
    finally:
        maker.close()


def _copy(entries: Iterator[Entry], stream: TarStream, maker: Maker) -> None:
    siblings: Counter[bytes] = Counter()
    for entry in entries:
        folder = entry.name[: max(entry.name.rfind(b"/"), 0)]
        siblings[folder] += 1
        if siblings[folder] > stream.limits.siblings:
            raise stream.broken(f"at most {stream.limits.siblings} things in one folder", "more", folder)
        maker.begin(entry)
        if entry.size:
            for piece in stream.data():
                maker.write(piece)


def _check_digest(stream: TarStream, expected: str) -> None:
    found = stream.drain()
    if found != expected:
        raise ContentError(f"{stream.what}: its content", f"sha256:{expected}", f"sha256:{found}")


@contextmanager
def _staging(layout: Layout, name: str) -> Iterator[Path]:
    """A folder that this thread holds by an flock: one that nobody holds was left by a crash."""
    files.make_folders(layout.layers)
    folder = layout.layers / files.staging_name(name)
    with lock_layers(layout):  # Race: between mkdir and flock it looks like one left by a crash.
        _remove_abandoned(layout)
        folder.mkdir(mode=0o700)
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(number, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        with suppress(OSError):
            files.remove_tree(folder)
        os.close(number)


def remove_stale(layout: Layout, *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Remove what writers that are no more have left half-made: name and bytes of each."""
    if not layout.layers.is_dir():
        return []
    with lock_layers(layout):
        found = [(path.name, files.measure_tree(path)) for path in _list_abandoned(layout)]
        if not dry_run:
            _remove_abandoned(layout)
        return found


def _remove_abandoned(layout: Layout) -> None:
    for path in _list_abandoned(layout):
        files.remove_tree(path) if path.is_dir() else path.unlink()


def _list_abandoned(layout: Layout) -> list[Path]:
    # A JSON that was not renamed: they are only written under the lock that is held here.
    staged = layout.layers.glob(f"{files.STAGING}*")
    return [path for path in staged if not path.is_dir() or _is_abandoned(path)]


def _is_abandoned(folder: Path) -> bool:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(number)
    return True


def _commit(layout: Layout, name: str, image: Path, form: str, tree_of: OnePass | FinalTree) -> int:
    diff_id = f"sha256:{name}"
    found = image.stat()
    facts = LayerFacts(
        form=form,
        size=files.measure_tree(image) if form == tree.FORM else found.st_size,
        inode=found.st_ino,
        boot_id=read_boot_id(),
        root=_root_of(tree_of.root),
        opaque_root=tree_of.opaque_root,
    )
    with lock_layers(layout):
        if has_layer(layout, diff_id):  # Race: another thread made the same layer meanwhile.
            return layer_size(layout, diff_id)
        _remove(layout, diff_id)
        image.rename(image_path(layout, diff_id, form))
        write_facts(layout, diff_id, facts)
    if form != tree.FORM:
        threading.Thread(target=_record_hash, args=(layout, diff_id, facts), name="layer-sha256").start()
    return facts.size


def _root_of(entry: Entry | None) -> RootEntry | None:
    if entry is None:
        return None
    xattrs = {name.decode(errors="replace"): value for name, value in entry.xattrs.items()}
    return RootEntry(mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime, xattrs=xattrs)


def _record_hash(layout: Layout, diff_id: str, facts: LayerFacts) -> None:
    """Put the image's sha256 beside it. Not waited for; the process does not end before it is there."""
    with suppress(OSError):  # Removed already; without a sha256 it is fetched again after an unclean boot.
        digest = hash_image(image_path(layout, diff_id, facts.form))
        with lock_layers(layout):
            if read_facts(layout, diff_id) == facts:
                write_facts(layout, diff_id, msgspec.structs.replace(facts, sha256=digest))


# ---------------------------------------------------------------- removal


def remove_layer(layout: Layout, diff_id: str) -> int:
    """Remove a layer and return the bytes that it took; one that is not here is no error. Unmount it before."""
    if not layout.layers.is_dir():
        return 0
    try:
        with lock_layers(layout):
            size = layer_size(layout, diff_id)
            _remove(layout, diff_id)
            return size
    except OSError as error:
        raise Failed(f"layer {diff_id}: remove it: {error.strerror or error}", hint="see the kernel's log") from error


def _remove(layout: Layout, diff_id: str) -> None:
    name = layer_hex(diff_id)
    # Order: the JSON goes first, for it is what makes a layer be here.
    (layout.layers / f"{name}.json").unlink(missing_ok=True)
    for form in (erofs.FORM, squashfs.FORM):
        (layout.layers / f"{name}.{form}").unlink(missing_ok=True)
    files.remove_tree(layout.layers / f"{name}.{tree.FORM}")
