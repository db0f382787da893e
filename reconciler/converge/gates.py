"""What a container that is about to start depends on, and no action of the plan starts: is it as it must be?

`run.py` asks before an action begins; what must be waited for goes onto its watchlist, and the verdict comes back here.
"""

from dataclasses import dataclass, field

from reconciler.converge.ground import Ground
from reconciler.converge.view import made_of
from reconciler.converge.waits import Verdict, Watchlist, check_of, is_job
from reconciler.model.errors import Failed
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Action, Plan, Reason
from reconciler.model.record import Made, Record
from reconciler.model.spec import ContainerSpec
from reconciler.plan.exits import Standing, choose_standing, render_end
from reconciler.plan.holds import ending_verb


@dataclass
class Gates:
    """The dependencies that one run was asked for."""

    plan: Plan
    ground: Ground
    watchlist: Watchlist
    judged: dict[Key, bool] = field(default_factory=dict)
    """What waits have shown, which counts for all who ask."""

    def ask(self, action: Action, key: Key, condition: str) -> bool | Failed:
        """True: it is as it must be; False: that will be seen; Failed: it will not be."""
        if condition != "started" and key in self.watchlist.watches:
            return False
        if condition != "started" and key in self.judged:
            wrong = Failed(f"{action.key}: {key} is not {condition}", hint=f"reconcile describe {key}")
            return True if self.judged[key] else wrong
        with self.ground.store.read() as tx:
            record = tx.record(key)
        made = made_of(record) if record is not None else None
        if made is not None and condition == "completed" and is_job(made):
            return self._ask_job(action, made)
        if made is None or record is None or record.hold is not None:
            return _shut(action, key, record)
        if condition != "healthy" or check_of(made) is None:
            return True
        status = self.ground.engine.containers.states([made])[made.incarnation]
        age = max(0.0, self.ground.now() - status.started_at) if status.started_at else 0.0
        self.watchlist.add(made, status, age=age)
        return False

    def is_needless(self, action: Action) -> bool:
        """Whether an action starts nothing: its container is held, and made without being started."""
        if action.reason is Reason.RESUMED:
            return False
        with self.ground.store.read() as tx:
            record = tx.record(action.key)
        return record is not None and record.hold is not None

    def _ask_job(self, action: Action, made: Made) -> bool | Failed:
        """A job that completed, whenever that was and whatever holds it now, is met; one that runs is waited for."""
        assert isinstance(made.spec, ContainerSpec)
        status = self.ground.engine.containers.states([made])[made.incarnation]
        if status.phase is Phase.RUNNING:
            self.watchlist.add(made, status)
            return False
        if status.phase is not Phase.EXITED or choose_standing(made.spec, status) is not Standing.COMPLETED:
            text = f"{action.key}: the job {made.key} has not completed: {render_end(status)}"
            return Failed(text, hint=f"reconcile logs {split_key(made.key).name}; an apply runs it again")
        return True

    def await_running(self) -> None:
        """Jobs that an earlier apply started are this one's to see."""
        if not self.plan.awaits:
            return
        with self.ground.store.read() as tx:
            found = [made_of(record) for key in self.plan.awaits if (record := tx.record(key)) is not None]
        states = self.ground.engine.containers.states(found)
        for made in found:
            self.watchlist.add(made, states[made.incarnation])

    def note(self, verdict: Verdict) -> Made | None:
        """A wait of ours has ended; the job that ran already and has failed, if that was it."""
        self.judged[verdict.key] = verdict.ok
        if verdict.ok or verdict.key not in self.plan.awaits:
            return None
        with self.ground.store.read() as tx:
            record = tx.record(verdict.key)
        return made_of(record) if record is not None else None


def _shut(action: Action, key: Key, record: Record | None) -> Failed:
    """A dependency that is not there or is held opens no gate."""
    name, hold = split_key(key).name, record.hold if record else None
    if hold is None:
        return Failed(f"{action.key}: {key} is not there", hint=f"reconcile start {name}")
    return Failed(f"{action.key}: {key} is held by a {hold.kind}", hint=f"reconcile {ending_verb(hold.kind)} {name}")
