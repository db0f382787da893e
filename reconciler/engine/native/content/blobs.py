"""Blobs by digest: manifests, configs and kept layer blobs, each a file named by its sha256. Below every other image room.

A blob is staged under `new-HEX` and renamed once its digest is known to be right, so that a file of that name is its own
record. Pulled blobs are not synced: what a power cut spoils, the next read finds out by the digest, and it is fetched
again. It never looks at what a blob means.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reconciler.engine.native.layout import Layout
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed, LockTimeout

_WAIT_SECONDS = 3600.0
"""How long to wait for another pull of the same blob, which has deadlines of its own."""
_PRUNE_SECONDS = 10.0
"""How long a prune waits for pulls to end."""
_CHUNK = 256 << 10
_LARGEST_SMALL = 4 << 20
"""Bytes of a manifest or config; whoever asks for a layer by this way gets other bytes than its digest says."""


def digest_of(data: bytes) -> str:
    """The digest of these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def blob_path(layout: Layout, digest: str) -> Path:
    """Where a blob is, or would be. Raises ValueError for what is no digest."""
    algorithm, _, name = digest.partition(":")
    if algorithm != "sha256" or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise ValueError(f"{digest!r} is no sha256 digest")
    return layout.blobs / name


def has_blob(layout: Layout, digest: str) -> bool:
    """Whether a blob is here: one stat, its bytes are not read."""
    return blob_path(layout, digest).is_file()


def read_blob(layout: Layout, digest: str, *, what: str) -> bytes | None:
    """A small blob, whole and checked; None where it is missing. Raises ContentError where its bytes were altered."""
    try:
        with blob_path(layout, digest).open("rb") as file:
            data = file.read(_LARGEST_SMALL)
    except FileNotFoundError:
        return None
    if digest_of(data) != digest:
        raise ContentError(f"{what} {digest} in {layout.root}", digest, f"other bytes ({digest_of(data)})")
    return data


def keep_blob(layout: Layout, data: bytes, *, durable: bool = False) -> str:
    """Store a small blob; its digest. Again changes nothing, but mends a file whose bytes were altered."""
    digest = digest_of(data)
    path = blob_path(layout, digest)
    try:
        if path.stat().st_size == len(data) and digest_of(path.read_bytes()) == digest:
            return digest
    except FileNotFoundError:
        pass
    ensure_folder(path.parent)
    try:
        files.write_atomic(path, data, durable=durable)
    except OSError as error:
        raise Failed(f"keep {digest}: {error.strerror}", hint=f"look at {layout.root}") from error
    return digest


def read_pieces(path: Path, digest: str, *, what: str) -> Iterator[bytes]:
    """A large blob that is here, in pieces; ContentError at its end where the bytes were altered."""
    seen = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_CHUNK):
            seen.update(piece)
            yield piece
    if seen.hexdigest() != digest[7:]:
        raise ContentError(what, digest, f"other bytes (sha256:{seen.hexdigest()})")


def blob_size(layout: Layout, digest: str) -> int:
    """Bytes of a blob, 0 where it is not here."""
    try:
        return blob_path(layout, digest).stat().st_size
    except FileNotFoundError:
        return 0


def remove_blob(layout: Layout, digest: str) -> int:
    """Remove a blob; the bytes that went, 0 where it was gone already."""
    size = blob_size(layout, digest)
    blob_path(layout, digest).unlink(missing_ok=True)
    return size


def list_blobs(layout: Layout) -> Iterator[tuple[str, int]]:
    """Digest and size of every blob here."""
    with suppress(FileNotFoundError), os.scandir(layout.blobs) as entries:
        for entry in entries:
            if len(entry.name) == 64 and entry.is_file(follow_symlinks=False):
                yield f"sha256:{entry.name}", entry.stat(follow_symlinks=False).st_size


class Staging:
    """A blob being written, by whoever holds its claim. `size` is what is there already, of a pull that was killed."""

    def __init__(self, path: Path, number: int, final: Path) -> None:
        self.path = path
        self.final = final
        self._number = number
        self.size = os.fstat(number).st_size

    def write(self, data: bytes) -> None:
        """Append. Raises OSError."""
        files.write_all(self._number, data)
        self.size += len(data)

    def restart(self) -> None:
        """Forget what is there."""
        os.ftruncate(self._number, 0)
        os.lseek(self._number, 0, os.SEEK_SET)
        self.size = 0

    def keep(self, *, durable: bool = False) -> None:
        """Make it the blob. Its digest was checked by the caller."""
        if durable:
            os.fsync(self._number)
        self.path.rename(self.final)
        if durable:
            files.sync_directory(self.final.parent)


@contextmanager
def claim_blob(layout: Layout, digest: str, *, stopped: Callable[[], bool], doing: str) -> Iterator[None]:
    """Be the only one, over all threads and processes, that fetches this blob. Waits; `stopped` ends the wait.

    Raises LockTimeout.
    """
    ensure_folder(layout.blobs)
    path = layout.blobs / f"{files.STAGING}{digest[7:]}.lock"
    waited = 0.0
    while True:
        try:
            held = files.lock(path, 0.25, doing=doing)
            break
        except files.LockHeld as error:
            waited += 0.25
            if stopped() or waited > _WAIT_SECONDS:
                raise LockTimeout(f"layer {digest}", error.holder) from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # Order: while the lock is held, so that nobody else's lock is removed.
        held.release()


@contextmanager
def stage_blob(layout: Layout, digest: str) -> Iterator[Staging]:
    """A staging file for a blob whose claim is held; gone after the block unless it was kept."""
    final = blob_path(layout, digest)
    path = final.with_name(files.STAGING + final.name)
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.lseek(number, 0, os.SEEK_END)
        yield Staging(path, number, final)
    finally:
        path.unlink(missing_ok=True)
        os.close(number)


def remove_stale(layout: Layout, *, dry_run: bool = False) -> Iterator[tuple[str, int]]:
    """Remove staging files that a killed pull left; name and bytes of each. The caller keeps pulls away."""
    with suppress(FileNotFoundError):
        for path in sorted(layout.blobs.glob(f"{files.STAGING}*")):
            size = path.stat().st_size
            if not dry_run:
                path.unlink(missing_ok=True)
            if path.suffix != ".lock":
                yield path.name, size


@contextmanager
def keeping_prune_away(layout: Layout) -> Iterator[None]:
    """Hold this while content comes in that no record names yet. Any number may; a prune waits for all."""
    with _turn(layout, fcntl.LOCK_SH, seconds=_WAIT_SECONDS, holder="a prune that is under way"):
        yield


@contextmanager
def keeping_pulls_away(layout: Layout) -> Iterator[None]:
    """Hold this while content goes. Raises LockTimeout where pulls are under way."""
    with _turn(layout, fcntl.LOCK_EX, seconds=_PRUNE_SECONDS, holder="a pull that is under way"):
        yield


@contextmanager
def _turn(layout: Layout, how: int, *, seconds: float, holder: str) -> Iterator[None]:
    ensure_folder(layout.blobs.parent)
    number = os.open(layout.blobs.parent / "turn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(number, how | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LockTimeout(f"the content of {layout.root}", holder) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(number)


def ensure_folder(path: Path) -> None:
    """A folder of ours, for us alone. Raises Failed."""
    try:
        files.make_folders(path)
    except OSError as error:
        raise Failed(f"make the folder {path}: {error.strerror}", hint="images are kept below the root") from error
