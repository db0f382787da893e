"""Everything that is read, as plain SQL over the driver's own connection: rows in, structs of the model out.

Why not through SQLAlchemy: importing it takes longer than all else that `get`, or an `apply` with nothing to do, does
(numbers in docs/decisions/0061). A reading sees one moment of the database, from first to last statement. Never writes.
"""

import gc
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import msgspec

from reconciler.model.events import AnyEvent
from reconciler.model.key import Key
from reconciler.model.record import Grants, Hold, Intent, Record, Stack, StackRecord
from reconciler.model.spec import Spec
from reconciler.store.contents import find_unused
from reconciler.store.rows import Grant, Lease, Revision, StoredEvent
from reconciler.store.sealed import Sealer, is_plain, plain_spec, unsealed, unsealed_spec

_RECORD = "SELECT key, spec, image, grants, incarnation, status, serial, created_at FROM records"
_REVISION = "SELECT stack, number, at, who, source, summary, result FROM revisions"

_decode_grants = msgspec.json.Decoder(Grants).decode
_decode_hold = msgspec.json.Decoder(Hold).decode
_decode_status = msgspec.json.Decoder(dict[str, Any]).decode
_decode_summary = msgspec.json.Decoder(dict[str, int]).decode
_decode_event = msgspec.json.Decoder(AnyEvent).decode

_NO_GRANTS = Grants()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Make many objects that all stay without the collector looking through them again and again: a third of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_LARGEST = 2**63 - 1
"""Of SQLite's integers; who asks through a socket may name any number."""


