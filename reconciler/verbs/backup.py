"""A root → one tar file: what is recorded, the key, the id, and on request the data of volumes. While everything runs.

    manifest.json     format, version, root id, time, host, schema, stacks, volumes      first
    reconcile.db      the whole database, of one moment
    key               what sensitive values are sealed with
    keys/age.txt      what encrypted files are opened with, where `manifest.json` says that there are keys
    volumes/ID/…      volume.json and data/, for each volume with data
    end.json          how many entries there were                                        last: a cut archive lacks it

`restore.py` reads it. Not in it: images (they are pulled again by their digests), writable layers, logs.
"""

import io
import os
import socket
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec import Struct

from reconciler import __version__
from reconciler.converge.view import made_of
from reconciler.linux import files
from reconciler.model.errors import Failed
from reconciler.model.events import Emit, Note
from reconciler.model.key import Key, Kind, kind_of, stack_of
from reconciler.model.observation import Phase
from reconciler.model.record import Record, View
from reconciler.model.spec import ImageSpec
from reconciler.store.database import SCHEMA_VERSION
from reconciler.store.store import copy_database, open_copy
from reconciler.verbs.agekeys import FILE
from reconciler.verbs.root import Root

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT, VERSION = "reconcile-backup", 1
MANIFEST, DATABASE, KEY, AGE_KEYS, END = "manifest.json", "reconcile.db", "key", str(FILE), "end.json"
_BUFFER = 1 << 20


class BackupManifest(Struct, frozen=True, kw_only=True):
    """`manifest.json`"""

    format: str
    version: int
    """Of the archive's form; a reader refuses a larger one."""
    root_id: str
    at: float
    host: str
    reconcile: str
    schema: int
    """Of the database."""
    stacks: tuple[str, ...]
    volumes: dict[str, Key]
    """Id to key of the volumes whose data is in the archive."""
    age_keys: bool = False


class BackedUp(Struct, frozen=True, kw_only=True):
    """What a backup came to."""

    manifest: BackupManifest
    size: int
    """Bytes of the archive."""
    records: int
    left_out: tuple[str, ...]
    """What of the volumes could not go along: devices, sockets, mounts."""
    unfetchable: tuple[Key, ...]
    """Images that no registry gives again."""


def backup(root: Root, target: Path | BinaryIO, *, volumes: bool, emit: Emit) -> BackedUp:
    """Write a backup to a file (0600, whole or not at all) or into a stream. Changes nothing. Raises Failed, RootError."""
    if not root.root_id:
        raise Failed(f"{root.path}: there is nothing to back up: no root", hint="give the right one with --root")
    if not isinstance(target, Path):
        return _write(root, target, volumes=volumes, emit=emit)
    if target.is_dir():
        raise Failed(f"{target}: this is a folder", hint="give the name of a file, or - for the standard output")
    staged = target.with_name(files.staging_name(target.name))
    try:
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", _BUFFER) as file:
            done = _write(root, file, volumes=volumes, emit=emit)
            file.flush()
            os.fsync(file.fileno())
        staged.rename(target)
        files.sync_directory(target.parent)
    except OSError as error:
        raise Failed(f"{target}: write the backup: {error.strerror}", hint="see whether there is room for it") from error
    finally:
        staged.unlink(missing_ok=True)
    return done


def _write(root: Root, file: BinaryIO, *, volumes: bool, emit: Emit) -> BackedUp:
    database = copy_database(root.path)
    with open_copy(root.path, database).read() as tx:
        records = tuple(tx.records().values())
    found = _with_data(root, records) if volumes else []
    manifest = BackupManifest(
        format=FORMAT,
        version=VERSION,
        root_id=root.root_id,
        at=time.time(),
        host=socket.gethostname(),
        reconcile=__version__,
        schema=SCHEMA_VERSION,
        stacks=tuple(sorted({stack_of(record.key) for record in records})),
        volumes={record.grants.volume_id: record.key for record in found},
        age_keys=bool(root.age_keys.read()),
    )
    counted = _Counted(file)
    left_out: list[str] = []
    with tarfile.open(mode="w|", fileobj=counted, format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as tar:
        _add(tar, MANIFEST, msgspec.json.encode(manifest))
        _add(tar, DATABASE, database)
        _add(tar, KEY, (root.path / "key").read_bytes())
        if manifest.age_keys:
            _add(tar, AGE_KEYS, root.age_keys.path.read_bytes())
        for record in found:
            emit(Note(key=record.key, text="copying its data"))
            left_out += root.engine.volumes.pack(made_of(record), tar)
        _add(tar, END, msgspec.json.encode({"volumes": len(found)}))
    return BackedUp(
        manifest=manifest,
        size=counted.size,
        records=len(records),
        left_out=tuple(left_out),
        unfetchable=tuple(record.key for record in records if isinstance(record.spec, ImageSpec) and record.spec.archive),
    )


def _with_data(root: Root, records: Sequence[Record]) -> list[Record]:
    """The volumes that are there."""
    found = [record for record in records if kind_of(record.key) is Kind.VOLUME]
    seen = root.engine.observe(View(made=tuple(made_of(record) for record in found))).statuses
    return [record for record in found if seen[record.key].phase is Phase.PRESENT]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
    tar.addfile(info, io.BytesIO(data))


class _Counted(io.RawIOBase):
    """Counts what goes through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0

    def write(self, data: "Buffer", /) -> int:
        """On to the file."""
        self.size += len(memoryview(data))
        return self._file.write(data)
