"""Runs the health checks of what runs, each in its own time, and restarts what is unhealthy where its manifest says so.

The engine keeps the results (`get`, `status` and dependants read them there); the rules are Docker's (`model/health.py`).
The restarts of one container come later and later while it does not get well, and each is told.
"""

import random
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from reconciler.controller.keeper import ALL
from reconciler.controller.loop import Loop
from reconciler.converge.view import made_of
from reconciler.model.errors import ReconcileError
from reconciler.model.events import silent
from reconciler.model.health import Streak, active_check, choose_pause, last_line
from reconciler.model.key import Key, stack_of
from reconciler.model.observation import Health, Phase
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Healthcheck
from reconciler.verbs.audit import acting_as
from reconciler.verbs.containers import restart
from reconciler.verbs.look import Look
from reconciler.verbs.root import Root

WORKERS = 8
JITTER = 0.1
"""By so much of itself a gap differs at most: what started together is not probed together for ever."""
FIRST_PATIENCE = 10.0
"""Seconds from a restart for bad health to the next; doubled with each, until it was well for `WELL_AGAIN`."""
LONGEST_PATIENCE = 600.0
WELL_AGAIN = 600.0

Say = Callable[..., None]
"""Tells something once: about what, the words, the stack, `over=` when it is over."""


class _Probed(Struct):
    """One container that is probed."""

    made: Made
    check: Healthcheck
    began: float
    """Of the monotonic clock: when it was first seen to run as it does now."""
    pid: int
    health: Health = Health.UNKNOWN
    """As of the last probe."""
    was_healthy: bool = False
    restarts: int = 0
    """For bad health, since it was well for long."""
    restarted: float = 0.0
    well_since: float = 0.0


class Probes:
    """All containers with a health check."""

    def __init__(
        self,
        root: Root,
        *,
        say: Say,
        add: Callable[[str, float], None],
        count: Callable[[str, int], None] = lambda _what, _by: None,
        well: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._root = root
        self._say = say
        self._add = add
        self._count = count
        self._well = well
        self._clock = clock
        self._lock = threading.Lock()
        self._probed: dict[Key, _Probed] = {}
        self.loop = Loop(self.work, workers=WORKERS, clock=clock)

    def follow(self, looked: Look) -> None:
        """Probe what runs now and has a check, and nothing else."""
        running = {made.key: (made, check, pid) for made, check, pid in _find_checked(looked)}
        with self._lock:
            gone = self._probed.keys() - running.keys()
            for key in gone:
                del self._probed[key]
                self.loop.drop(key)
            for key, (made, check, pid) in running.items():
                known = self._probed.get(key)
                if known is not None and known.pid == pid:
                    known.made, known.check = made, check
                    continue
                fresh = _Probed(made=made, check=check, began=self._clock(), pid=pid)
                if known is not None:
                    fresh.restarts, fresh.restarted = known.restarts, known.restarted
                self._probed[key] = fresh
                self.loop.add(key, random.random() * min(self._pause(fresh), 1.0))
        for key in gone:
            self._say(f"health {key}", "", stack_of(key), over=f"{key}: it is no longer there to be probed")

    def read(self) -> dict[Key, Health]:
        """How those are that are probed, as of the last probe of each."""
        with self._lock:
            return {key: probed.health for key, probed in self._probed.items()}

    def work(self, key: str) -> float | None:
        """Probe one; in how many seconds again."""
        with self._lock:
            probed = self._probed.get(Key(key))
        if probed is None:
            return None
        try:
            _, said = self._root.engine.inside.probe(probed.made, timeout=probed.check.timeout)
        except ReconcileError as error:  # It ended, or is paused: the next look at everything says so.
            said = error.brief
        health = self._root.engine.containers.states([probed.made])[probed.made.incarnation].health
        if health is Health.HEALTHY is not probed.health:  # Others may wait for it.
            self._well(stack_of(probed.made.key))
        probed.health = health
        self._judge(probed, health, said)
        return self._pause(probed) * (1 + JITTER * (2 * random.random() - 1))

    def _pause(self, probed: _Probed) -> float:
        return choose_pause(probed.check, Streak(was_healthy=probed.was_healthy), age=self._clock() - probed.began)

    def _judge(self, probed: _Probed, health: Health, said: str) -> None:
        key, now = probed.made.key, self._clock()
        if health is Health.HEALTHY:
            probed.was_healthy = True
            probed.well_since = probed.well_since or now
            if now - probed.well_since >= WELL_AGAIN:
                probed.restarts = 0
            self._say(f"health {key}", "", stack_of(key), over=f"{key}: healthy again")
        if health is not Health.UNHEALTHY:
            return
        probed.well_since = 0.0
        words = f"{key}: unhealthy: {last_line(said) or 'its check printed nothing'}"
        short = f"{key}: unhealthy"  # What its check printed stays here.
        if probed.check.on_unhealthy != "restart":
            self._say(f"health {key}", words, stack_of(key), short=short)
            return
        patience = min(FIRST_PATIENCE * 2.0 ** (probed.restarts - 1), LONGEST_PATIENCE)
        if probed.restarts and now - probed.restarted < patience:
            times = "once" if probed.restarts == 1 else f"{probed.restarts} times"
            again = f"{words}; it was restarted {times} for that, and is again after {patience:g} s"
            self._say(f"health {key}", again, stack_of(key), short=short)
            return
        if self._root.read_holder(stack_of(key)):
            return  # Somebody is at work on its stack: what he starts is probed by him.
        self._say(f"health {key}", f"{words}; it is restarted", stack_of(key), short=short)
        self._restart(probed, now)

    def _restart(self, probed: _Probed, now: float) -> None:
        probed.restarts += 1
        probed.restarted = now
        self._count("restarts_for_health", 1)
        try:
            with acting_as("serve"):
                restart(self._root, probed.made.key, emit=silent)
        except ReconcileError as error:
            self._say(
                f"health {probed.made.key}", f"{probed.made.key}: unhealthy, and {error.brief}", stack_of(probed.made.key)
            )
        self._add(ALL, 0.5)


def _find_checked(looked: Look) -> list[tuple[Made, Healthcheck, int]]:
    found = []
    for key, record in looked.records.items():
        status = looked.observation.statuses.get(key)
        if status is None or status.phase is not Phase.RUNNING or not status.pid or record.hold is not None:
            continue
        if isinstance(record.spec, ContainerSpec) and (check := active_check(record.spec.healthcheck)) is not None:
            found.append((made_of(record), check, status.pid))
    return found
