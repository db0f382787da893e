"""A root → everything that a plan is made from: records, intents, observation. Writes nothing."""

from collections.abc import Sequence

from msgspec import Struct

from reconciler.converge.resume import Folded, fold_intents
from reconciler.converge.view import compose_view
from reconciler.model.key import Key
from reconciler.model.observation import Observation
from reconciler.model.record import Intent, Record, StackRecord, View
from reconciler.verbs.root import Root


class Look(Struct, frozen=True, kw_only=True):
    """What is recorded and what was seen, at one moment."""

    stacks: dict[str, StackRecord]
    records: dict[Key, Record]
    """With unfinished intents folded in."""
    observation: Observation
    folded: Folded
    view: View


def look(root: Root, *, ports: Sequence[str] = (), stacks: Sequence[str] | None = None) -> Look:
    """Read the records and observe the machine. Intents of the named stacks (all where None is given) are folded in: who
    calls this for a change holds their locks, so nobody is at work on them."""
    with root.store.read() as tx:
        recorded, records, intents = tx.stacks(), tx.records(), tx.intents()
    view = compose_view(records, intents, keep_old=True)
    observation = root.engine.observe(view, ports=ports)
    unfinished = [intent for intent in intents if stacks is None or intent.stack in stacks]
    folded = fold_intents(records, unfinished, observation)
    return Look(stacks=recorded, records=folded.records, observation=observation, folded=folded, view=view)


def intents_of_others(intents: Sequence[Intent], stacks: Sequence[str]) -> list[Intent]:
    """Intents of stacks that somebody else may be at work on."""
    return [intent for intent in intents if intent.stack not in stacks]
