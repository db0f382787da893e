"""The threads of one run: jobs are handed to workers, and what became of them is gathered.

Names are loaded by a thread of its own. Race: the root's lock is held meanwhile, and the workers may all be at pulls, which
take minutes.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial

from msgspec import structs

from reconciler.converge import perform
from reconciler.converge.board import Board, State
from reconciler.converge.early import Early
from reconciler.converge.grants import Job
from reconciler.converge.ground import Ground
from reconciler.converge.ledger import Outcome
from reconciler.converge.terms import Options
from reconciler.model.errors import Failed, Interrupted, MachineRefused, ReconcileError, find_refusal
from reconciler.model.events import AnyEvent, Emit
from reconciler.model.key import Kind, kind_of
from reconciler.model.observation import Status
from reconciler.model.record import View

GATHER = 0.02
"""Seconds within which outcomes share a transaction."""


@dataclass
class Workers:
    """What works on the jobs of one run."""

    ground: Ground
    options: Options
    emit: Emit
    board: Board
    early: Early
    executor: Executor
    namer: Executor
    """One thread that nothing else is given to."""
    _outcomes: list[Outcome] = field(default_factory=list)
    _taken: int = 0
    """How many of those were taken."""
    _told: threading.Event = field(default_factory=threading.Event)

    def wait(self, *, seconds: float | None) -> None:
        """Until there are outcomes that may share a transaction, or so many seconds are over (None: as long as it takes).
        An interrupt loses none of them."""
        if not self._told.wait(seconds):
            return
        while True:
            self._told.clear()
            new = len(self._outcomes) - self._taken
            if self.board.count(State.RUNNING) <= new or not self._told.wait(GATHER):
                return

    def take(self) -> list[Outcome]:
        """What has come back since this was called last."""
        self._told.clear()
        new = self._outcomes[self._taken :]
        self._taken += len(new)
        return new

    def load_names(self, view: View) -> "Future[None]":
        """Load names and ports beside all else."""
        return self.namer.submit(self.ground.engine.settle_names, view)

    def begin(self, job: Job, named: Callable[[], None] | None = None) -> None:
        """Do it, or its first half; `named` as in `Ground`."""
        self._submit(job, "begin", partial(self._begin, named=named))

    def finish(self, job: Job) -> None:
        """The second half of a replacement that is well."""
        self._submit(job, "finish", lambda job: perform.finish(job, self.ground))

    def revert(self, job: Job) -> None:
        """The second half of a replacement that is not."""
        self._submit(job, "revert", lambda job: perform.revert(job, self.ground))

    def _submit(self, job: Job, half: str, work: Callable[[Job], Status | None]) -> None:
        def run() -> None:
            outcome = Outcome(job=job, half=half)
            try:
                outcome.status = work(job)
            except ReconcileError as error:
                outcome.error = error
            except Exception as error:  # noqa: BLE001 a mistake of ours ends one action, not the run
                outcome.error = _explain(f"{job.action.key}: {job.action.verb.value}", error)
            self._outcomes.append(outcome)
            self._told.set()

        self.board.put(job.action, State.RUNNING)
        self.executor.submit(run)

    def _begin(self, job: Job, named: Callable[[], None] | None) -> Status:
        self.early.await_made(job)
        try:
            emit = self._tell_pull if kind_of(job.action.key) is Kind.IMAGE else self.emit
            status = perform.begin(job, structs.replace(self.ground, named=named), emit)
        except BaseException:
            perform.clean_up(job, self.ground)
            raise
        if kind_of(job.action.key) is Kind.IMAGE and job.new is not None:
            self.early.follow(job.new)
        return status

    def _tell_pull(self, event: AnyEvent) -> None:
        """Progress of an image, which need not become whole: what is here of it, its next pull goes on with. Raises
        Interrupted, which ends it."""
        if self.board.interrupted or self.options.gone():
            raise Interrupted("interrupted")
        self.emit(event)


def _explain(tried: str, error: Exception) -> Failed:
    """An error that no driver told as one of ours: the kernel's, or a mistake."""
    refusal = find_refusal(error)
    explained = MachineRefused(tried, refusal) if refusal else Failed(f"{tried}: {type(error).__name__}: {error}")
    explained.__cause__ = error
    return explained
