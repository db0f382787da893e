"""What a verb writes besides what converge writes: whose a stack is, its revisions, its events, exits that were seen."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from reconciler.model.errors import ReconcileError
from reconciler.model.events import (
    ActionDone,
    ActionFailed,
    ActionSkipped,
    AnyEvent,
    Changed,
    Emit,
    Note,
    PlanMade,
    silent,
)
from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.model.observation import Phase, Status
from reconciler.model.plan import Plan
from reconciler.model.record import DONE, GOING_BACK, Hold, Record, Stack, StackRecord
from reconciler.model.spec import ContainerSpec
from reconciler.plan.exits import RESTING, choose_standing, render_code
from reconciler.store.rows import KEPT
from reconciler.verbs.audit import Audit, acting_as, who
from reconciler.verbs.look import Look
from reconciler.verbs.root import Root

if TYPE_CHECKING:
    from reconciler.converge.terms import Result

__all__ = [
    "Recorder",
    "Revisions",
    "acting_as",
    "begin_revisions",
    "drop_contents",
    "finish_left_over",
    "follow",
    "note_exits",
    "put_seen",
    "record_stacks",
    "recorded",
    "who",
]


class Revisions(Struct, frozen=True, kw_only=True):
    """The revisions that one apply began, by stack; a delete begins none."""

    root: Root
    stacks: tuple[str, ...]
    numbers: dict[str, int]

    def finish(self, result: "Result") -> None:
        """Say how it ended. A stack of which nothing is left is forgotten; one that has volumes left keeps its origin, so
        that no other manifest of its name gets at their data; nothing else is kept for it."""
        failed = {split_key(key).stack for key in (*result.failed, *result.skipped)}
        with self.root.lock_root("record"), self.root.store.write() as tx:
            keys = tx.records(self.stacks)
            left = {split_key(key).stack for key in keys}
            stand = {split_key(key).stack for key in keys if kind_of(key) is not Kind.VOLUME}
            known = tx.stacks()
            for stack, number in self.numbers.items():
                tx.finish_revision(stack, number, result="failed" if stack in failed else DONE)
            for stack in self.stacks:
                if stack not in stand:
                    tx.end_reservations(stack)
                if stack in known and stack not in left:
                    tx.delete_stack(stack)
                elif stack in known and stack not in stand and stack not in self.numbers:
                    # Deleted but for its volumes: no revision of it is in force, and nobody owns them.
                    tx.put_stack(structs.replace(known[stack], revision=0))
        drop_contents(self.root)


def drop_contents(root: Root) -> None:
    """Drop what is kept of files and nothing names any more."""
    # Order: looked for without the lock, for that may take longer than a lock should be held, and finds seldom any.
    with root.store.read() as tx:
        unused = tx.unused_contents()
    if unused:
        with root.lock_root("contents"), root.store.write() as tx:
            tx.drop_unused_contents()


def begin_revisions(root: Root, plan: Plan, *, keep: int = KEPT, hold: Hold | None = None) -> Revisions:
    """Record whose the stacks are and what holds them, and begin a revision of each; `keep` of them stay."""
    now, numbers = time.time(), {}
    with root.lock_root("record"), root.store.write() as tx:
        known = tx.stacks()
        for stack in plan.wanted:
            record = _stack_record(plan, stack, known, hold)
            tx.put_stack(record)
            own = {key: fact.digest for key, fact in plan.images.items() if split_key(key).stack == stack.name}
            number = tx.add_revision(stack, images=own, who=who(), at=now, summary=plan.summary, keep=keep)
            tx.put_stack(structs.replace(record, revision=number))
            numbers[stack.name] = number
    return Revisions(root=root, stacks=plan.stacks, numbers=numbers)


def _stack_record(plan: Plan, stack: Stack, known: Mapping[str, StackRecord], hold: Hold | None) -> StackRecord:
    """A stack as a plan leaves it. What goes back is no source."""
    old = known.get(stack.name, StackRecord(name=stack.name, origin=stack.origin))
    source = old.source if stack.source.startswith(GOING_BACK) else stack.source
    held = hold or (None if stack.name in plan.released else old.hold)
    return structs.replace(old, origin=stack.origin, source=source, hold=held)


def record_stacks(root: Root, plan: Plan, known: Mapping[str, StackRecord], hold: Hold | None = None) -> None:
    """Record whose the stacks are and what holds them, where an apply that changes that has nothing else to do."""
    wanted = [_stack_record(plan, stack, known, hold) for stack in plan.wanted if stack.name in known]
    changed = [one for one in wanted if (one.origin, one.hold) != (known[one.name].origin, known[one.name].hold)]
    if changed:
        with root.lock_root("record"), root.store.write() as tx:
            for record in changed:
                tx.put_stack(record)


def finish_left_over(root: Root, plan: Plan) -> None:
    """An apply with nothing to do: what its stacks want is there. A last revision that wanted the same, and failed or was
    never finished, has come true; after one that wanted something else a new one says that this is what is there."""
    came_true, others = {}, []
    with root.store.read() as tx:
        for stack in plan.wanted:
            last = next(reversed(tx.revisions(stack.name)), None)
            if last is None or last.result == DONE:
                continue
            found = tx.revision(stack.name, last.number)
            if found is not None and found.wanted is not None and found.wanted.specs == stack.specs:
                came_true[stack.name] = last.number
            else:
                others.append(stack)
    numbers = came_true | (begin_revisions(root, structs.replace(plan, wanted=tuple(others))).numbers if others else {})
    if numbers:
        with root.lock_root("record"), root.store.write() as tx:
            for name, number in numbers.items():
                tx.finish_revision(name, number, result=DONE)


def follow(root: Root, plan: Plan, looked: Look) -> None:
    """Record the specs that changed without anything to do: `pull`, a value that is sensitive now and was not."""
    acted = {action.key for action in plan.actions}
    changed = [
        structs.replace(record, spec=spec)
        for key, spec in plan.specs.items()
        if key not in acted and (record := looked.records.get(key)) is not None and record.spec != spec
    ]
    if changed:
        with root.lock_root("record"), root.store.write() as tx:
            tx.put_records([record for record in changed if tx.record(record.key) is not None])


class Recorder:
    """An `Emit` that passes events on, and writes those of the event log when its `with` ends, however it ends. Where it is
    told which `verb` is at work, what that planned is recorded with its result and who did it."""

    def __init__(self, root: Root, emit: Emit, stacks: Sequence[str], verb: str = "") -> None:
        self.root = root
        self.emit = emit
        self.stacks = stacks
        self.kept: list[AnyEvent] = []
        self._audit = Audit(verb) if verb else None

    def __call__(self, event: AnyEvent) -> None:
        """An event. Called from worker threads too; list.append is atomic."""
        timed = structs.replace(event, at=event.at or time.time())
        if isinstance(event, _KEPT):
            self.kept.append(timed)
        if isinstance(event, PlanMade) and self._audit is not None:
            self._audit.take_actions(event.plan["actions"])
        self.emit(timed)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for changed in self._audit.finish(error) if self._audit is not None else ():
            self(changed)
        if self.kept and self.root.store.path.exists():
            with self.root.lock_root("events"), self.root.store.write() as tx:
                tx.add_events(self.kept, at=time.time(), stack=self.stacks[0] if self.stacks else "")


class Outcome:
    """What came of something by hand, where whoever does it has a word for it."""

    text = ""


@contextmanager
def recorded(root: Root, verb: str, what: str, *, words: str = "", emit: Emit = silent) -> Iterator[Outcome]:
    """Have what is done within a `with` recorded at its end: who did it to `what` (a container's key, an image), and what
    came of it. What can't be recorded is told, and fails nothing."""
    audit, outcome = Audit(verb), Outcome()
    error: BaseException | None = None
    try:
        yield outcome
    except BaseException as raised:
        error = raised
        raise
    finally:
        changed = audit.finish_one(what, words, error, note=outcome.text)
        try:
            if root.store.path.exists():
                with root.lock_root("events"), root.store.write() as tx:
                    tx.add_events([changed], at=time.time(), stack=changed.stack)
        except (ReconcileError, OSError) as failed:
            emit(Note(text=f"{verb} {what}: it is not in the event log: {failed}", level="warning"))


_KEPT = (ActionDone, ActionFailed, ActionSkipped, Note, Changed)


def note_exits(looked: Look, emit: Emit) -> dict[Key, Status]:
    """Tell the exits and restarts that were not on record yet; the statuses to record. The exit file is the record of an
    exit: the store takes it in here."""
    seen: dict[Key, Status] = {}
    for key, status in looked.observation.statuses.items():
        record = looked.records.get(key)
        if kind_of(key) is not Kind.CONTAINER or record is None or status.incarnation != record.incarnation:
            continue
        before = record.status
        if status.restarts > before.get("restarts", 0):
            times = status.restarts - before.get("restarts", 0)
            emit(Note(key=key, at=status.finished_at, text=_restart_text(status, times)))
        elif status.phase is Phase.EXITED and status.finished_at > before.get("finished_at", 0.0):
            emit(
                Note(
                    key=key,
                    at=status.finished_at,
                    text=f"ended with {render_code(status.exit_code)}",
                    level=_level(record, status),
                )
            )
        else:
            continue
        seen[key] = status
    return seen


def _level(record: Record, status: Status) -> str:
    return (
        "info" if isinstance(record.spec, ContainerSpec) and choose_standing(record.spec, status) in RESTING else "warning"
    )


def _restart_text(status: Status, times: int) -> str:
    again = "started again" if status.phase is Phase.RUNNING else "started again and ended"
    often = f" ({times} times)" if times > 1 else ""
    return f"ended with {render_code(status.exit_code)} and was {again} by its restart policy{often}"


def put_seen(root: Root, seen: dict[Key, Status]) -> None:
    """Record what was seen of exits."""
    if seen:
        with root.lock_root("record"), root.store.write() as tx:
            tx.put_statuses({key: msgspec.to_builtins(status) for key, status in seen.items()})
