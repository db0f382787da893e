"""Which keys are to be looked at, and when: each once however often it was asked for, and by one worker at a time.

Level-based: a key says where to look, never what happened. Knows no thread and no clock: `loop.py` holds its lock and gives
the time, tests give another.
"""

from collections.abc import Callable

FIRST_DELAY = 1.0
"""Seconds until a key that failed is looked at again; doubled with each failure that follows."""
LONGEST_DELAY = 300.0
JITTER = 0.2
"""By so much of itself a delay is longer at most: what failed together does not come back together."""


class WorkQueue:
    """Keys with the time from when each is due."""

    def __init__(self, *, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._due: dict[str, float] = {}
        self._working: set[str] = set()
        self._failed: dict[str, tuple[int, float]] = {}
        """How often in a row, and until when it is let be."""

    def add(self, key: str, at: float) -> None:
        """Look at a key at `at` or before; while it is being looked at: afterwards once more. One that failed is let be as
        long as it was to be."""
        at = max(at, self._failed[key][1]) if key in self._failed else at
        self._due[key] = min(at, self._due.get(key, at))

    def take(self, now: float) -> str | None:
        """The key that is due the longest and that nobody is at; it is the caller's until `done` or `fail`."""
        able = [(at, key) for key, at in self._due.items() if at <= now and key not in self._working]
        if not able:
            return None
        _, key = min(able)
        del self._due[key]
        self._working.add(key)
        return key

    def next_at(self) -> float | None:
        """When the next key is due that nobody is at; None where there is none."""
        return min((at for key, at in self._due.items() if key not in self._working), default=None)

    def done(self, key: str) -> None:
        """It went well: its failures are forgotten."""
        self._working.discard(key)
        self._failed.pop(key, None)

    def fail(self, key: str, now: float) -> float:
        """It did not: it is due again after a while, which is returned in seconds."""
        self._working.discard(key)
        count = self._failed.get(key, (0, now))[0]
        delay = min(FIRST_DELAY * 2.0 ** min(count, 30), LONGEST_DELAY) * (1 + JITTER * self._chance())
        self._failed[key] = (count + 1, now + delay)
        self._due.setdefault(key, now + delay)  # What was renewed meanwhile is due when that said.
        return delay

    def renew(self, key: str, now: float) -> None:
        """What it is about has changed: its failures count no more, and it is due now."""
        self._failed.pop(key, None)
        self._due[key] = now

    def drop(self, key: str) -> None:
        """Nobody wants it looked at any more."""
        self._due.pop(key, None)
        self._failed.pop(key, None)

    def __len__(self) -> int:
        """How many keys are to be looked at, now or later."""
        return len(self._due)

    @property
    def working(self) -> frozenset[str]:
        """The keys that are being looked at now."""
        return frozenset(self._working)
