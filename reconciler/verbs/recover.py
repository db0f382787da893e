"""What things say of themselves, and what runs → a new database, where the old one was lost. Changes nothing else.

Containers, networks and volumes carry small files with key, spec and grants; sensitive values in them are sealed with the
root's key. Refused where there is a database.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from reconciler.converge.claim import claim_grants
from reconciler.engine.protocol import Recollection
from reconciler.engine.registry import open_engine
from reconciler.linux import cores, files
from reconciler.model.content import unpack
from reconciler.model.errors import LockTimeout, NotRoot, ReconcileError, RootError, RootInUse
from reconciler.model.key import Key, stack_of
from reconciler.model.observation import Observation, Phase, Stray
from reconciler.model.record import Made, Record, StackRecord, View
from reconciler.plan.recover import choose_records
from reconciler.store.sealed import map_sensitive
from reconciler.store.store import Store, building_store
from reconciler.verbs.root import LOCK_TIMEOUT, RUN, read_root_id

if TYPE_CHECKING:
    from reconciler.store.writing import Writing

UNKNOWN_NOW = (
    "revisions and events",
    "whose a stack is (its origin): the next apply of any manifest of that name takes it",
    "who held a container and why, and whether a rollback held a stack",
    "which images were pulled by hand: all that are here are kept",
)
"""What no thing says of itself."""


class Report(Struct, frozen=True, kw_only=True):
    """What a recovery came to."""

    records: tuple[Record, ...]
    running: int
    problems: tuple[str, ...]
    """What could not be read, or gets no record."""
    strays: tuple[Stray, ...]
    """What bears the root's id and now belongs to nobody: the next apply removes it."""


def recover(path: Path, *, engine: str = "native", lock_timeout: float = LOCK_TIMEOUT) -> Report:
    """Rebuild the database of a root. Raises RootInUse where there is one, RootError where there is no root."""
    if engine == "native" and os.geteuid() != 0:
        raise NotRoot(f"recover the root {path}")
    cores.forbid_core_dumps()
    path = path.resolve()
    root_id = read_root_id(path)
    if root_id is None:
        raise RootError(f"{path}: there is no root here (no file `id`)", hint="give the right one with --root")
    database = path / "reconcile.db"
    if database.exists():
        hint = f"if it is damaged, move it away and try again: mv {database} {database}.damaged"
        raise RootInUse(str(path), "recover", hint)
    (path / "locks").mkdir(mode=0o700, exist_ok=True)
    try:
        lock = files.lock(path / "locks" / "root", lock_timeout, doing="recover")
    except files.LockHeld as error:
        raise LockTimeout(f"root {path}", error.holder) from error
    with lock:
        opened = open_engine(engine, path, RUN, root_id)
        try:
            recalled = opened.recall()
            view = View(made=recalled.made)
            observation = opened.observe(view)
            with building_store(path) as store:
                return _fill(store, recalled, observation, [image.digest for image in opened.images.list_images()])
        finally:
            opened.close()


def _fill(store: Store, recalled: Recollection, observation: Observation, images: list[str]) -> Report:
    problems = list(recalled.unreadable)
    found = [_opened(made, store, problems) for made in recalled.made]
    chosen = choose_records(found, observation, now=time.time())
    problems += chosen.left_out
    records = {record.key: record for record in chosen.records}
    contents = _seal_contents(recalled, store)
    contents |= _own_contents(recalled.sealed, store, contents, problems)
    kept = []
    with store.write() as tx:
        tx.put_contents(contents)
        for stack in sorted({stack_of(key) for key in records}):
            tx.put_stack(StackRecord(name=stack, origin="", source="recovered"))
        for record in chosen.records:
            try:
                with tx.savepoint():
                    _put(tx, record, records)
            except ReconcileError as error:
                problems.append(f"{record.key}: {error.brief}; it gets no record, and the next apply removes it")
            else:
                kept.append(record)
        for digest in sorted(set(images) - {record.image for record in kept}):
            tx.lease(digest, "recovered")
    running = sum(record.status.get("phase") == Phase.RUNNING for record in kept)
    return Report(records=tuple(kept), running=running, problems=tuple(problems), strays=observation.strays)


def _seal_contents(recalled: Recollection, store: Store) -> dict[str, bytes]:
    """What containers have copies of, where it is what its digest says: somebody may have altered one."""
    data = {digest: unpack(value) for digest, value in recalled.contents.items()}
    return {digest: store.sealer.seal_bytes(each) for digest, each in data.items() if store.sealer.fits(digest, each)}


def _put(tx: "Writing", record: Record, records: Mapping[Key, Record]) -> None:
    claim_grants(tx, record, records)
    tx.put_record(record)
    tx.set_hold(record.key, record.hold)


def _own_contents(
    sealed: Mapping[str, bytes], store: Store, copies: Mapping[str, object], problems: list[str]
) -> dict[str, bytes]:
    """Those that were sealed with the root's key; what is neither of these nor copied in a bundle is lost."""
    kept = {}
    for digest, data in sealed.items():
        try:
            store.sealer.open_bytes(data)
        except RootError as error:
            if digest not in copies:
                problems.append(f"the content {digest[:20]}… is lost: {error.brief}")
        else:
            kept[digest] = data
    return kept


def _opened(made: Made, store: Store, problems: list[str]) -> Made:
    """With its sensitive values. Where the key is not theirs they are left empty: the next apply brings them back."""
    try:
        return map_sensitive(made, store.sealer.open)
    except RootError as error:
        problems.append(f"{made.key}: its sensitive values are lost: {error.brief}")
        return map_sensitive(made, lambda _: "")
