"""Workers that look at the keys of a queue, several at once, until they are told to stop.

A key that always fails waits longer each time and keeps nobody else waiting. Idle, nothing wakes but for what is due.
"""

import random
import threading
import time
from collections.abc import Callable

from reconciler.controller.queue import WorkQueue

Work = Callable[[str], float | None]
"""Looks at a key. Returns in how many seconds it is to be looked at again, None where only something new is a reason.
Raises ReconcileError where it failed: that is told by whoever raises it."""


class Loop:
    """The queue and its workers."""

    def __init__(self, work: Work, *, workers: int = 4, clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._count = workers
        self._clock = clock
        self._queue = WorkQueue(chance=random.random)
        self._changed = threading.Condition()
        self._stopping = False
        self._timed = False
        self._threads: list[threading.Thread] = []

    def add(self, key: str, after: float = 0.0) -> None:
        """Have a key looked at, in so many seconds. From any thread."""
        with self._changed:
            self._queue.add(key, self._clock() + after)
            self._changed.notify_all()

    def renew(self, key: str) -> None:
        """Have a key looked at now: what it is about has changed, and earlier failures say nothing any more."""
        with self._changed:
            self._queue.renew(key, self._clock())
            self._changed.notify_all()

    def drop(self, key: str) -> None:
        """Have a key looked at no more."""
        with self._changed:
            self._queue.drop(key)

    def measure(self) -> tuple[int, int]:
        """How many keys are to be looked at, and how many are being looked at."""
        with self._changed:
            return len(self._queue), len(self._queue.working)

    def start(self) -> None:
        """Let the workers begin."""
        for number in range(self._count):
            thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float) -> bool:
        """Begin nothing any more, and wait for what has begun; whether all of it ended in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (key := self._await_key()) is not None:
            again: float | None = None
            failed = False
            try:
                again = self._work(key)
            except Exception:  # noqa: BLE001 whoever works tells it; a mistake of ours in one look ends no worker
                failed = True
            finally:
                self._finish(key, again, failed=failed)

    def _await_key(self) -> str | None:
        with self._changed:
            while not self._stopping:
                if (key := self._queue.take(self._clock())) is not None:
                    self._changed.notify()  # Somebody else waits for what is due next.
                    return key
                at = self._queue.next_at()
                if at is None or self._timed:
                    self._changed.wait()
                    continue
                # One of them sleeps until then, for an idle controller is not to wake four.
                self._timed = True
                try:
                    self._changed.wait(max(at - self._clock(), 0.0))
                finally:
                    self._timed = False
            return None

    def _finish(self, key: str, again: float | None, *, failed: bool) -> None:
        with self._changed:
            now = self._clock()
            if failed:
                self._queue.fail(key, now)
            else:
                self._queue.done(key)
                if again is not None:
                    self._queue.add(key, now + again)
            self._changed.notify_all()
