"""What a run puts on record: an intent before each action, what became of it after. Written in `run.py`'s transactions.

A replaced container's record changes only once its old incarnation is gone, is back, or (start-first) is only to go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from reconciler.converge import perform
from reconciler.converge.grants import Job, drop_record, give_back
from reconciler.converge.ground import Ground
from reconciler.converge.resume import owe_restart
from reconciler.converge.view import made_of
from reconciler.model.errors import ReconcileError
from reconciler.model.key import Key, Kind, kind_of, stack_of
from reconciler.model.observation import Status
from reconciler.model.plan import Action, Plan, Verb
from reconciler.model.record import record_of

if TYPE_CHECKING:
    from reconciler.store.writing import Writing


@dataclass
class Outcome:
    """What a worker brought back."""

    job: Job
    status: Status | None = None
    error: ReconcileError | None = None
    half: str = "begin"
    """begin | finish | revert"""


@dataclass
class Ledger:
    """What is known of one run's actions and is, or will be, on record."""

    ground: Ground
    plan: Plan
    statuses: dict[int, Status] = field(default_factory=dict)
    """How things were last seen, by action."""
    ended: dict[Key, Status] = field(default_factory=dict)
    """Ends that were seen and are not on record yet."""
    settle_again: bool = False
    """Whether what was written since changes names or policy."""
    _intents: dict[int, int] = field(default_factory=dict)
    """The store's numbers of the intents, by action."""

    def begin(self, tx: "Writing", jobs: Sequence[Job]) -> None:
        """Write the intents of what is about to begin."""
        tx.drop_owed_restarts([job.action.key for job in jobs])
        numbers = tx.put_intents([job.intent for job in jobs])
        self._intents |= {job.action.id: number for job, number in zip(jobs, numbers, strict=True)}

    def write(self, tx: "Writing", outcome: Outcome) -> None:
        """Write what is known now."""
        job, action = outcome.job, outcome.job.action
        if outcome.half == "begin" and outcome.error is None and perform.replaces_container(job):
            return
        self.settle_again |= _changes_names(action) or outcome.error is not None
        if outcome.half == "revert" or (outcome.error is not None and outcome.half == "begin"):
            give_back(tx, action.key, job.old)
        elif action.verb is Verb.DELETE:
            drop_record(tx, action.key, job.old)
        else:
            self._put_made(tx, job, outcome.status or self.statuses.get(action.id))
            give_back(tx, action.key, job.new)
            self._owe_restarts(tx, action)
        tx.finish_intent(self._intents[action.id])
        tx.bump(stack_of(action.key))

    def drop(self, tx: "Writing", job: Job) -> None:
        """It never began, and nothing of it is there."""
        tx.finish_intent(self._intents[job.action.id])
        tx.bump(stack_of(job.action.key))

    def move(self, tx: "Writing", job: Job) -> None:
        """A replacement that started first was seen: it is on record and has the names; the old one is only to go."""
        self._put_made(tx, job, self.statuses.get(job.action.id))
        tx.finish_intent(self._intents[job.action.id])
        self._intents[job.action.id] = tx.put_intent(msgspec.structs.replace(job.intent, stage="moved"))
        self.settle_again = True

    def write_ends(self, tx: "Writing") -> None:
        """Write the ends that were seen."""
        ended, self.ended = self.ended, {}
        tx.put_statuses({key: msgspec.to_builtins(status) for key, status in ended.items()})

    def _owe_restarts(self, tx: "Writing", done: Action) -> None:
        """Who is restarted because of this is owed it from now on: a run that ends before it comes to it leaves that to the
        next one, which could not see it otherwise."""
        if kind_of(done.key) is not Kind.CONTAINER or done.verb is Verb.UPDATE:
            return
        owed = []
        for action in self.plan.actions:
            record = tx.record(action.key) if action.verb is Verb.RESTART and done.id in action.after else None
            if record is not None:
                owed.append(owe_restart(made_of(record), apply=self.ground.apply, since=self.ground.now()))
        tx.put_intents(owed)

    def _put_made(self, tx: "Writing", job: Job, status: Status | None) -> None:
        made = job.new
        assert made is not None
        record = msgspec.structs.replace(
            record_of(made),
            status=msgspec.to_builtins(status) if status else {},
            created_at=job.created_at if job.action.verb is not Verb.REPLACE else made.created_at,
        )
        tx.put_record(record)


def _changes_names(action: Action) -> bool:
    """Whether names and policy must be loaded again once it is done."""
    return kind_of(action.key) is Kind.NETWORK or (kind_of(action.key) is Kind.CONTAINER and action.verb is Verb.REPLACE)
