"""By hand: stop, start, restart, kill, pause, unpause, logs and exec of containers that are on record.

They take a container's lock (its driver does) and, to record, the root's; never the stack's, so that a long apply does not
keep anybody from stopping a container.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

from msgspec import structs

from reconciler.converge.grants import find_uses
from reconciler.converge.view import compose_view, made_of
from reconciler.engine.protocol import ExecResult, LogLine, Streams
from reconciler.linux import failpoint
from reconciler.model.errors import ConvergeFailed, Failed, ReconcileError
from reconciler.model.events import ActionDone, ActionFailed, ActionStarted, Emit, silent
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Phase
from reconciler.model.record import Hold, Made, Record
from reconciler.plan.holds import ending_verb
from reconciler.verbs.audit import by_hand, who
from reconciler.verbs.look import lives
from reconciler.verbs.names import find_containers, find_one
from reconciler.verbs.record import Recorder, recorded
from reconciler.verbs.root import Root, this_process
from reconciler.verbs.tiers import sort_tiers

Work = Callable[[Record], None]


def stop(root: Root, name: str, *, emit: Emit, note: str = "", grace: float | None = None) -> None:
    """Stop containers and hold them: nothing starts them but `start` and `apply --resume`. A pause becomes a stop."""
    found = _find(root, name, stacks=True)
    # Order: an apply that is just starting one looks for a hold afterwards; what it started before is stopped below.
    _put_holds(root, found, _new_hold("stop", note))
    beside = _incarnations_beside(root, found)

    def work(record: Record) -> None:
        for made in (made_of(record), *beside.get(record.key, ())):
            root.engine.containers.stop(made, mark="hold", apply=this_process(), grace=grace)

    _each(root, found, "stop", work, emit, last_first=True)
    _settle(root)


def _new_hold(kind: str, note: str) -> Hold:
    return Hold(kind=kind, who=who(), when=time.time(), why=note)


def _incarnations_beside(root: Root, found: Sequence[Record]) -> dict[Key, list[Made]]:
    """The second incarnations of containers that an apply is replacing just now."""
    recorded = {record.key: record.incarnation for record in found}
    with root.store.read() as tx:
        intents = tx.intents()
    beside: dict[Key, list[Made]] = {}
    for intent in intents:
        made = intent.new
        if made is not None and made.incarnation != recorded.get(made.key, made.incarnation):
            beside.setdefault(made.key, []).append(made)
    return beside


def start(root: Root, name: str, *, emit: Emit) -> None:
    """End the hold of containers and start them, or let them go on; the count of `on-failure:N` begins anew."""
    _start_all(root, _find(root, name, stacks=True), "start", emit)


def _start_all(root: Root, found: Sequence[Record], verb: str, emit: Emit) -> None:
    _put_holds(root, found, None)
    records, beside = _records(root), _incarnations_beside(root, found)
    _settle(root)

    def work(record: Record) -> None:
        made, containers = structs.replace(made_of(record), held=False, paused=False), root.engine.containers
        uses = find_uses(records, made)
        if any([containers.unpause(other).phase is Phase.RUNNING for other in beside.get(record.key, ())]):
            return  # An apply is replacing it by that one.
        if containers.unpause(made).phase is not Phase.RUNNING:
            containers.prepare(made, uses=uses, emit=silent)
            containers.start(made, uses=uses)
            _check_kept(root, record, verb)

    _each(root, found, verb, work, emit)


def _check_kept(root: Root, record: Record, verb: str) -> None:
    """Remove what was started here where the container was deleted or replaced meanwhile, and raise Failed.

    Race: we hold no lock of its stack. Whoever deletes it writes an intent before he looks for what runs; so where there is
    neither an intent nor another record after our start, that start is seen by whoever comes.
    """
    deadline = time.monotonic() + root.lock_timeout
    while True:
        with root.store.read() as tx:
            now, intents = tx.records().get(record.key), tx.intents()
        mine = [one for one in intents if one.old is not None and one.old.incarnation == record.incarnation]
        going = any(one.verb == "delete" for one in mine)
        if now is None or now.incarnation != record.incarnation or going:
            break
        # A replace that is under way removes the old one, or lets it run again: what it came to is recorded soon.
        if not any(lives(one.apply) for one in mine) or time.monotonic() > deadline:
            return
        time.sleep(0.02)
    root.engine.containers.delete(made_of(record))
    what = "deleted" if now is None or going else "replaced"
    raise Failed(f"{verb} {record.key}: it was {what} meanwhile", hint="look again: reconcile get")


def restart(root: Root, name: str, *, emit: Emit, grace: float | None = None) -> None:
    """Stop and start containers. One that is held stays held."""
    found = _find(root, name, stacks=True)
    records = _records(root)

    def work(record: Record) -> None:
        made, containers = made_of(record), root.engine.containers
        if record.hold is not None:
            raise _held(record)
        uses = find_uses(records, made)
        containers.stop(made, mark="replaced", apply=this_process(), grace=grace)
        containers.prepare(made, uses=uses, emit=silent)
        containers.unmark(made)
        containers.start(made, uses=uses)
        _check_kept(root, record, "restart")

    _each(root, found, "restart", work, emit)


def _held(record: Record) -> Failed:
    assert record.hold is not None
    hint = f"reconcile {ending_verb(record.hold.kind)} {split_key(record.key).name}"
    return Failed(f"{record.key} is held by a {record.hold.kind}", hint=hint)


def pause(root: Root, name: str, *, emit: Emit, note: str = "") -> None:
    """Freeze containers that run and hold them so: nothing lets them go on but `unpause`, `start` and `apply --resume`.

    Of a stack those that run; raises Failed where a container was named that does not, or none of them does.
    """
    chosen = _choose(root, name, (Phase.RUNNING, Phase.PAUSED), "running", "start")
    _put_holds(root, [record for record, _ in chosen], _new_hold("pause", note))
    mades = {record.key: made for record, made in chosen}

    def work(record: Record) -> None:
        try:
            root.engine.containers.pause(mades[record.key])
        except ReconcileError:
            _put_holds(root, [record], record.hold)
            raise

    _each(root, [record for record, _ in chosen], "pause", work, emit)


def unpause(root: Root, name: str, *, emit: Emit) -> None:
    """End the pause of containers: they go on, and what ended meanwhile is started. Of a stack those that are paused."""
    chosen = _choose(root, name, (Phase.PAUSED,), "paused", "pause")
    _start_all(root, [record for record, _ in chosen], "unpause", emit)


def _choose(root: Root, name: str, phases: Sequence[Phase], wanted: str, verb: str) -> list[tuple[Record, Made]]:
    """The containers of a name that are in one of these phases, or held by a pause, each with the incarnation that is; of a
    stack the others are let be."""
    found = _find(root, name, stacks=True)
    beside = _incarnations_beside(root, found)
    states = root.engine.containers.states([*map(made_of, found), *(made for mades in beside.values() for made in mades)])
    fitting, whole_stack = [], {split_key(record.key).stack for record in found} == {name}
    for record in found:
        mades = [made_of(record), *beside.get(record.key, ())]
        made = next((made for made in mades if states[made.incarnation].phase in phases), None)
        if made is not None or (wanted == "paused" and mades[0].paused):
            fitting.append((record, made or mades[0]))
        elif not whole_stack:
            name = split_key(record.key).name
            hint = f"reconcile {verb} {name}" if wanted == "running" else f"`reconcile get {name}` shows how it stands"
            raise Failed(f"{record.key} is not {wanted} ({states[record.incarnation].phase.value})", hint=hint)
    if not fitting:
        raise Failed(f"{name}: none of its containers is {wanted}", hint="`reconcile get containers` shows how they stand")
    return fitting


def kill(root: Root, name: str, signal: int, *, emit: Emit) -> None:
    """Send a signal. It holds nothing: what follows is the restart policy's."""
    _each(
        root, _find(root, name, stacks=True), "kill", lambda record: root.engine.inside.kill(made_of(record), signal), emit
    )


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
    streams: Streams | None = None,
    emit: Emit = silent,
) -> ExecResult:
    """Run a command in a container that runs, with our streams or others: of several indexes the first that does. Its name,
    but none of its other words, is recorded."""
    records = _records(root)
    found = find_containers(records, name)
    states = root.engine.containers.states([made_of(record) for record in found])
    statuses = {record.key: states[record.incarnation] for record in found}
    record = find_one(records, name, statuses)
    if statuses[record.key].phase is not Phase.RUNNING:
        phase = statuses[record.key].phase
        end = "unpause" if phase is Phase.PAUSED else "start"
        raise Failed(f"{record.key} is not running ({phase.value})", hint=f"reconcile {end} {name}")
    # Its other words may be secrets.
    with recorded(root, "exec", record.key, words=command[0], emit=emit) as outcome:
        result = root.engine.inside.exec(
            made_of(record), command, tty=tty, stdin=stdin, user=user, workdir=workdir, env=env, streams=streams
        )  # fmt: skip
        outcome.text = f"exit code {result.exit_code}" if result.exit_code else ""
    return result


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
    """What is stopped has neither open ports nor names."""
    with root.lock_root("settle"):
        with root.store.read() as tx:
            view = compose_view(tx.records(), tx.intents())
        with failpoint.at("hand.settle"):
            root.engine.settle(view)


def _each(root: Root, found: Sequence[Record], verb: str, work: Work, emit: Emit, *, last_first: bool = False) -> None:
    """Do it for each, and record who did."""
    audit = by_hand(verb, [record.key for record in found])
    error: BaseException | None = None
    try:
        _do_each(found, verb, work, emit, last_first=last_first)
    except BaseException as raised:
        error = raised
        raise
    finally:
        # A full disk keeps nobody from stopping a container.
        with suppress(ReconcileError), Recorder(root, emit, []) as told:
            for changed in audit.finish(error):
                told(changed)


def _do_each(found: Sequence[Record], verb: str, work: Work, emit: Emit, *, last_first: bool) -> None:
    """Do it for each in the order of `depends_on`, several at once. Raises ConvergeFailed when some did not work."""
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
    done = 0
    with ThreadPoolExecutor(min(16, len(found), 4 * (os.cpu_count() or 1))) as executor:
        for tier in sort_tiers(found, last_first=last_first):
            list(executor.map(one, enumerate(tier, done + 1)))
            done += len(tier)
    if failed:
        raise ConvergeFailed(failed, len(found) - len(failed), 0)
