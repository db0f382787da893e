"""Walks the graph of a plan: waves of what is ready, drivers in parallel, outcomes written as they are known.

A wave is whatever is ready now. One transaction under the root's lock takes its grants and writes its intents, settle loads
policy and names of all records with all open intents laid over them, then the drivers work. Outcomes known within 20 ms are
written together, in the transaction of the next wave. Neighbours: board.py (which may begin), grants.py (action → job),
early.py (who is made before its turn), workers.py (jobs → threads), perform.py (job → drivers), waits.py (started → seen
running), gates.py (what the plan does not start), ledger.py (what is put on record).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reconciler.converge import perform
from reconciler.converge.board import STARTING_VERBS, Board, State
from reconciler.converge.early import Early
from reconciler.converge.gates import Gates
from reconciler.converge.grants import Job, take_job
from reconciler.converge.ground import Ground
from reconciler.converge.keep import keep_contents
from reconciler.converge.ledger import Ledger, Outcome
from reconciler.converge.terms import Options, Result
from reconciler.converge.view import compose_view
from reconciler.converge.waits import Verdict, Watchlist, describe_failure, is_checked_anew, is_job
from reconciler.converge.workers import Workers
from reconciler.linux import failpoint
from reconciler.model.errors import Failed, ReconcileError
from reconciler.model.events import ActionDone, ActionFailed, ActionSkipped, ActionStarted, Emit, Note
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import Status
from reconciler.model.plan import Action, Plan, Verb
from reconciler.model.record import Record, View
from reconciler.model.spec import START_FIRST, ContainerSpec
from reconciler.plan.words import render_because

if TYPE_CHECKING:
    from reconciler.store.writing import Writing

TICK = 0.1
"""Seconds between looks at what is waited for."""


@dataclass
class Walk:
    """One run of one plan."""

    plan: Plan
    ground: Ground
    options: Options
    emit: Emit
    workers: Workers
    watchlist: Watchlist
    board: Board
    gates: Gates
    ledger: Ledger
    early: Early
    jobs: dict[int, Job] = field(default_factory=dict)
    began: dict[int, float] = field(default_factory=dict)
    wrong: dict[int, Failed] = field(default_factory=dict)
    """What the wait for a container showed, where it was not all well."""
    errors: dict[Key, ReconcileError] = field(default_factory=dict)
    late: list[Key] = field(default_factory=list)
    """Jobs that no action started and that failed while they were waited for."""
    moving: list[Job] = field(default_factory=list)
    """Replacements that started first and were seen: record and names are theirs with the next transaction."""

    def walk(self) -> Result:
        """Go on until nothing runs and nothing can begin."""
        try:
            return self._walk()
        finally:  # An error leaves its intents, and the next look takes up what they name: but that runs nothing.
            self.early.clear()

    def _walk(self) -> Result:
        for action in self.board.waiting():
            if action.key in self.options.refused:
                self._fail(action, self.options.refused[action.key])
        if self.options.wait:
            self.gates.await_running()
        if self.options.gone():
            self._interrupt()
        while True:
            self._advance(self.workers.take())
            if not self._busy():
                self._take_back()
                break
            verdicts: Sequence[Verdict] = ()
            try:
                self.workers.wait(seconds=TICK if self.watchlist.watches else None)
                verdicts = self.watchlist.poll()
            except KeyboardInterrupt:
                if self.board.interrupted:
                    raise
                verdicts = self._interrupt()
            for verdict in verdicts:
                self._judged(verdict)
            if self.options.gone() and not self.board.interrupted:
                for verdict in self._interrupt():
                    self._judged(verdict)
        return self._result()

    def _interrupt(self) -> list[Verdict]:
        """Nothing begins any more, and all waits are given up: their verdicts."""
        self.board.interrupted = True
        self.emit(Note(text="interrupted: finishing what has begun, waiting for nothing", level="warning"))
        self.watchlist.watches.clear()
        return [self._cut_short(key) for key in self.board.keys(State.STARTED)]

    def _cut_short(self, key: Key) -> Verdict:
        """What a wait that is given up comes to: well, but where the old one runs still and is not to go unseen."""
        action = self.board.making(key)
        spec = self.plan.specs.get(key)
        job = isinstance(spec, ContainerSpec) and spec.job
        if action is not None and (action.order == START_FIRST or job):
            return Verdict(key=key, ok=False, text="interrupted before it was seen" + (" to complete" if job else ""))
        return Verdict(key=key, ok=True)

    def _busy(self) -> bool:
        return bool(self.watchlist.watches or self.board.count(State.RUNNING) or self.board.count(State.STARTED))

    # --- one turn: outcomes and the next wave, in one transaction ---

    def _advance(self, batch: Sequence[Outcome]) -> None:
        for outcome in batch:
            self._came_back(outcome)
        ready = [] if self.board.interrupted else self._ready()
        moving, self.moving = self.moving, []
        if not batch and not ready and not moving and not self.ledger.ended:
            return
        view: View | None = None
        with self.ground.lock_root("apply"):
            with self.ground.store.write() as tx:
                for outcome in batch:
                    self.ledger.write(tx, outcome)
                for job in moving:
                    self.ledger.move(tx, job)
                self.ledger.write_ends(tx)
                records = tx.records() if ready or self.ledger.settle_again else {}
                jobs = self._take(tx, ready, records)
                self.early.take(tx, jobs, records)
                if self.ledger.settle_again or any(_concerns_settle(job.action) for job in jobs):
                    view = compose_view(records, tx.intents())
            if view is not None:
                # Order: before anything is made early. What was written where the run directory comes to be mounted is
                # hidden by it, and comes to light as a leftover when that is gone.
                self.ground.engine.lay_ground(view)
                self.early.follow()
                self.ledger.settle_again = False
                jobs = self._begin_beside(view, jobs)
        for job in moving:
            self.workers.finish(job)
        for job in jobs:
            self.workers.begin(job)

    def _begin_beside(self, view: View, jobs: Sequence[Job]) -> list[Job]:
        """Settle. What need not wait for the whole of that begins meanwhile; the others are returned."""
        others = [job for job in jobs if _concerns_settle(job.action)]
        for job in jobs:
            if not _concerns_settle(job.action):
                self.workers.begin(job)
        with failpoint.at("converge.settle"):
            self.ground.engine.settle(view, names=False)
            if any(job.action.verb is not Verb.CREATE for job in others):
                # Order: a name has gone before what it leads to does.
                self.ground.engine.settle_names(view)
                return others
            self._begin_nameless(view, others)
        return []

    def _begin_nameless(self, view: View, jobs: Sequence[Job]) -> None:
        """Load the names while what is new is made: it runs only once it is known by them."""
        named = self.workers.load_names(view)
        for job in jobs:
            self.workers.begin(job, named.result)
        try:
            named.result()
        finally:
            wait([named])  # An interrupt lets nobody go on without the lock.

    def _take_back(self) -> None:
        """What was taken along and never began is removed, and then forgotten."""
        jobs = self.early.clear()
        if not jobs:
            return
        with self.ground.lock_root("apply"):
            with self.ground.store.write() as tx:
                self.early.take_back(tx, jobs)
                view = compose_view(tx.records(), tx.intents())
            self.ground.engine.settle(view)

    def _ready(self) -> list[Action]:
        """What may begin; what never will is skipped, and told."""
        while skipped := [action for action in self.board.waiting() if self.board.hopeless_for(action)]:
            for action in skipped:
                self.board.put(action, State.SKIPPED)
                because = self.board.hopeless_for(action)
                assert because is not None
                self.emit(ActionSkipped(id=action.id, verb=action.verb.value, key=action.key, because=because))
        ready = [action for action in self.board.waiting() if self.board.may_begin(action) and self._gates_open(action)]
        # A gate that proved shut has failed its action, and with it what comes after.
        return ready if all(self.board.hopeless_for(action) is None for action in self.board.waiting()) else self._ready()

    def _gates_open(self, action: Action) -> bool:
        """What no action of the plan starts is asked about, and waited for, before what depends on it begins."""
        shut = False
        asked = self.board.dependencies(action)
        if asked and self.gates.is_needless(action):
            return True
        for key, condition in asked.items():
            answer = self.gates.ask(action, key, condition)
            if isinstance(answer, Failed):
                self._fail(action, answer)
                return False
            shut |= not answer
        return not shut

    def _take(self, tx: "Writing", ready: Sequence[Action], records: Mapping[Key, Record]) -> list[Job]:
        """Grants and intents of all that is ready; an action whose grants are refused has failed."""
        along = [job for action in ready if (job := self.early.redeem(action))]
        known = {job.action.id for job in along}
        granted = self._grant(tx, [action for action in ready if action.id not in known], records)
        self.ledger.begin(tx, granted)
        jobs = [*along, *granted]
        for job in jobs:
            action = job.action
            self.jobs[action.id] = job
            self.board.put(action, State.RUNNING)
            if job.new is not None and job.new.held:
                self.board.held.add(action.key)
            self.began[action.id] = self.ground.clock()
            self.emit(ActionStarted(id=action.id, verb=action.verb.value, key=action.key))
        return jobs

    def _grant(self, tx: "Writing", ready: Sequence[Action], records: Mapping[Key, Record]) -> list[Job]:
        """All at once; where one is refused, one by one, so that the others get theirs."""
        try:
            with tx.savepoint():
                return [take_job(tx, action, self.plan, records, self.ground) for action in ready]
        except ReconcileError as error:
            if len(ready) == 1:
                self._fail(ready[0], error)
                return []
        return [job for action in ready for job in self._grant(tx, [action], records)]

    def _waits(self, job: Job, status: Status | None) -> bool:
        """Whether this container is to be seen running, and healthy where it has a check, before it is done."""
        if kind_of(job.action.key) is not Kind.CONTAINER or job.new is None or job.new.held:
            return False
        if job.action.verb not in STARTING_VERBS and not is_checked_anew(job.action, job.new, status):
            return False
        # Nobody else would end a replacement that started first: it is waited for in every case.
        return self.options.wait or self.board.is_awaited(job.action) or job.action.order == START_FIRST

    # --- what came back ---

    def _came_back(self, outcome: Outcome) -> None:
        job, action = outcome.job, outcome.job.action
        if outcome.half != "begin":
            self._second_half(outcome)
        elif outcome.error is not None:
            self._fail(action, outcome.error)
        elif self._waits(job, outcome.status):
            assert job.new is not None
            assert outcome.status is not None
            self.board.put(action, State.STARTED)
            self.ledger.statuses[action.id] = outcome.status
            age = max(self.ground.now() - outcome.status.started_at, 0.0) if action.verb is Verb.UPDATE else 0.0
            self.watchlist.add(job.new, outcome.status, age=age)
        elif perform.replaces_container(job):
            assert outcome.status is not None
            self.ledger.statuses[action.id] = outcome.status
            self.workers.finish(job)
        else:
            self._done(action)

    def _second_half(self, outcome: Outcome) -> None:
        """A replacement was finished or undone; `wrong` says what its wait showed, if it was not all well."""
        action = outcome.job.action
        error: ReconcileError | None = self.wrong.get(action.id)
        if outcome.half == "revert" and error is not None:
            perform.say_reverted(outcome.job, error, outcome.error)
        error = error or outcome.error
        if error is None:
            self._done(action)
        else:
            self._fail(action, error)

    def _judged(self, verdict: Verdict) -> None:
        """A wait ended: a gate opens or not, a replacement is finished or undone, anything else is done or failed."""
        action = self.board.making(verdict.key)
        if action is None or self.board.state(action) is not State.STARTED:
            self._see_gate(verdict)
            return
        job = self.jobs[action.id]
        if verdict.status is not None:
            self.ledger.statuses[action.id] = verdict.status
            if action.verb is not Verb.REPLACE:  # Its record is that of the old one until it is finished.
                self.ledger.ended[verdict.key] = verdict.status
        assert job.new is not None
        runs_once = is_job(job.new)
        if not verdict.ok and not runs_once:
            verdict = self._obey(verdict)
        if not verdict.ok:  # Order: its log is read before it is removed.
            self.wrong[action.id] = describe_failure(self.ground.engine, job.new, verdict)
        # A job that failed stays, with its log: the former version is not run once more.
        if action.verb is Verb.REPLACE and not verdict.ok and not runs_once:
            # Unhealthy as well as ended: the old one is gone only once the new one was seen to be well.
            self.workers.revert(job)
        elif action.order == START_FIRST:
            self.moving.append(job)
        elif action.verb is Verb.REPLACE:
            self.workers.finish(job)
        elif verdict.ok:
            self._done(action)
        else:
            self._fail(action, self.wrong[action.id])

    def _obey(self, verdict: Verdict) -> Verdict:
        """What was stopped or paused by hand while it was waited for is as somebody wants it."""
        with self.ground.store.read() as tx:
            record = tx.record(verdict.key)
        if record is None or record.hold is None:
            return verdict
        text = f"{record.hold.kind} by {record.hold.who} while it was waited for: it stays so"
        self.emit(Note(key=verdict.key, text=text, level="warning"))
        return Verdict(key=verdict.key, ok=True)

    def _see_gate(self, verdict: Verdict) -> None:
        """A dependency was waited for. A job that ran already and failed is this apply's failure, if it waits at all."""
        failed = self.gates.note(verdict)
        if verdict.status is not None:
            self.ledger.ended[verdict.key] = verdict.status
        if failed is None or not self.options.wait:
            return
        error = describe_failure(self.ground.engine, failed, verdict)
        self.errors[verdict.key] = error
        self.late.append(verdict.key)
        number = len(self.board.actions) + len(self.late)
        self.emit(
            ActionFailed(
                id=number, verb=Verb.CREATE.value, key=verdict.key, brief=error.brief, detail=error.detail, hint=error.hint
            )
        )  # fmt: skip

    def _done(self, action: Action) -> None:
        self.board.put(action, State.DONE)
        took = self.ground.clock() - self.began[action.id]
        because = render_because(action, self.plan)
        self.emit(ActionDone(id=action.id, verb=action.verb.value, key=action.key, took=took, because=because))

    def _fail(self, action: Action, error: ReconcileError) -> None:
        self.board.put(action, State.FAILED)
        self.errors[action.key] = error
        self.ledger.settle_again = True
        self.emit(
            ActionFailed(
                id=action.id, verb=action.verb.value, key=action.key,
                brief=error.brief, detail=error.detail, hint=error.hint,
            )
        )  # fmt: skip

    def _result(self) -> Result:
        keys = self.board.keys
        return Result(
            done=keys(State.DONE),
            failed=(*keys(State.FAILED), *self.late),
            skipped=keys(State.SKIPPED, State.WAITING),
            interrupted=self.board.interrupted,
            errors=self.errors,
        )


def _concerns_settle(action: Action) -> bool:
    """Images and volumes have neither policy nor names."""
    return kind_of(action.key) in (Kind.CONTAINER, Kind.NETWORK)


def converge(plan: Plan, ground: Ground, options: Options, emit: Emit) -> Result:
    """Run a plan. What fails is told as an event and in the result; the records say what is there in every case."""
    keep_contents(plan, ground)
    with (
        ThreadPoolExecutor(options.workers, thread_name_prefix="converge") as executor,
        ThreadPoolExecutor(1, thread_name_prefix="names") as namer,
    ):
        watchlist = Watchlist(engine=ground.engine, executor=executor, clock=ground.clock, timeout=options.timeout)
        board, ledger = Board(plan), Ledger(ground=ground, plan=plan)
        early = Early(plan=plan, ground=ground, board=board, ledger=ledger, executor=executor)
        workers = Workers(
            ground=ground, options=options, emit=emit, board=board, early=early, executor=executor, namer=namer
        )
        walk = Walk(
            plan=plan, ground=ground, options=options, emit=emit, workers=workers, watchlist=watchlist, board=board,
            gates=Gates(plan=plan, ground=ground, watchlist=watchlist), ledger=ledger, early=early,
        )  # fmt: skip
        return walk.walk()
