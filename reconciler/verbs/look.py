"""A root → everything that a plan is made from: records, intents, observation. Writes nothing."""

from collections.abc import Sequence

from msgspec import Struct, structs

from reconciler.converge.resume import Folded, fold_intents
from reconciler.converge.view import compose_view
from reconciler.linux import process
from reconciler.model.key import Key
from reconciler.model.observation import Observation
from reconciler.model.record import ApplyId, Intent, Record, StackRecord
from reconciler.verbs.root import Root


class Look(Struct, frozen=True, kw_only=True):
    """What is recorded and what was seen, at one moment."""

    stacks: dict[str, StackRecord]
    records: dict[Key, Record]
    """With unfinished intents folded in."""
    observation: Observation
    folded: Folded


def look(root: Root, *, ports: Sequence[str] = (), stacks: Sequence[str] | None = None, locked: bool = False) -> Look:
    """Read the records and observe the machine; what nobody is at work on any more is folded in.

    With `locked` the caller holds the locks of the named stacks, so every intent of theirs is left over. Without, only
    intents of processes that have ended are.
    """
    with root.store.read() as tx:
        recorded, records, intents = tx.stacks(), tx.records(), tx.intents()
    observation = root.engine.observe(compose_view(records, intents, keep_old=True), ports=ports)
    left_over = [intent for intent in intents if _is_left_over(intent, stacks, locked=locked)]
    at_work = {intent.key for intent in intents if intent not in left_over}
    for key in at_work & records.keys():
        records[key] = structs.replace(records[key], unfinished="")
    folded = fold_intents(records, left_over, observation)
    return Look(stacks=recorded, records=folded.records, observation=observation, folded=folded)


def _is_left_over(intent: Intent, stacks: Sequence[str] | None, *, locked: bool) -> bool:
    if stacks is not None and intent.stack not in stacks:
        return False
    return locked or not lives(intent.apply)


def lives(apply: ApplyId) -> bool:
    """Whether the process of an apply still runs: the same boot, the same pid begun at the same time."""
    return apply.boot_id == process.read_boot_id() and process.is_alive(apply.pid, apply.start_time)
