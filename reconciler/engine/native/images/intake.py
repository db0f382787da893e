"""One layer: bytes as they travel, from a registry, an archive or a kept blob -> a kept blob and a layer, both checked.

`pull.py` and `load.py` run it for each layer that is not here. Each piece goes through once: a thread reads, hashes and
writes the blob, while the caller's unpacks and hands on to the layers room. Nothing is kept unless blob digest and diff id
are both right. It knows no manifest and no registry.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from msgspec import Struct

from reconciler.engine.native.content import blobs
from reconciler.engine.native.content.unpack import unpack_layer
from reconciler.engine.native.layers import layer as layers
from reconciler.engine.native.layers import stored
from reconciler.engine.native.layout import Layout
from reconciler.model.errors import ContentError, Failed, ReconcileError

_BATCH = 256 << 10
_WAITING = 2 << 20
"""Bytes that may wait between reading and unpacking."""


class Wanted(Struct, frozen=True):
    """A layer to bring in."""

    digest: str
    """Of the blob."""
    size: int
    packing: str
    """gzip | none"""
    diff_id: str
    image: str
    """What people call the image."""

    @property
    def what(self) -> str:
        """As errors name it."""
        return f"{self.image}: layer {self.digest}"


Source = Callable[[int], Iterator[bytes]]
"""The bytes of a blob from an offset to its end."""
Told = Callable[[str, int], None]
"""Progress: downloading, unpacking, done or exists, and bytes so far. Called from several threads."""


class Stopped(Failed):
    """Another part of the same work failed; its error is the one that counts."""


def ensure_layer(
    layout: Layout, wanted: Wanted, *, source: Source, stopped: Callable[[], bool], told: Told, durable: bool = False
) -> None:
    """Bring a layer in, unless it is here. One that others bring in now is waited for.

    Raises ContentError where its bytes are wrong, and whatever `source` raises; nothing of it is kept then.
    """
    if stored.has_layer(layout, wanted.diff_id):
        if durable:
            stored.sync_layer(layout, wanted.diff_id)
        told("exists", wanted.size)
        return
    with blobs.claim_blob(layout, wanted.digest, stopped=stopped, doing=f"fetching a layer of {wanted.image}"):
        if stored.has_layer(layout, wanted.diff_id):
            told("exists", wanted.size)
            return
        try:
            if not _take_kept(layout, wanted):
                _take_new(layout, wanted, source=source, stopped=stopped, told=told, durable=durable)
        except OSError as error:
            hint = f"look at the disk below {layout.root}"
            raise Failed(f"{wanted.what}: {error.strerror or error}", hint=hint) from error
    if durable:
        stored.sync_layer(layout, wanted.diff_id)
    told("done", wanted.size)


def _take_kept(layout: Layout, wanted: Wanted) -> bool:
    """Make the layer of the blob that is kept; False where there is none, or none that is right."""
    path = blobs.blob_path(layout, wanted.digest)
    if not path.is_file():
        return False

    def tar() -> Iterator[bytes]:
        pieces = blobs.read_pieces(path, wanted.digest, what=wanted.what)
        return unpack_layer(pieces, packing=wanted.packing, what=wanted.what)

    try:
        layers.write_layer(layout, wanted.diff_id, tar(), what=wanted.what, reread=tar)
    except ContentError:
        blobs.remove_blob(layout, wanted.digest)
        return False
    return True


def _take_new(
    layout: Layout, wanted: Wanted, *, source: Source, stopped: Callable[[], bool], told: Told, durable: bool
) -> None:
    with blobs.stage_blob(layout, wanted.digest) as staging:
        goes_on = 0 < staging.size <= wanted.size
        if not goes_on:
            staging.restart()
        try:
            _take(layout, wanted, _Feed(wanted, staging, source=source, stopped=stopped, told=told))
        except ContentError:
            if not goes_on:
                raise
            # What a killed pull left may be wrong itself, after a power cut for example: once more, from the beginning.
            staging.restart()
            _take(layout, wanted, _Feed(wanted, staging, source=source, stopped=stopped, told=told))
        staging.keep(durable=durable)


def _take(layout: Layout, wanted: Wanted, feed: "_Feed") -> None:
    def tar(pieces: Iterator[bytes]) -> Iterator[bytes]:
        return unpack_layer(pieces, packing=wanted.packing, what=wanted.what)

    def reread() -> Iterator[bytes]:
        for _ in feed.pieces():  # to its end, which says whether the digest is right
            pass
        return tar(blobs.read_pieces(feed.staging.path, wanted.digest, what=wanted.what))

    with feed:
        layers.write_layer(layout, wanted.diff_id, tar(feed.pieces()), what=wanted.what, reread=reread)
        for _ in feed.pieces():
            pass


class _Feed:
    """Reads a blob in a thread of its own, while `pieces` is consumed; the end comes only once the digest is right."""

    def __init__(
        self, wanted: Wanted, staging: blobs.Staging, *, source: Source, stopped: Callable[[], bool], told: Told
    ) -> None:
        self.staging = staging
        self._wanted = wanted
        self._source = source
        self._stopped = stopped
        self._told = told
        self._queue: deque[bytes] = deque()
        self._waiting = 0
        self._change = threading.Condition()
        self._left = False
        self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"layer {wanted.digest[7:19]}", daemon=True)

    def __enter__(self) -> "_Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._left = True
            self._change.notify_all()
        self._thread.join()  # Order: nobody writes to the staging file once it is renamed or removed.

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in pieces of about 256 KiB. Raises what reading raised. Goes on where it was left."""
        while True:
            with self._change:
                while not self._queue and not self._ended:
                    self._change.wait()
                # Small pieces (a TLS record has 16 KiB) are joined: each costs a turn of the interpreter's lock.
                taken: list[bytes] = []
                size = 0
                while self._queue and size < _BATCH:
                    taken.append(self._queue.popleft())
                    size += len(taken[-1])
                self._waiting -= size
                self._change.notify_all()
                if not taken:
                    if self._error:
                        raise self._error
                    return
            yield taken[0] if len(taken) == 1 else b"".join(taken)

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:  # noqa: BLE001 it is raised again where the pieces are consumed
            self._error = error
        with self._change:
            self._ended = True
            self._change.notify_all()

    def _read(self) -> None:
        seen = hashlib.sha256()
        done = 0
        for piece in self._before():
            seen.update(piece)
            done += len(piece)
            self._put(piece)
        for piece in self._source(done):
            self.staging.write(piece)
            seen.update(piece)
            done += len(piece)
            self._told("downloading", done)
            self._put(piece)
        if done != self._wanted.size:
            raise ContentError(self._wanted.what, f"{self._wanted.size} bytes", f"{done}")
        if f"sha256:{seen.hexdigest()}" != self._wanted.digest:
            raise ContentError(self._wanted.what, self._wanted.digest, f"sha256:{seen.hexdigest()}")
        self._told("unpacking", done)

    def _before(self) -> Iterator[bytes]:
        """What an earlier pull of this blob left."""
        if self.staging.size:
            with self.staging.path.open("rb", buffering=0) as file:
                while piece := file.read(_BATCH):
                    yield piece

    def _put(self, piece: bytes) -> None:
        with self._change:
            while self._waiting > _WAITING and not self._left and not self._stopped():
                self._change.wait(0.5)
            if self._left or self._stopped():
                raise Stopped(f"{self._wanted.what}: stopped")
            self._queue.append(piece)
            self._waiting += len(piece)
            self._change.notify_all()


def first_error(errors: list[BaseException]) -> BaseException:
    """The error that people are told of several: not that something was stopped because of another."""
    told = [error for error in errors if not isinstance(error, Stopped)]
    known = [error for error in told if isinstance(error, ReconcileError)]
    return (known or told or errors)[0]
