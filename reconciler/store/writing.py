"""One transaction that writes: everything that `Reading` has, and the verbs that change.

Each transaction is BEGIN IMMEDIATE: SQLite's write lock is had before the first look, so what was free stays free until the
commit. A deferred one that turns into a writer ends in `database is locked`, however long the timeout. Grants are
collected and written together; everything else is written as it is said, many at a time where the plural is used.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reconciler.linux import failpoint
from reconciler.linux.inotify import touch
from reconciler.model.errors import LockTimeout
from reconciler.model.events import AnyEvent
from reconciler.model.key import Key, Kind, kind_of, stack_of
from reconciler.model.record import Endpoint, Grants, Hold, Intent, Record, Stack, StackRecord
from reconciler.store import contents, events, journal, records, revisions
from reconciler.store.database import write_serial
from reconciler.store.pools import Pools
from reconciler.store.reading import Reading
from reconciler.store.rows import KEPT, Grant
from reconciler.store.sealed import Sealer


class Writing(Reading):
    """A transaction that holds the write lock. Made by `Store.write`; not to be used after its `with`."""

    def __init__(self, sql: sqlite3.Connection, sealer: Sealer, *, root: Path) -> None:
        super().__init__(sql, sealer)
        self._root = root
        self.told = False
        """Whether events were written."""
        self._pools = Pools(sql)
        self._serial = 0
        self._bumped: set[str] = set()

    @property
    def changed(self) -> int:
        """The serial of this transaction, 0 where it changed no record."""
        return self._serial

    # Stacks and records

    def put_stack(self, stack: StackRecord) -> None:
        """Write a stack's origin, source and revision. Its serial is the store's, see `bump`."""
        records.put_stack(self._sql, stack)
        self.bump(stack.name)

    def delete_stack(self, name: str) -> None:
        """Remove a stack and its revisions. Raises Failed where it has records still."""
        records.delete_stack(self._sql, name)
        self._bumped.discard(name)

    def bump(self, stack: str) -> int:
        """Say that a stack's records changed; the serial of this transaction. Every verb below that changes a record's
        spec, grants or hold does it itself."""
        if not self._serial:
            self._serial = records.next_serial(self._sql)
        if stack not in self._bumped:
            records.mark_stack(self._sql, stack, self._serial)
            self._bumped.add(stack)
        return self._serial

    def put_record(self, record: Record) -> None:
        """`put_records` for one."""
        self.put_records([record])

    def put_records(self, new: Sequence[Record]) -> None:
        """Write records, new or not; their stacks must be there. Not taken from them: `serial`, which is this
        transaction's, `hold` (see `set_hold`: an apply must not undo a stop that came while it ran), `unfinished`."""
        for record in new:
            self.bump(stack_of(record.key))
        records.put_records(self._sql, new, serial=self._serial, sealer=self._sealer)

    def put_statuses(self, statuses: Mapping[Key, Mapping[str, Any]]) -> None:
        """Write last outcomes of records alone. Changes no serial: what was only seen makes no plan stale."""
        records.put_statuses(self._sql, statuses, self._sealer)

    def delete_record(self, key: Key) -> None:
        """Remove a record with its hold and all its grants; with a volume or a network, what is reserved because of it."""
        self._pools.free(key)
        records.delete_record(self._sql, key)
        if kind_of(key) is Kind.VOLUME:
            self._pools.end_reservations_of(key)
        elif kind_of(key) is Kind.NETWORK:
            self._pools.forget_network(key)
        self.bump(stack_of(key))

    def scale_away(self, key: Key, endpoints: Mapping[Key, Endpoint], volumes: Sequence[Key]) -> None:
        """Remove a container's record as `delete_record` does; its addresses and MACs (`endpoints` by network) stay its own
        until those volumes, that network or its stack are deleted."""
        self._pools.reserve(key, endpoints, volumes)
        records.delete_record(self._sql, key)
        self.bump(stack_of(key))

    def set_hold(self, key: Key, hold: Hold | None) -> None:
        """Hold a record, or let it go. Raises Failed where there is no such record."""
        records.set_hold(self._sql, key, hold)
        self.bump(stack_of(key))

    # Grants: a key may be given again what it holds

    def grant_address(
        self, network: Key, owner: Key, subnet: str, gateway: str, wanted: str | None = None, *, fresh: bool = False
    ) -> str:
        """An address on a network: the wanted one, else the one that the owner holds in this subnet, else the lowest free.

        With `fresh` the owner gets another one besides what it holds. Raises AddressTaken, AddressesUsedUp.
        """
        return self._pools.give_address(network, owner, subnet=subnet, gateway=gateway, wanted=wanted, fresh=fresh)

    def grant_subnet(self, network: Key, subnet: str) -> None:
        """Raises SubnetTaken where it overlaps a subnet of another network."""
        self._pools.give_subnet(network, subnet)

    def grant_link(self, name: str, owner: Key) -> None:
        """A kernel link's name, root-wide. Raises NameTaken where another key holds it."""
        self._pools.give("link", name, owner)

    def grant_mac(self, mac: str, owner: Key) -> None:
        """A MAC address, in lower case. Raises NameTaken where another key holds it."""
        self._pools.give("mac", mac, owner)

    def reserved_mac(self, network: Key, owner: Key) -> str:
        """The MAC that a key had on a network when it was scaled away, empty where there is none."""
        return self._pools.reserved_mac(network, owner)

    def withdraw_grants(self, owner: Key) -> None:
        """Take back all that a key was given and that did not come to be, but what was reserved for it before."""
        self._pools.withdraw(owner)

    def end_reservations(self, stack: str) -> None:
        """Free what is reserved for containers of a stack that were scaled away: the stack is deleted."""
        self._pools.end_reservations_in(stack)

    def grant_volume_id(self, volume_id: str, owner: Key) -> None:
        """The generated id of a volume's folder. Raises NameTaken where another key holds it."""
        self._pools.give("volume", volume_id, owner)

    def grant_ports(self, owner: Key, ports: Iterable[str]) -> None:
        """Host ports, `HOST_IP:PORT/PROTO`. Raises PortTaken naming the key that holds one; then none of them is given."""
        self._pools.give_ports(owner, ports)

    def pass_grants(self, owner: Key, *, to: Key) -> None:
        """Let everything that a key holds go over to another one."""
        self._pools.pass_on(owner, to)

    def free_grants(self, owner: Key, *, keep: Grants | None = None, ports: Iterable[str] = ()) -> None:
        """Take back all that a key holds but what `keep` names and these host ports: after a replace those of the record
        that stays."""
        self._pools.free(owner, keep=keep or Grants(), ports=ports)

    def grants_of(self, owner: Key) -> list[Grant]:
        """All that a key holds, this transaction's included."""
        self._pools.flush()
        return super().grants_of(owner)

    def grants_in(self, pool: str, scope: str | None = None) -> list[Grant]:
        """All grants of a pool, this transaction's included."""
        self._pools.flush()
        return super().grants_in(pool, scope)

    def holder(self, pool: str, value: str, *, scope: str = "") -> Key | None:
        """Who holds one thing, this transaction's grants included."""
        return self._pools.holder(pool, scope, value)

    # Journal

    def put_intent(self, intent: Intent) -> int:
        """`put_intents` for one."""
        return self.put_intents([intent])[0]

    def put_intents(self, intents: Sequence[Intent]) -> list[int]:
        """Write intents; their ids in the same order."""
        return journal.put_intents(self._sql, intents, self._sealer)

    def finish_intent(self, number: int) -> None:
        """`finish_intents` for one."""
        self.finish_intents([number])

    def finish_intents(self, numbers: Sequence[int]) -> None:
        """Remove intents whose outcome is recorded; one that is gone already is no error."""
        journal.finish_intents(self._sql, numbers)

    def drop_owed_restarts(self, keys: Sequence[Key]) -> None:
        """Remove intents to restart these: what the caller, who has the stack's lock, begins of them makes up for it."""
        journal.drop_owed_restarts(self._sql, keys)

    # Contents

    def put_contents(self, sealed: Mapping[str, bytes]) -> None:
        """Keep what is in files, by digest, sealed by `Sealer.seal_bytes`: that takes time which no lock should."""
        contents.put_contents(self._sql, sealed)

    def drop_unused_contents(self) -> int:
        """Drop contents that nothing recorded names any more; how many went."""
        return contents.drop_unused(self._sql)

    # Revisions, images, events

    def add_revision(
        self,
        wanted: Stack,
        *,
        images: Mapping[Key, str],
        who: str,
        at: float,
        summary: Mapping[str, int],
        keep: int = KEPT,
    ) -> int:
        """Write the next revision of a stack that is on record; its number. The stack's own `revision` is `put_stack`'s.

        Of those before it, `keep` less one stay (`drop_revisions`).
        """
        return revisions.add_revision(
            self._sql, wanted, images=images, who=who, at=at, summary=summary, sealer=self._sealer, keep=keep
        )

    def drop_revisions(self, stack: str, *, keep: int) -> int:
        """Drop all revisions of a stack but the newest `keep`, the last that was reached and the last that a manifest
        made; how many went. Images and contents that only they named are free to go."""
        return revisions.drop_revisions(self._sql, stack, keep=keep)

    def finish_revision(self, stack: str, number: int, *, result: str) -> None:
        """Say how the apply of a revision ended."""
        revisions.finish_revision(self._sql, stack, number, result=result)

    def lease(self, digest: str, name: str) -> None:
        """Keep an image because somebody pulled, loaded or built it under this name."""
        revisions.lease(self._sql, digest, name)

    def drop_lease(self, digest: str, name: str | None = None) -> None:
        """Keep an image no more because of a name, or of any name."""
        revisions.drop_lease(self._sql, digest, name)

    def add_events(self, new: Sequence[AnyEvent], *, at: float, stack: str = "") -> None:
        """Write events. `at` is for those without a time of their own, `stack` for those of no resource."""
        self.told = True
        retention = events.read_retention(self._root)
        events.add_events(self._sql, new, at=at, stack=stack, sealer=self._sealer, retention=retention)

    def shrink_events(self) -> bool:
        """Forget some of the oldest events where they are larger than is kept; whether there may be more to forget."""
        return events.shrink_events(self._sql, events.read_retention(self._root))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of the transaction that an error takes back alone; the error goes on to the caller."""
        self._pools.flush()
        serial, bumped = self._serial, set(self._bumped)
        self._sql.execute("SAVEPOINT part")
        try:
            yield
            self._pools.flush()
        except BaseException:
            # SQLite ends the whole transaction by itself where the disk is full or fails.
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK TO part")
                self._sql.execute("RELEASE part")
            self._pools.forget()
            self._serial, self._bumped = serial, bumped
            raise
        self._sql.execute("RELEASE part")

    def flush(self) -> None:
        """Write what was collected."""
        self._pools.flush()


class Writer:
    """The one connection of a store that writes. Threads take turns at it."""

    def __init__(self, sql: sqlite3.Connection, path: Path, *, timeout: float) -> None:
        self._sql = sql
        self._path = path
        self._timeout = timeout
        self._turn = threading.Lock()

    @contextmanager
    def transaction(self, sealer: Sealer) -> Iterator[Writing]:
        """Begin immediately; commit at the end, roll back on any error."""
        # Race: SQLite would make threads poll for its lock; this one wakes them in turn.
        if not self._turn.acquire(timeout=self._timeout):
            raise LockTimeout(f"the database {self._path}", "another thread of this process")
        try:
            self._sql.execute("BEGIN IMMEDIATE")
            writing = Writing(self._sql, sealer, root=self._path.parent)
            yield writing
            writing.flush()
            with failpoint.change("commit"):
                self._sql.commit()
            if writing.changed:
                write_serial(self._path, writing.changed)
            if writing.told:
                with suppress(OSError):  # Who follows them looks again after a while all the same.
                    touch(self._path)
        finally:
            self._sql.rollback()
            self._turn.release()

    def close(self) -> None:
        """Let go of the connection."""
        self._sql.close()
