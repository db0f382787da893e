"""An image whose parts are known -> an image that is here: its layers in parallel, then config and manifest, its name last.

`pull.py` and `load.py` bring the parts. An image counts as here once its record is written, which is the last step, so a
kill before that leaves only what a prune removes. Neighbour: `intake.py` brings in each layer.
"""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait

from msgspec import Struct

from reconciler.engine.native.content import blobs, images
from reconciler.engine.native.content.documents import Manifest
from reconciler.engine.native.images.intake import Source, Told, Wanted, ensure_layer, first_error
from reconciler.engine.native.layout import Layout
from reconciler.model.events import Emit, Progress
from reconciler.model.key import Key

_TELL_SECONDS = 0.1


class Parts(Struct, frozen=True):
    """Everything of an image but its layers' bytes."""

    digest: str
    documents: Mapping[str, bytes]
    """Manifest, config, and the index it was chosen from, by digest."""
    manifest: Manifest
    diff_ids: tuple[str, ...]
    """As many as the manifest has layers, oldest first."""
    shown: str
    """What people call the image."""
    name: str
    """What it is to be found by: a canonical reference, or `archive:PATH`."""
    target: str = ""
    """What that reference names: an index, or the image itself."""


def gather_image(
    layout: Layout,
    parts: Parts,
    *,
    source: Callable[[Wanted], Source],
    pool: Executor,
    closing: threading.Event,
    key: Key,
    emit: Emit,
    durable: bool = False,
) -> None:
    """Make an image be here. Layers that are here are kept, the others read from `source`, as many at once as `pool` has
    threads. `durable` returns only once the disk has all of it. Raises the first error; the other layers are stopped."""
    failed = threading.Event()

    def stopped() -> bool:
        return failed.is_set() or closing.is_set()

    def bring(wanted: Wanted) -> None:
        try:
            told = _teller(key, wanted, emit)
            ensure_layer(layout, wanted, source=source(wanted), stopped=stopped, told=told, durable=durable)
        except BaseException:
            failed.set()
            raise

    with blobs.keeping_prune_away(layout):
        _run_all([pool.submit(bring, wanted) for wanted in _wanted_of(parts)], failed)
        for data in parts.documents.values():
            blobs.keep_blob(layout, data, durable=durable)
        images.keep_image(
            layout,
            parts.digest,
            name=parts.name,
            target=parts.target or parts.digest,
            blobs=[parts.digest, parts.manifest.config.digest, *(layer.digest for layer in parts.manifest.layers)],
            diff_ids=parts.diff_ids,
            durable=durable,
        )


def _wanted_of(parts: Parts) -> list[Wanted]:
    """Each layer once, however often the image has it. Oldest first: a base has the most files, so it takes the longest."""
    found = {
        diff_id: Wanted(layer.digest, layer.size, layer.packing, diff_id, parts.shown)
        for layer, diff_id in zip(parts.manifest.layers, parts.diff_ids, strict=True)
    }
    return [*found.values()]


def _run_all(futures: list[Future[None]], failed: threading.Event) -> None:
    try:
        wait(futures)
    except BaseException:  # an interrupt: end what runs before the locks go
        failed.set()
        for future in futures:
            future.cancel()
        wait(futures)
        raise
    errors = [error for future in futures if (error := future.exception())]
    if errors:
        raise first_error(errors)


def _teller(key: Key, wanted: Wanted, emit: Emit) -> Told:
    """Events of one layer: each step, and how far it is at most ten times a second."""
    last = ("", 0.0)

    def tell(text: str, done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if text == last[0] and now - last[1] < _TELL_SECONDS:
            return
        last = (text, now)
        emit(Progress(key=key, part=wanted.digest[7:19], done=done, total=wanted.size, text=text))

    return tell
