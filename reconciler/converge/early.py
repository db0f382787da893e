"""New containers that wait for nothing but their image and networks, which are new as well: granted with those, and made
beside them as far as that goes without a network, for a runtime takes longer than all else.

`run.py` asks whom a wave takes along, and has them begin when their turn has come. They are recorded by the same intents,
and until they begin nothing of theirs runs; those whose turn never comes are taken back by it.
"""

from collections.abc import Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.converge import perform
from reconciler.converge.board import Board, State
from reconciler.converge.grants import Job, Records, give_back, take_job
from reconciler.converge.ground import Ground
from reconciler.converge.ledger import Ledger
from reconciler.model.errors import ReconcileError
from reconciler.model.key import Kind, kind_of
from reconciler.model.plan import Action, Plan, Verb
from reconciler.model.record import Made, record_of
from reconciler.model.spec import ContainerSpec, NetworkSpec
from reconciler.plan.scene import image_key

if TYPE_CHECKING:
    from reconciler.store.writing import Writing

MOST = 8
"""Of more the machine has enough to do with those whose turn it is."""


@dataclass
class Early:
    """Those of one run that were taken along and have not begun."""

    plan: Plan
    ground: Ground
    board: Board
    ledger: Ledger
    executor: Executor
    jobs: dict[int, Job] = field(default_factory=dict)
    _making: dict[int, "Future[None]"] = field(default_factory=dict)

    def take(self, tx: "Writing", wave: Sequence[Job], records: Records) -> None:
        """Grant and record whom a wave takes along; nobody where one of them can't have what it needs, which is told when
        its turn has come."""
        new = {job.action.id: job.new for job in wave if job.new is not None and _is_ground(job.action, job.new)}
        if not any(kind_of(made.key) is Kind.NETWORK for made in new.values()):
            return
        chosen = [action for action in self.board.waiting() if action.key not in records and self._goes_along(action, new)]
        if not chosen or len(chosen) > MOST:
            return
        there = {**records, **{made.key: record_of(made) for made in new.values()}}
        try:
            with tx.savepoint():
                jobs = [take_job(tx, action, self.plan, there, self.ground) for action in chosen]
        except ReconcileError:
            return
        self.ledger.begin(tx, jobs)
        self.jobs |= {job.action.id: job for job in jobs}

    def _goes_along(self, action: Action, new: dict[int, Made]) -> bool:
        spec = self.plan.specs.get(action.key)
        if action.verb is not Verb.CREATE or not isinstance(spec, ContainerSpec) or self.board.dependencies(action):
            return False
        waits_for = [number for number in action.after if self.board.state(self.board.actions[number]) is not State.DONE]
        fact = self.plan.images.get(image_key(action.key, spec))
        # What has to be pulled takes its time, in which a port would lead nowhere. Parameters may be those of a link.
        quick = fact is not None and fact.local and not spec.sysctls
        networks = [number for number in waits_for if number in new and kind_of(new[number].key) is Kind.NETWORK]
        return quick and bool(networks) and all(number in new for number in waits_for)

    def follow(self, made: Made | None = None) -> None:
        """Begin to make those whose image is there: this one, or was there before. From any thread."""
        for number, job in list(self.jobs.items()):
            before = [self.board.actions[other].key for other in job.action.after]
            images = [key for key in before if kind_of(key) is Kind.IMAGE]
            if number not in self._making and images == ([] if made is None else [made.key]):
                self._making[number] = self.executor.submit(self._make, job)

    def _make(self, job: Job) -> None:
        assert job.new is not None
        if job.action.id not in self.jobs:
            return  # Its turn has come, or never will.
        try:
            self.ground.engine.containers.premake(job.new, uses=job.uses)
        except ReconcileError:
            return  # Its turn comes to the same, and tells it.

    def redeem(self, action: Action) -> Job | None:
        """The job of one whose turn has come, if it was taken along."""
        return self.jobs.pop(action.id, None)

    def await_made(self, job: Job) -> None:
        """Wait until what was begun of it is done."""
        if making := self._making.pop(job.action.id, None):
            wait([making])

    def clear(self) -> list[Job]:
        """Remove what was made of those that are left, for their turn never comes; who they were."""
        jobs = list(self.jobs.values())
        self.jobs.clear()
        for job in jobs:
            self.await_made(job)
            perform.clean_up(job, self.ground)
        return jobs

    def take_back(self, tx: "Writing", jobs: Sequence[Job]) -> None:
        """Record that nothing of them is there."""
        for job in jobs:
            give_back(tx, job.action.key, job.old)
            self.ledger.drop(tx, job)


def _is_ground(action: Action, made: Made) -> bool:
    """Whether it is new and one of the things that a container may be made beside."""
    bridge = isinstance(made.spec, NetworkSpec) and made.spec.driver == "bridge"
    return action.verb is Verb.CREATE and (bridge or kind_of(action.key) is Kind.IMAGE)
