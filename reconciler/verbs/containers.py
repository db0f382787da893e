"""By hand: stop, start, restart, kill, logs and exec of containers that are on record.

They take a container's lock (its driver does) and, to record, the root's; never the stack's, so that a long apply does not
keep anybody from stopping a container.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import structs

from reconciler.converge.grants import find_uses
from reconciler.converge.view import compose_view, made_of
from reconciler.engine.protocol import ExecResult, LogLine
from reconciler.model.errors import ConvergeFailed, Failed, ReconcileError
from reconciler.model.events import ActionDone, ActionFailed, ActionStarted, Emit, silent
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Phase
from reconciler.model.record import Hold, Record
from reconciler.verbs.names import find_containers, find_one
from reconciler.verbs.record import who
from reconciler.verbs.root import Root, this_process

Work = Callable[[Record], None]


def stop(root: Root, name: str, *, emit: Emit, note: str = "", grace: float | None = None) -> None:
    """Stop containers and hold them: nothing starts them but `start` and `apply --resume`."""
    found = _find(root, name, stacks=True)
    hold = Hold(kind="stop", who=who(), when=time.time(), why=note)
    _put_holds(root, found, hold)

    def work(record: Record) -> None:
        root.engine.containers.stop(made_of(record), mark="hold", apply=this_process(), grace=grace)

    _each(found, "stop", work, emit)
    _settle(root)


def start(root: Root, name: str, *, emit: Emit) -> None:
    """End the hold of containers and start them; the count of `on-failure:N` begins anew."""
    found = _find(root, name, stacks=True)
    _put_holds(root, found, None)
    records = _records(root)
    _settle(root)

    def work(record: Record) -> None:
        made, containers = structs.replace(made_of(record), held=False), root.engine.containers
        uses = find_uses(records, made)
        containers.unmark(made)
        if containers.states([made])[made.incarnation].phase is not Phase.RUNNING:
            containers.prepare(made, uses=uses, emit=silent)
            containers.start(made, uses=uses)

    _each(found, "start", work, emit)


def restart(root: Root, name: str, *, emit: Emit, grace: float | None = None) -> None:
    """Stop and start containers. One that is held stays held."""
    found = _find(root, name, stacks=True)
    records = _records(root)

    def work(record: Record) -> None:
        made, containers = made_of(record), root.engine.containers
        if made.held:
            raise Failed(f"{made.key} is held by a stop", hint=f"reconcile start {split_key(made.key).name}")
        uses = find_uses(records, made)
        containers.stop(made, mark="replaced", apply=this_process(), grace=grace)
        containers.prepare(made, uses=uses, emit=silent)
        containers.unmark(made)
        containers.start(made, uses=uses)

    _each(found, "restart", work, emit)


def kill(root: Root, name: str, signal: int, *, emit: Emit) -> None:
    """Send a signal. It holds nothing: what follows is the restart policy's."""
    _each(_find(root, name, stacks=True), "kill", lambda record: root.engine.inside.kill(made_of(record), signal), emit)


def logs(
    root: Root, name: str, *, tail: int | None, since: float, follow: bool, stop: Callable[[], bool]
) -> Iterator[tuple[Key, LogLine]]:
    """The log lines of a container, or of all of its indexes by time. With `follow`, of one container only."""
    found = _find(root, name)
    if follow and len(found) > 1:
        names = ", ".join(f"{split_key(r.key).name}/{split_key(r.key).index}" for r in found)
        raise Failed(f"{name}: --follow takes one container", names, "choose one of them")
    streams = [
        [
            (record.key, line)
            for line in root.engine.inside.logs(made_of(record), tail=tail, since=since, follow=False, stop=stop)
        ]
        if not follow
        else (
            (record.key, line)
            for line in root.engine.inside.logs(made_of(record), tail=tail, since=since, follow=True, stop=stop)
        )
        for record in found
    ]
    if len(streams) == 1:
        yield from streams[0]
        return
    yield from sorted((pair for stream in streams for pair in stream), key=lambda pair: pair[1].at)


def exec_(
    root: Root,
    name: str,
    command: Sequence[str],
    *,
    tty: bool,
    stdin: bool,
    user: str = "",
    workdir: str = "",
    env: Mapping[str, str] = {},
) -> ExecResult:
    """Run a command in a container that runs: of several indexes the first that does."""
    records = _records(root)
    found = find_containers(records, name)
    states = root.engine.containers.states([made_of(record) for record in found])
    statuses = {record.key: states[record.incarnation] for record in found}
    record = find_one(records, name, statuses)
    if statuses[record.key].phase is not Phase.RUNNING:
        raise Failed(f"{record.key} is not running ({statuses[record.key].phase.value})", hint=f"reconcile start {name}")
    return root.engine.inside.exec(
        made_of(record), command, tty=tty, stdin=stdin, user=user, workdir=workdir, env=env
    )  # fmt: skip


def _find(root: Root, name: str, *, stacks: bool = False) -> list[Record]:
    return find_containers(_records(root), name, stacks=stacks)


def _records(root: Root) -> dict[Key, Record]:
    with root.store.read() as tx:
        return tx.records()


def _put_holds(root: Root, found: Sequence[Record], hold: Hold | None) -> None:
    with root.lock_root("hold"), root.store.write() as tx:
        for record in found:
            tx.set_hold(record.key, hold)


def _settle(root: Root) -> None:
    """What is held has neither open ports nor names."""
    with root.lock_root("settle"):
        with root.store.read() as tx:
            view = compose_view(tx.records(), tx.intents())
        root.engine.settle(view)


def _each(found: Sequence[Record], verb: str, work: Work, emit: Emit) -> None:
    """Do it for each, several at once. Raises ConvergeFailed when some did not work."""
    from concurrent.futures import ThreadPoolExecutor

    failed: list[Key] = []

    def one(numbered: tuple[int, Record]) -> None:
        number, record = numbered
        began = time.monotonic()
        emit(ActionStarted(id=number, verb=verb, key=record.key))
        try:
            work(record)
        except ReconcileError as error:
            if len(found) == 1:
                raise
            failed.append(record.key)
            emit(
                ActionFailed(id=number, verb=verb, key=record.key, brief=error.brief, detail=error.detail, hint=error.hint)
            )
            return
        emit(ActionDone(id=number, verb=verb, key=record.key, took=time.monotonic() - began))

    if len(found) == 1:
        one((1, found[0]))
        return
    with ThreadPoolExecutor(min(16, len(found), 4 * (os.cpu_count() or 1))) as executor:
        list(executor.map(one, enumerate(found, 1)))
    if failed:
        raise ConvergeFailed(failed, len(found) - len(failed), 0)
