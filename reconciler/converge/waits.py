"""Waiting for containers to be seen running: health where there is a check, one second of running where there is none.

`run.py` puts every started container here and polls; no worker thread waits. What probes come to is Docker's rule
(`model/health.py`), but for the gaps: it looks early and often until Docker's first probe is due, so that an interval of
30 s keeps nobody waiting; failures that early do not count. The regular probes of a running system are not made here.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from msgspec import Struct

from reconciler.engine.protocol import Engine
from reconciler.model.errors import Failed, ReconcileError
from reconciler.model.health import (
    EARLY,
    NO_STREAK,
    Streak,
    active_check,
    choose_impatient_pause,
    first_due,
    is_unhealthy,
    last_line,
    note_probe,
)
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Health, Phase, Status
from reconciler.model.plan import Action
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Healthcheck
from reconciler.plan.exits import render_code

SEEN_AFTER = 1.0
"""Seconds of running that count as done where there is no health check."""
POLL = 0.1
"""Seconds between two looks."""
LOG_LINES = 10
"""How many of a container's last lines an error shows."""


class Verdict(Struct, frozen=True, kw_only=True):
    """How a wait ended. `text` says what was seen when it is not ok; `ended` that the container does not run."""

    key: Key
    ok: bool
    text: str = ""
    ended: bool = False
    status: Status | None = None
    """How it was last seen, where it has ended."""


@dataclass
class Watch:
    """One container that is waited for. Times are of the monotonic clock handed to the watchlist."""

    made: Made
    began: float
    born: float
    """When the container was started, on the same clock."""
    restarts: int
    deadline: float
    streak: Streak = NO_STREAK
    next_probe: float = 0.0
    probe: "Future[tuple[Health, str]] | None" = None
    probe_age: float = 0.0
    """The container's age when the probe began."""
    said: str = ""


@dataclass
class Watchlist:
    """All containers that are waited for now."""

    engine: Engine
    executor: Executor
    clock: Callable[[], float]
    timeout: float
    watches: dict[Key, Watch] = field(default_factory=dict)

    def add(self, made: Made, status: Status, *, age: float = 0.0) -> None:
        """Wait for a container; `status` is what was just seen of it, `age` for how many seconds it has run."""
        now = self.clock()
        check = check_of(made)
        first = now + max(min(EARLY, first_due(check)) - age, 0.0) if check else now
        self.watches[made.key] = Watch(
            made=made, began=now, born=now - age, restarts=status.restarts, deadline=now + self.timeout, next_probe=first
        )

    def poll(self) -> Sequence[Verdict]:
        """Look once at all of them, start the probes that are due, and say whose wait has ended."""
        if not self.watches:
            return ()
        states = self.engine.containers.states([watch.made for watch in self.watches.values()])
        verdicts = []
        for key, watch in list(self.watches.items()):
            verdict = self._judge(watch, states[watch.made.incarnation])
            if verdict is not None:
                del self.watches[key]
                verdicts.append(verdict)
        return verdicts

    def _judge(self, watch: Watch, status: Status) -> Verdict | None:
        key, now = watch.made.key, self.clock()
        if is_job(watch.made) and status.phase in (Phase.RUNNING, Phase.PAUSED):
            late = now >= watch.deadline
            return Verdict(key=key, ok=False, text=f"not completed after {self.timeout:g} s; it runs on") if late else None
        if status.phase is not Phase.RUNNING or status.restarts > watch.restarts:
            return _ended(watch, status)
        check = check_of(watch.made)
        if check is None:
            lived = max(now - watch.began, 0.0)
            return Verdict(key=key, ok=True) if lived >= SEEN_AFTER else None
        verdict = self._probe(watch, check, now)
        if verdict is None and now >= watch.deadline:
            said = f": {watch.said}" if watch.said else ""
            return Verdict(key=key, ok=False, text=f"not healthy after {self.timeout:g} s{said}")
        return verdict

    def _probe(self, watch: Watch, check: Healthcheck, now: float) -> Verdict | None:
        if watch.probe is not None and watch.probe.done():
            health, said = _result(watch.probe)
            watch.said = last_line(said)
            watch.probe = None
            if health is Health.HEALTHY:
                return Verdict(key=watch.made.key, ok=True)
            watch.streak = note_probe(watch.streak, check, healthy=False, age=watch.probe_age)
            watch.next_probe = now + choose_impatient_pause(check, watch.streak, age=now - watch.born)
            if is_unhealthy(check, watch.streak):
                said = f": {watch.said}" if watch.said else ""
                return Verdict(key=watch.made.key, ok=False, text=f"unhealthy after {check.retries} tries{said}")
        if watch.probe is None and now >= watch.next_probe:
            watch.probe_age = now - watch.born
            watch.probe = self.executor.submit(self.engine.inside.probe, watch.made, timeout=check.timeout)
        return None


def _result(probe: "Future[tuple[Health, str]]") -> tuple[Health, str]:
    try:
        return probe.result()
    except ReconcileError as error:
        return Health.UNHEALTHY, error.brief


def _ended(watch: Watch, status: Status) -> Verdict:
    """Exit 0 under `no` or `on-failure` is done; every other end and every restart is not."""
    assert isinstance(watch.made.spec, ContainerSpec)
    policy, code = watch.made.spec.restart, status.exit_code
    if status.phase is Phase.RUNNING:
        text = f"ended with {render_code(code)} and was restarted"
        return Verdict(key=watch.made.key, ok=False, ended=True, text=text)
    if code == 0 and policy != "always" and status.phase is Phase.EXITED and not (is_job(watch.made) and status.stopped):
        return Verdict(key=watch.made.key, ok=True, status=status)
    text = f"ended with {render_code(code)}" if status.phase is Phase.EXITED else f"is {status.phase.value}"
    text += (", out of memory" if status.oom_killed else "") + (f": {status.error}" if status.error else "")
    return Verdict(key=watch.made.key, ok=False, ended=True, text=text, status=status)


def describe_failure(engine: Engine, made: Made, verdict: Verdict) -> Failed:
    """What a wait that went wrong showed, with the last lines of the container's log."""
    try:
        lines = list(engine.inside.logs(made, tail=LOG_LINES, since=0.0, follow=False, stop=lambda: True))
        said = "\n".join(line.text.decode(errors="replace") for line in lines)
    except ReconcileError as error:
        said = error.brief
    look = f"reconcile logs {split_key(made.key).name}"
    hint = "mend the cause, then apply again" if verdict.ended else look
    return Failed(f"{made.key}: {verdict.text}", detail=said, hint=hint)


def is_job(made: Made) -> bool:
    """Whether it is waited for until it has completed, whatever its health."""
    return isinstance(made.spec, ContainerSpec) and made.spec.job


def is_checked_anew(action: Action, made: Made, status: Status | None) -> bool:
    """Whether a container that goes on running has another health check from now on, which may say that it is not well."""
    changed = any(change.path.startswith("/healthcheck") for change in action.changes)
    return changed and status is not None and status.phase is Phase.RUNNING and check_of(made) is not None


def check_of(made: Made) -> Healthcheck | None:
    """The health check that holds for a container: None where there is none or it is switched off."""
    assert isinstance(made.spec, ContainerSpec)
    return active_check(made.spec.healthcheck)
