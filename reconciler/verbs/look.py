"""A root → everything that a plan is made from: records, intents, observation. Writes nothing."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, structs

from reconciler.converge.resume import Folded, fold_intents
from reconciler.converge.view import compose_view
from reconciler.linux import process
from reconciler.model.key import Key, stack_of
from reconciler.model.observation import Observation
from reconciler.model.record import ApplyId, Intent, Record, Stack, StackRecord
from reconciler.plan.borrowing import borrowed_keys
from reconciler.verbs.root import Root


class Look(Struct, frozen=True, kw_only=True):
    """What is recorded and what was seen, at one moment."""

    stacks: dict[str, StackRecord]
    records: dict[Key, Record]
    """With unfinished intents folded in."""
    observation: Observation
    folded: Folded


def look(
    root: Root,
    *,
    ports: Sequence[str] = (),
    stacks: Sequence[str] | None = None,
    locked: bool = False,
    wanted: Sequence[Stack] | None = None,
) -> Look:
    """Read the records and observe the machine; what nobody is at work on any more is folded in.

    With `locked` the caller holds the locks of the named stacks, so every intent of theirs is left over. Without, only
    intents of processes that have ended are. Where `wanted` says what the named stacks are to be (nothing: as they are),
    only they are observed, with the stacks that they borrow of: what concerns others is in the records of all.
    """
    with root.store.read() as tx:
        recorded, records, intents = tx.stacks(), tx.records(), tx.intents()
    seen = None if wanted is None else _find_concerned(stacks or (), wanted, records, intents)
    observation = root.engine.observe(compose_view(records, intents, keep_old=True), ports=ports, of=seen)
    left_over = [intent for intent in intents if _is_left_over(intent, stacks, locked=locked)]
    at_work = {intent.key for intent in intents if intent not in left_over}
    for key in at_work & records.keys():
        records[key] = structs.replace(records[key], unfinished="")
    folded = fold_intents(records, left_over, observation)
    return Look(stacks=recorded, records=folded.records, observation=observation, folded=folded)


def _find_concerned(
    stacks: Iterable[str], wanted: Iterable[Stack], records: Mapping[Key, Record], intents: Iterable[Intent]
) -> set[Key]:
    """All that stacks have, and all of those that they borrow of, or are to."""
    names = set(stacks)
    specs = [(key, record.spec) for key, record in records.items() if stack_of(key) in names]
    specs += [(key, spec) for stack in wanted for key, spec in stack.specs.items()]
    names |= {stack_of(used) for key, spec in specs for used in borrowed_keys(key, spec)}
    return {key for key in (*records, *(intent.key for intent in intents)) if stack_of(key) in names}


def _is_left_over(intent: Intent, stacks: Sequence[str] | None, *, locked: bool) -> bool:
    if stacks is not None and intent.stack not in stacks:
        return False
    return locked or not lives(intent.apply)


def lives(apply: ApplyId) -> bool:
    """Whether the process of an apply still runs: the same boot, the same pid begun at the same time."""
    return apply.boot_id == process.read_boot_id() and process.is_alive(apply.pid, apply.start_time)
