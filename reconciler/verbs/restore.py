"""A backup → a new root. Into an empty place only: it never writes over anything.

The root gets an id of its own, for the one that was backed up may still be on this machine: all kernel names carry the id,
so links are renamed in the records. Addresses, MACs, ports and volume ids stay. The archive may be anybody's.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec import Struct, structs

from reconciler.converge.claim import claim_grants
from reconciler.converge.view import made_of
from reconciler.engine.protocol import Engine, Unpacker
from reconciler.engine.registry import open_engine
from reconciler.engine.tarentry import FILE, Entry, Limits, printable
from reconciler.engine.tarstream import TarStream
from reconciler.linux import files
from reconciler.model.errors import ContentError, Failed, NotRoot, RootError, RootInUse
from reconciler.model.events import silent
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.record import Grants, Record
from reconciler.store.database import SCHEMA_VERSION
from reconciler.store.store import Store, building_store
from reconciler.verbs.agekeys import AgeKeys
from reconciler.verbs.backup import AGE_KEYS, DATABASE, END, FORMAT, KEY, MANIFEST, VERSION, BackupManifest
from reconciler.verbs.root import RUN, new_root_id, write_root_id

if TYPE_CHECKING:
    from reconciler.store.writing import Writing

_OURS = ("id", "key", "keys", "reconcile.db", "volumes", "containers", "content", "layers", "images", "networks")
"""What a place that is free for a root has nothing of."""
_LIMITS = Limits(entries=1 << 40, names=1 << 40, size=1 << 60, holes=1 << 60, seconds=1 << 40)
"""A backup is as large as the volumes; each name and header is bounded as ever."""
_HEAD = 1 << 30
"""Bytes of the largest database that is taken."""
_CHUNK = 1 << 20


class Restored(Struct, frozen=True, kw_only=True):
    """What a restore came to."""

    manifest: BackupManifest
    root_id: str
    volumes: tuple[Key, ...]
    """With their data."""
    empty: tuple[Key, ...]
    """Volumes on record whose data was not in the archive."""
    old_runs: bool
    """Something of the old root is in this machine's /run still."""


def restore(path: Path, source: BinaryIO, *, what: str, engine: str = "native") -> Restored:
    """Make a root of a backup. Raises RootInUse where there is something, ContentError for what is no backup or a cut one,
    RootError for one of a newer version; then nothing is left."""
    if engine == "native" and os.geteuid() != 0:
        raise NotRoot(f"restore the root {path}")
    path = path.resolve()
    taken = [name for name in _OURS if (path / name).exists()]
    if taken:
        hint = f"give another --root, or move this one away when nothing of it runs: mv {path} {path}.old"
        raise RootInUse(str(path), "restore", hint)
    made = not path.exists()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _restore(path, source, what=what, engine=engine)
    except OSError as error:
        raise Failed(f"{path}: restore: {error.strerror or error}", hint="see whether there is room for it") from error
    finally:
        if made:
            with suppress(OSError):  # ENOTEMPTY: it is a root now.
                path.rmdir()


def _restore(path: Path, source: BinaryIO, *, what: str, engine: str) -> Restored:
    stream = TarStream(_chunks(source, what), what=what, limits=_LIMITS)
    entries = stream.entries()
    manifest = _read_manifest(stream, entries)
    database = _read_head(stream, entries, DATABASE)
    key = _read_head(stream, entries, KEY)
    age_keys = _read_head(stream, entries, AGE_KEYS) if manifest.age_keys else b""
    root_id = new_root_id()
    with building_store(path, image=database, key=key) as store:
        records = _rename(store, manifest.root_id, root_id)
        volumes = {record.grants.volume_id: record for record in records if kind_of(record.key) is Kind.VOLUME}
        staged = path / files.staging_name("restore")
        staged.mkdir(mode=0o700)
        try:
            with closing(open_engine(engine, staged, RUN, root_id)) as opened:
                filled = _fill_volumes(stream, entries, opened, volumes)
            if filled:
                (staged / "volumes").rename(path / "volumes")
        finally:
            files.remove_tree(staged)
        if age_keys:
            AgeKeys(path).add(age_keys.decode(errors="replace"), stream.what)
        # Order: the database last, when the `with` ends: a root with an id and without a database is refused by all.
        write_root_id(path, root_id)
    return Restored(
        manifest=manifest,
        root_id=root_id,
        volumes=tuple(filled),
        empty=tuple(record.key for record in volumes.values() if record.key not in filled),
        old_runs=(RUN / manifest.root_id).exists(),
    )


def _chunks(source: BinaryIO, what: str) -> Iterator[bytes]:
    try:
        while chunk := source.read(_CHUNK):
            yield chunk
    except OSError as error:
        raise Failed(f"{what}: read the backup: {error.strerror}") from error