class Reading:
    """One moment of the database. Made by `Store.read`; not to be used after its `with`."""

    def __init__(self, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self._sql = connection
        self._sealer = sealer

    def records(self, stacks: Sequence[str] | None = None) -> dict[Key, Record]:
        """Records by key, in the order of keys: of the stacks named, or all. With holds and unfinished intents laid in."""
        holds, unfinished = self.holds(), self._unfinished()
        rows = self._rows(_RECORD, stacks)
        with _no_collection():
            return {row[0]: self._record(row, holds, unfinished) for row in rows}

    def record(self, key: Key) -> Record | None:
        """The record of one key."""
        row = self._sql.execute(f"{_RECORD} WHERE key = ?", (key,)).fetchone()
        return self._record(row, self.holds(key), self._unfinished(key)) if row else None

    def holds(self, key: Key | None = None) -> dict[Key, Hold]:
        """Holds by key: all, or that of one key."""
        rows = self._sql.execute("SELECT key, kind, who, at, why FROM holds WHERE key = ?1 OR ?1 IS NULL", (key,))
        return {key: Hold(kind=kind, who=who, when=at, why=why) for key, kind, who, at, why in rows}

    def stacks(self) -> dict[str, StackRecord]:
        """All stacks, by name."""
        rows = self._sql.execute("SELECT name, origin, source, serial, revision, hold FROM stacks ORDER BY name")
        return {
            name: StackRecord(
                name=name,
                origin=origin,
                source=source,
                serial=serial,
                revision=revision,
                hold=_decode_hold(hold) if hold else None,
            )
            for name, origin, source, serial, revision, hold in rows
        }

    def serial(self) -> int:
        """The root's serial: grows with every transaction that changes what is recorded."""
        return int(self._sql.execute("SELECT serial FROM root").fetchone()[0])

    def intents(self, stacks: Sequence[str] | None = None) -> list[Intent]:
        """Open intents, oldest first: of the stacks named, or all."""
        rows = self._rows("SELECT id, data FROM intents", stacks)
        found = [msgspec.structs.replace(unsealed(data, Intent, self._sealer), id=number) for number, data in rows]
        return sorted(found, key=lambda intent: intent.id)

    def grants_of(self, owner: Key) -> list[Grant]:
        """All that a key holds."""
        rows = self._sql.execute("SELECT pool, scope, value, owner FROM grants WHERE owner = ?", (owner,))
        return [Grant(pool=pool, scope=scope, value=value, owner=key) for pool, scope, value, key in rows]

    def grants_in(self, pool: str, scope: str | None = None) -> list[Grant]:
        """All grants of a pool, or of one scope of it."""
        sql, values = "SELECT pool, scope, value, owner FROM grants WHERE pool = ?", [pool]
        if scope is not None:
            sql, values = sql + " AND scope = ?", [pool, scope]
        return [Grant(pool=p, scope=s, value=value, owner=key) for p, s, value, key in self._sql.execute(sql, values)]

    def holder(self, pool: str, value: str, *, scope: str = "") -> Key | None:
        """Who holds one thing."""
        sql = "SELECT owner FROM grants WHERE pool = ? AND scope = ? AND value = ?"
        row = self._sql.execute(sql, (pool, scope, value)).fetchone()
        return row[0] if row else None

    def taken_subnets(self) -> list[str]:
        """All subnets that are given away."""
        return [grant.value for grant in self.grants_in("subnet")]

    def revisions(self, stack: str) -> list[Revision]:
        """The revisions of a stack, oldest first, without what they wanted."""
        rows = self._sql.execute(f"{_REVISION} WHERE stack = ? ORDER BY number", (stack,)).fetchall()
        return [self._revision(row) for row in rows]

    def last_results(self) -> dict[str, str]:
        """What the last revision of each stack came to."""
        rows = self._sql.execute("SELECT stack, result, max(number) FROM revisions GROUP BY stack")
        return {stack: result for stack, result, _ in rows}

    def revision(self, stack: str, number: int) -> Revision | None:
        """One revision with the stack that it wanted."""
        row = self._sql.execute(f"{_REVISION} WHERE stack = ? AND number = ?", (stack, number)).fetchone()
        if row is None:
            return None
        sql = "SELECT wanted FROM revisions WHERE stack = ? AND number = ?"
        (wanted,) = self._sql.execute(sql, (stack, number)).fetchone()
        return msgspec.structs.replace(self._revision(row), wanted=unsealed(wanted, Stack, self._sealer))

    def whole_revisions(self, stack: str) -> list[Revision]:
        """The revisions of a stack, oldest first, each with the stack that it wanted."""
        rows = self._sql.execute("SELECT number, wanted FROM revisions WHERE stack = ?", (stack,)).fetchall()
        wanted = {number: unsealed(data, Stack, self._sealer) for number, data in rows}
        return [msgspec.structs.replace(one, wanted=wanted[one.number]) for one in self.revisions(stack)]

    def used_digests(self) -> set[str]:
        """Digests of images that a record, an open intent, a revision or a lease names."""
        rows = self._sql.execute(
            "SELECT image FROM records UNION SELECT image FROM intents"
            " UNION SELECT digest FROM revision_images UNION SELECT digest FROM leases"
        )
        return {digest for (digest,) in rows if ":" in digest}

    def content(self, digest: str) -> bytes | None:
        """What is kept under a digest, opened; None where nothing is."""
        row = self._sql.execute("SELECT data FROM contents WHERE digest = ?", (digest,)).fetchone()
        return self._sealer.open_bytes(row[0]) if row else None

    def sealed_contents(self, digests: Iterable[str]) -> dict[str, bytes]:
        """What is kept under digests, as it is kept: sealed."""
        found = ((digest, self._sql.execute("SELECT data FROM contents WHERE digest = ?", (digest,))) for digest in digests)
        return {digest: row[0] for digest, rows in found if (row := rows.fetchone())}

    def kept_contents(self) -> set[str]:
        """The digests of all contents that are kept."""
        return {digest for (digest,) in self._sql.execute("SELECT digest FROM contents")}

    def unused_contents(self) -> set[str]:
        """The digests of contents that nothing recorded names any more."""
        return find_unused(self._sql)

    def leases(self) -> list[Lease]:
        """Images kept by hand, by digest and name."""
        rows = self._sql.execute("SELECT digest, name FROM leases ORDER BY digest, name")
        return [Lease(digest=digest, name=name) for digest, name in rows]

    def events(self, since: int = 0, *, stack: str | None = None, at: float = 0.0, limit: int = 1000) -> list[StoredEvent]:
        """Events with a larger id than `since` that happened at `at` or later, oldest first, `limit` at most; where neither
        is given the newest ones."""
        since = max(0, min(since, _LARGEST))
        where = "id > ?"
        values: list[int | float | str] = [since]
        if stack is not None:
            where, values = f"{where} AND stack = ?", [*values, stack]
        if at:
            where, values = f"{where} AND at >= ?", [*values, at]
        order = "ASC" if since or at else "DESC"
        sql = f"SELECT id, at, stack, key, data FROM events WHERE {where} ORDER BY id {order} LIMIT ?"
        rows = sorted(self._sql.execute(sql, (*values, limit)).fetchall())
        return [
            StoredEvent(id=number, at=at, stack=name, key=key, event=_decode_event(data))
            for number, at, name, key, data in rows
        ]

    def _rows(self, select: str, stacks: Sequence[str] | None) -> list[tuple[Any, ...]]:
        """A select over all stacks or some, by the order of its table's key."""
        if stacks is None:
            return self._sql.execute(f"{select} ORDER BY 1").fetchall()
        marks = ",".join("?" * len(stacks))
        return self._sql.execute(f"{select} WHERE stack IN ({marks}) ORDER BY 1", tuple(stacks)).fetchall()

    def _unfinished(self, key: Key | None = None) -> dict[Key, str]:
        rows = self._sql.execute("SELECT key, verb FROM intents WHERE key = ?1 OR ?1 IS NULL ORDER BY id", (key,))
        return dict(rows.fetchall())

    def _record(self, row: tuple[Any, ...], holds: dict[Key, Hold], unfinished: dict[Key, str]) -> Record:
        key, data = row[0], row[1]
        record = _plain_record(row) if is_plain(data) else _build_record(row, unsealed_spec(key, data, self._sealer))
        if key in holds or key in unfinished:
            return msgspec.structs.replace(record, hold=holds.get(key), unfinished=unfinished.get(key, ""))
        return record

    def _revision(self, row: tuple[Any, ...]) -> Revision:
        stack, number, at, who, source, summary, result = row
        sql = "SELECT key, digest FROM revision_images WHERE stack = ? AND number = ? ORDER BY key"
        return Revision(
            stack=stack,
            number=number,
            at=at,
            who=who,
            source=source,
            summary=_decode_summary(summary),
            images=dict(self._sql.execute(sql, (stack, number)).fetchall()),
            result=result,
        )


@lru_cache(maxsize=16384)
def _plain_record(row: tuple[Any, ...]) -> Record:
    """One in which nothing is sealed: an apply reads those of all stacks again with each of its waves."""
    return _build_record(row, plain_spec(row[0], row[1]))


def _build_record(row: tuple[Any, ...], spec: Spec) -> Record:
    key, _, image, grants, incarnation, status, serial, created_at = row
    return Record(
        key=key,
        spec=spec,
        image=image,
        grants=_NO_GRANTS if grants == b"{}" else _decode_grants(grants),
        incarnation=incarnation,
        status={} if status == b"{}" else _decode_status(status),
        serial=serial,
        created_at=created_at,
    )
