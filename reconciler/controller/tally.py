"""Counts what a controller does, for `metrics.py` to render: plain numbers and a lock, so that counting costs little.

Labels are closed words (kinds of keys, verbs, results), never names of stacks or containers.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable

from msgspec import Struct

from reconciler.model.events import AnyEvent, Changed

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of what durations are counted by."""
ACTIONS = (1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0)
"""The same for sizes of plans."""


class Spread(Struct):
    """How values are spread: how many are at most each bound, and their sum."""

    bounds: tuple[float, ...]
    counts: list[int]
    """One for each bound, and one for what is beyond them all; not added up."""
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _copy(one: Spread) -> Spread:
    return Spread(bounds=one.bounds, counts=list(one.counts), total=one.total)


class Tally:
    """All counts of one controller, since it began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.counts: dict[tuple[str, tuple[str, ...]], int] = {}
        """By what is counted and the values of its labels."""
        self.spreads: dict[tuple[str, tuple[str, ...]], Spread] = {}

    def count(self, what: str, *labels: str, by: int = 1) -> None:
        """Add to a count. From any thread."""
        with self._lock:
            self.counts[what, labels] = self.counts.get((what, labels), 0) + by

    def spread(self, what: str, value: float, *labels: str, bounds: tuple[float, ...] = SECONDS) -> None:
        """Add a value to a spread."""
        with self._lock:
            found = self.spreads.setdefault((what, labels), Spread(bounds=bounds, counts=[0] * (len(bounds) + 1)))
            found.add(value)

    def copy(self) -> tuple[dict[tuple[str, tuple[str, ...]], int], dict[tuple[str, tuple[str, ...]], Spread]]:
        """All of it at one moment."""
        with self._lock:
            return dict(self.counts), {key: _copy(one) for key, one in self.spreads.items()}

    def timed(self, work: Callable[[str], float | None]) -> Callable[[str], float | None]:
        """Work on keys, counted by their kind and by how it ended."""

        def look(key: str) -> float | None:
            began, result = self._clock(), "failed"
            try:
                again = work(key)
                result = "done"
            finally:
                kind = key.partition(" ")[0]
                self.count("looks", kind, result)
                self.spread("look_seconds", self._clock() - began, kind)
            return again

        return look

    def see(self, event: AnyEvent) -> None:
        """Count what an event tells of a change."""
        if isinstance(event, Changed):
            self.count("changes", event.verb, event.result)
            self.spread("change_seconds", event.took, event.verb)
            self.spread("plan_actions", float(event.count), event.verb, bounds=ACTIONS)