# ---------------------------------------------------------------- the head


def _read_manifest(stream: TarStream, entries: Iterator[Entry]) -> BackupManifest:
    try:
        manifest = msgspec.json.decode(_read_head(stream, entries, MANIFEST), type=BackupManifest)
    except msgspec.MsgspecError as error:
        raise stream.broken("a backup's manifest.json", str(error)) from error
    if manifest.format != FORMAT:
        raise stream.broken(f"the format {FORMAT}", repr(manifest.format))
    if manifest.version > VERSION or manifest.schema > SCHEMA_VERSION:
        raise RootError(
            f"{stream.what}: made by a newer reconcile ({manifest.reconcile}, schema {manifest.schema}; this one knows "
            f"{SCHEMA_VERSION})",
            hint="restore it with that version, or a newer one",
        )
    return manifest


def _read_head(stream: TarStream, entries: Iterator[Entry], name: str) -> bytes:
    """The next entry, which must be this small file."""
    entry = next(entries, None)
    if entry is None or entry.name != name.encode() or entry.type != FILE:
        found = f'"{printable(entry.name)}"' if entry else "the end"
        raise stream.broken(f"a backup of reconcile, with {name} at this place", found)
    if entry.size > _HEAD:
        raise stream.broken(f"{name} of at most {_HEAD} bytes", f"{entry.size}")
    return b"".join(map(bytes, stream.data()))


# ---------------------------------------------------------------- records


def _rename(store: Store, old: str, new: str) -> list[Record]:
    """The records with links that bear the new id. What was being done at the moment of the backup is forgotten."""
    with store.write() as tx:
        intents = tx.intents()
        tx.finish_intents([intent.id for intent in intents])
        records = {
            key: structs.replace(record, grants=_renamed(record.grants, old, new)) for key, record in tx.records().items()
        }
        for key in {*records, *(intent.key for intent in intents)}:
            tx.free_grants(key)
        for record in records.values():
            _put(tx, record, records)
    return list(records.values())


def _put(tx: "Writing", record: Record, records: Mapping[Key, Record]) -> None:
    claim_grants(tx, record, records)
    tx.put_record(record)


def _renamed(grants: Grants, old: str, new: str) -> Grants:
    def rename(link: str) -> str:
        return f"{link[0]}{new}{link[1 + len(old) :]}" if link[1:].startswith(old) else link

    endpoints = {name: structs.replace(end, link=rename(end.link)) for name, end in grants.endpoints.items()}
    return structs.replace(grants, link=rename(grants.link), endpoints=endpoints)


# ---------------------------------------------------------------- volumes


def _fill_volumes(stream: TarStream, entries: Iterator[Entry], engine: Engine, volumes: Mapping[str, Record]) -> list[Key]:
    """Put back the data of the volumes that follow, one after another; the keys of those."""
    filled: list[Key] = []
    now, unpacker = "", None
    try:
        for entry in entries:
            if entry.name == END.encode():
                if unpacker:
                    unpacker.finish()
                _check_end(stream, len(filled))
                return filled
            volume_id = _volume_id(stream, entry)
            if volume_id != now:
                if unpacker:
                    done, unpacker = unpacker, None
                    with closing(done):
                        done.finish()
                now, unpacker = volume_id, _begin_volume(stream, engine, volumes, volume_id)
                filled.append(volumes[volume_id].key)
            assert unpacker is not None
            unpacker.take(entry, stream.data())
    finally:
        if unpacker:
            unpacker.close()
    raise stream.broken("end.json at its end", "none: it was cut")


def _volume_id(stream: TarStream, entry: Entry) -> str:
    parts = entry.name.split(b"/")
    if len(parts) < 3 or parts[0] != b"volumes":
        raise stream.broken("an entry of a volume", "another", entry.name)
    return parts[1].decode("ascii", "replace")


def _begin_volume(stream: TarStream, engine: Engine, volumes: Mapping[str, Record], volume_id: str) -> Unpacker:
    record = volumes.get(volume_id)
    if record is None:
        raise stream.broken("volumes that are on record", f"{volume_id!a}")
    made = made_of(record)
    engine.volumes.create(made, uses={}, emit=silent)
    return engine.volumes.unpack(made)


def _check_end(stream: TarStream, count: int) -> None:
    try:
        said = msgspec.json.decode(b"".join(map(bytes, stream.data())), type=dict[str, int])
    except msgspec.MsgspecError as error:
        raise stream.broken("what end.json says", str(error)) from error
    if said.get("volumes") != count:
        raise ContentError(stream.what, f"{said.get('volumes')} volumes", f"{count}")
