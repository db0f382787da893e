"""Attach to a container that runs, and wait for containers to end."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from msgspec import Struct

from reconciler.converge.view import made_of
from reconciler.engine.protocol import Attached, Streams
from reconciler.model.errors import Failed, ReconcileError
from reconciler.model.key import Key, full_name
from reconciler.model.observation import Phase, Status
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec
from reconciler.verbs.names import find_containers, find_one
from reconciler.verbs.record import recorded
from reconciler.verbs.root import Root

_AT_ONCE = 5.0
"""Seconds of one wait: then it is looked anew at which incarnation the key has, and whether anybody waits."""


def _stays() -> bool:
    return False


class Ended(Struct, frozen=True, kw_only=True):
    """How one wait ended: the exit code, or why there is none to wait for."""

    key: Key
    exit_code: int | None = None
    error: ReconcileError | None = None
    note: str = ""
    """What is to be known beside it: a hold."""


def attach(root: Root, name: str, *, stdin: bool, keys: bytes, signals: bool, streams: Streams | None = None) -> Attached:
    """Join a container's streams until it ends or is let go. Raises Failed for one that does not run."""
    with root.store.read() as tx:
        records = tx.records()
    found = find_containers(records, name)
    states = root.engine.containers.states([made_of(record) for record in found])
    record = find_one(records, name, {one.key: states[one.incarnation] for one in found})
    assert isinstance(record.spec, ContainerSpec)
    if states[record.incarnation].phase is Phase.PAUSED:
        raise Failed(f"{record.key}: attach: it is paused", hint=f"reconcile unpause {full_name(record.key)}")
    with recorded(root, "attach", record.key), closing(root.engine.inside.attach(made_of(record))) as line:
        return line.relay(stdin=stdin and record.spec.stdin, keys=keys, signals=signals, streams=streams)


def wait(root: Root, names: Sequence[str], *, stop: Callable[[], bool] = _stays) -> Iterator[Ended]:
    """Wait for each to end, in the order given; one that has ended already ends its wait at once. Ends early, some seconds
    after `stop()` is true. Raises NotFound."""
    with root.store.read() as tx:
        records = tx.records()
    wanted = [record for name in names for record in find_containers(records, name)]
    for record in wanted:
        ended = _wait_for(root, record, stop)
        if ended is None:
            return
        yield ended


def _wait_for(root: Root, record: Record, stop: Callable[[], bool]) -> Ended | None:
    """Wait for a key: one that is replaced meanwhile is waited for in its new incarnation."""
    while not stop():
        status = root.engine.inside.wait(made_of(record), seconds=_AT_ONCE)
        with root.store.read() as tx:
            now = tx.record(record.key)
        if now is not None and now.incarnation != record.incarnation:
            record = now
        elif status.phase not in (Phase.RUNNING, Phase.PAUSED) and not status.restarting:
            return _ended(record if now is None else now, status, removed=now is None)
    return None


def _ended(record: Record, status: Status, *, removed: bool) -> Ended:
    key, short = record.key, full_name(record.key)
    if status.phase is Phase.EXITED:
        note = ""
        if record.hold is not None:
            why = f": {record.hold.why}" if record.hold.why else ""
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.hold.when))
            note = f"held by a {record.hold.kind} of {record.hold.who} since {since}{why}"
        return Ended(key=key, exit_code=255 if status.exit_code is None else status.exit_code, note=note)
    if removed:
        return Ended(key=key, error=Failed(f"{key}: it was removed while it was waited for"))
    if record.hold is not None:
        text = f"{key}: it is held by a {record.hold.kind} of {record.hold.who} and was never started"
        return Ended(key=key, error=Failed(text, hint=f"reconcile start {short}"))
    if status.phase is Phase.CREATED:
        return Ended(key=key, error=Failed(f"{key}: it was never started", status.error, f"reconcile start {short}"))
    text = f"{key}: it is not on the machine: there is no end to wait for"
    return Ended(key=key, error=Failed(text, hint="apply again, or `reconcile drift` says what is missing"))
