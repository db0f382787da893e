"""Unfinished intents + what is observed → records as they are now, and what has to be cleaned up. Recovery looks, it
does not replay: an intent only says where to look.

`fold_intents` is pure, so that `plan` sees what `apply` will see; `resume` carries it out, under the stacks' locks and only
for intents whose stack lock nobody else holds.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from reconciler.converge.grants import drop_record, find_uses, give_back
from reconciler.converge.ground import Ground
from reconciler.converge.perform import bring_back
from reconciler.converge.view import compose_view, made_of, rests
from reconciler.converge.waits import is_job
from reconciler.linux import failpoint
from reconciler.model.events import Emit, Note
from reconciler.model.key import Key, Kind, kind_of, split_key, stack_of
from reconciler.model.observation import MISSING, Observation, Phase, Status
from reconciler.model.record import ApplyId, Intent, Made, Record, record_of
from reconciler.model.spec import START_FIRST, ContainerSpec


class Folded(Struct, frozen=True, kw_only=True):
    """What unfinished intents come to."""

    records: dict[Key, Record]
    """All records, with those of the intents as they have to be."""
    changed: tuple[Key, ...] = ()
    """Records to write."""
    dropped: tuple[Key, ...] = ()
    """Records to remove: their delete was done."""
    remove: tuple[Made, ...] = ()
    """Things to remove: the loser of two incarnations, and where a volume was that is gone or never came to be."""
    revive: tuple[Made, ...] = ()
    """Containers that a replace had stopped and that are to run again."""
    owed: tuple[Intent, ...] = ()
    """Restarts that are still to come: these stay intents until they, or what makes up for them, begin."""
    intents: tuple[Intent, ...] = ()


def fold_intents(records: Mapping[Key, Record], intents: Iterable[Intent], observation: Observation) -> Folded:
    """Decide by observation what each unfinished intent came to."""
    kept = tuple(intents)
    folding = _Folding(dict(records), observation)
    for intent in kept:
        folding.take(intent)
    for intent in _find_owed_followers(folding.records, kept, observation):
        folding.owe(intent)
    return Folded(
        records=folding.records,
        changed=tuple(folding.changed),
        dropped=tuple(folding.dropped),
        remove=tuple(folding.remove),
        revive=tuple(folding.revive),
        owed=tuple(folding.owed.values()),
        intents=kept,
    )


class _Folding:
    """What is decided so far; the words are those of `Folded`."""

    def __init__(self, records: dict[Key, Record], observation: Observation) -> None:
        self.records = records
        self.changed: list[Key] = []
        self.dropped: list[Key] = []
        self.remove: list[Made] = []
        self.revive: list[Made] = []
        self.owed: dict[Key, Intent] = {}
        self._observation = observation

    def take(self, intent: Intent) -> None:
        """Decide what one came to."""
        if intent.verb == "restart" and intent.new is None:
            if intent.key in self.records and _is_owed(intent, self._observation):
                self.owe(intent)
        elif intent.verb == "delete" and intent.old is not None:
            self._take_delete(intent.key, intent.old)
        elif intent.new is not None and _never_was(intent, self._observation):
            self._drop(intent.key)
            self.remove.append(intent.new)
        else:
            self._take_change(intent)

    def owe(self, intent: Intent) -> None:
        """A restart of what is on record is still to come."""
        self.owed.setdefault(intent.key, intent)
        self.records[intent.key] = msgspec.structs.replace(self.records[intent.key], unfinished="restart")

    def _take_delete(self, key: Key, old: Made) -> None:
        if _status(self._observation, old).phase is Phase.MISSING:
            self._drop(key)
            self.remove += [old] if kind_of(key) is Kind.VOLUME else []
        elif key in self.records:
            self.records[key] = msgspec.structs.replace(self.records[key], unfinished="delete")
            self.changed.append(key)

    def _drop(self, key: Key) -> None:
        self.records.pop(key, None)
        self.dropped.append(key)

    def _take_change(self, intent: Intent) -> None:
        winner, loser = _winner(intent, self._observation)
        if loser is not None:
            self.remove.append(loser)
        if winner is None:
            return
        # What a reboot took off the machine is the plan's to make, once its networks are there again.
        stopped = intent.verb == "replace" and kind_of(intent.key) is Kind.CONTAINER and winner is intent.old
        if stopped and _status(self._observation, winner).phase is not Phase.MISSING:
            self.revive.append(winner)
        self.records[intent.key] = _record_winner(winner, self.records.get(intent.key), intent)
        self.changed.append(intent.key)
        if _is_owed(intent, self._observation):
            self.owe(intent)
        elif intent.verb == "restart":  # It was started already: only what is written down of it is left to do.
            self.records[intent.key] = msgspec.structs.replace(self.records[intent.key], unfinished="update")


def owe_restart(made: Made, *, apply: ApplyId, since: float) -> Intent:
    """A restart that is to come, written down before its turn has come: only the record says how the container is made."""
    return Intent(key=made.key, stack=stack_of(made.key), verb="restart", apply=apply, begun_at=since, old=made)


def _is_owed(intent: Intent, observation: Observation) -> bool:
    """Whether what is to be restarted runs as it did before. What ended or was started since is another process anyhow."""
    if intent.verb != "restart" or intent.old is None:
        return False
    status = _status(observation, intent.old)
    return status.phase is Phase.RUNNING and status.started_at < intent.begun_at


def _find_owed_followers(
    records: Mapping[Key, Record], intents: Iterable[Intent], observation: Observation
) -> Iterator[Intent]:
    """Restarts of who follows a container that an apply started anew, and then ended before it could write that down."""
    anew: dict[tuple[str, str], Intent] = {}
    for intent in intents:
        record = records.get(intent.key)
        if intent.old is None or intent.new is None or record is None or kind_of(intent.key) is not Kind.CONTAINER:
            continue
        if _status(observation, made_of(record)).started_at >= intent.begun_at:
            anew[intent.stack, split_key(intent.key).name] = intent
    for key, record in records.items():
        depends_on = record.spec.depends_on if anew and isinstance(record.spec, ContainerSpec) else {}
        for name, dependency in depends_on.items():
            cause = anew.get((stack_of(key), name)) if dependency.restart else None
            if cause is not None:
                intent = owe_restart(made_of(record), apply=cause.apply, since=cause.begun_at)
                if _is_owed(intent, observation):
                    yield intent


def _never_was(intent: Intent, observation: Observation) -> bool:
    """A new volume of which nothing came to be. A record of it would say that it has data that were lost."""
    new = intent.new if intent.verb == "create" and intent.old is None else None
    return new is not None and kind_of(intent.key) is Kind.VOLUME and _status(observation, new).phase is Phase.MISSING


def _winner(intent: Intent, observation: Observation) -> tuple[Made | None, Made | None]:
    """Which of old and new stays on record, and which goes."""
    if intent.verb == "create" and intent.new is not None and _status(observation, intent.new).phase is not Phase.MISSING:
        # Nothing was there (a reboot, an apply that had died before): what is there now is made as the new one says.
        return intent.new, None
    if intent.verb != "replace":
        return (intent.old or intent.new), None
    assert intent.old is not None
    assert intent.new is not None
    new = _status(observation, intent.new)
    if kind_of(intent.key) is Kind.CONTAINER:
        ran = is_job(intent.new) and new.phase is Phase.EXITED
        live = new.phase in (Phase.RUNNING, Phase.PAUSED)
        runs = live or ran or (intent.new.held and new.phase is not Phase.MISSING)
        if intent.stage == START_FIRST:
            # It was not seen: as long as the old one runs, that one stays.
            runs = runs and _status(observation, intent.old).phase not in (Phase.RUNNING, Phase.PAUSED)
        return (intent.new, intent.old) if runs or intent.stage == "moved" else (intent.old, intent.new)
    # A network: what is not there yet is made again by the plan; two at once are never left.
    return (intent.old, intent.new) if new.phase is Phase.MISSING else (intent.new, intent.old)


def _status(observation: Observation, made: Made) -> Status:
    """What was seen of this very incarnation."""
    status = observation.statuses.get(made.key)
    if made.incarnation and (status is None or status.incarnation != made.incarnation):
        status = observation.others.get(made.incarnation)
    return status or MISSING


def _record_winner(made: Made, record: Record | None, intent: Intent) -> Record:
    return msgspec.structs.replace(
        record_of(made),
        hold=record.hold if record else None,
        status=record.status if record else {},
        created_at=record.created_at if record else intent.begun_at,
        unfinished=intent.verb,
    )


def resume(folded: Folded, ground: Ground, emit: Emit) -> None:
    """Carry out what `fold_intents` decided: the machine first, then records, then the intents are gone."""
    for intent in folded.intents:
        text = f"an earlier apply (pid {intent.apply.pid}) ended while it was to {intent.verb} it"
        emit(Note(key=intent.key, text=text, level="warning"))
    for made in folded.remove:
        _remove(made, ground)
    for made in folded.revive:
        record = folded.records[made.key]
        uses = find_uses(folded.records, made)
        bring_back(made, ground, uses=uses, held=record.hold is not None, rested=rests(record) or is_job(made))
    with ground.lock_root("resume"):
        with ground.store.write() as tx:
            tx.put_records([folded.records[key] for key in folded.changed])
            # Order: what an open intent names counts as used, and its grants would stay.
            tx.finish_intents([intent.id for intent in folded.intents])
            tx.put_intents([msgspec.structs.replace(intent, apply=ground.apply, new=None) for intent in folded.owed])
            gone = {intent.key: intent.old for intent in folded.intents}
            for key in folded.dropped:
                drop_record(tx, key, gone[key])
            for key in folded.changed:
                give_back(tx, key, made_of(folded.records[key]))
            view = compose_view(tx.records(), tx.intents())
        # What was opened or named for the one that went closes with it.
        with failpoint.at("resume.settle"):
            ground.engine.settle(view)


def _remove(made: Made, ground: Ground) -> None:
    if kind_of(made.key) is Kind.CONTAINER:
        ground.engine.containers.stop(made, mark="gone", apply=ground.apply, grace=0)
        ground.engine.containers.delete(made)
    elif kind_of(made.key) is Kind.NETWORK:
        ground.engine.networks.delete(made)
    elif kind_of(made.key) is Kind.VOLUME:
        # There was no data when it was looked at; no sweep looks for the folder that data was in.
        ground.engine.volumes.delete(made, data=True)
