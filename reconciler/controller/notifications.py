"""Tells people what they asked to be told: a thread and a bounded queue for each place, so that a slow one delays nobody.

What is queued is the last word about each thing: a newer one takes its place, and what got well before anybody was told is
told to nobody. About one thing a place hears once a minute at most. A place that does not answer is tried again, later and
later; what is not taken then is dropped, counted, and said in the log.
"""

import socket
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from msgspec import Struct, structs

from reconciler.controller.targets import Target, read_url
from reconciler.controller.webhook import Notice, Refusal, post, render
from reconciler.model.errors import Failed

MOST_QUEUED = 100
"""Notices that wait for one place: of more the oldest are dropped and counted."""
MOST_KNOWN = 2000
"""Things of which a place remembers what it was told last."""
GAP = 60.0
"""Seconds between two notices about one thing."""
AGAIN = 300.0
"""Seconds in which the same words about one thing are not sent twice."""
FIRST_PAUSE, LONGEST_PAUSE, TRIES = 1.0, 120.0, 10
"""Seconds between tries, doubled each time; ten tries take some nine minutes."""
LAST = 2.0
"""Seconds that what is queued has at the end."""

Send = Callable[[str, bytes], None]


class _Sent(Struct, frozen=True):
    """What a place was told last about a thing."""

    kind: str
    text: str
    at: float
    """Of the monotonic clock."""


class Notifier:
    """All places."""

    def __init__(
        self,
        root: Path,
        *,
        say: Callable[..., None],
        count: Callable[[str], None] = lambda _: None,
        send: Send = post,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._say = say
        self._count = count
        self._send = send
        self._now = now
        self._places: dict[str, _Place] = {}

    def use(self, targets: Collection[Target]) -> None:
        """Tell these from now on. What is queued for one that is gone goes with it."""
        wanted = {target.name: target for target in targets}
        for name, place in list(self._places.items()):
            if wanted.get(name) != place.target:
                place.stop(0.0)
                del self._places[name]
        for name, target in wanted.items():
            if name not in self._places:
                self._places[name] = _Place(target, self._send, self._say, self._count)
                self._places[name].start()

    def tell(self, kind: str, about: str, text: str, stack: str = "") -> None:
        """Queue the last word about a thing for whoever wants it. Never waits. From any thread."""
        notice = Notice(kind=kind, text=text, stack=stack, at=self._now(), host=socket.gethostname(), root=str(self._root))
        for place in list(self._places.values()):
            if kind in place.target.on and (not place.target.stacks or stack in place.target.stacks):
                place.put(about, notice)

    def stop(self) -> None:
        """Send what can be sent at once, and end."""
        deadline = time.monotonic() + LAST
        for place in self._places.values():
            place.stop(max(deadline - time.monotonic(), 0.0))


class _Place:
    """One place, its queue and its thread."""

    def __init__(self, target: Target, send: Send, say: Callable[..., None], count: Callable[[str], None]) -> None:
        self.target = target
        self._send = send
        self._say = say
        self._count = count
        self._changed = threading.Condition()
        self._queue: dict[str, tuple[float, Notice]] = {}
        """By what it is about: from when on it may be sent, and what."""
        self._left_out = 0
        self._sent: dict[str, _Sent] = {}
        """By what it is about; what is being sent counts."""
        self._until: float | None = None
        """Of the monotonic clock: when it is to have ended."""
        self._thread = threading.Thread(target=self._run, name=f"notify-{target.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End once the queue is empty, or after so many seconds."""
        with self._changed:
            self._until = time.monotonic() + seconds
            self._changed.notify_all()
        self._thread.join(seconds)  # One that waits for an answer ends with the process.

    def put(self, about: str, notice: Notice) -> None:
        """Queue it, in place of what is queued about the same thing."""
        now = time.monotonic()
        with self._changed:
            self._queue.pop(about, None)
            last = self._sent.get(about)
            if _says_nothing_new(notice, last, now):
                self._count("repeated")
                return
            if len(self._queue) >= MOST_QUEUED:
                del self._queue[next(iter(self._queue))]
                self._left_out += 1
                self._count("dropped")
            self._queue[about] = (now if last is None else max(now, last.at + GAP), notice)
            self._changed.notify_all()

    def _run(self) -> None:
        while (notice := self._await_notice()) is not None:
            if not self._deliver(notice):
                self._count("dropped")
                with self._changed:
                    self._left_out += 1 + notice.left_out

    def _await_notice(self) -> Notice | None:
        """What is due first; None where it is to end."""
        with self._changed:
            while True:
                ending, now = self._until is not None, time.monotonic()
                if ending and (not self._queue or now >= (self._until or 0.0)):
                    return None
                due, about = min(((at, key) for key, (at, _) in self._queue.items()), default=(None, ""))
                if due is None or (due > now and not ending):
                    self._changed.wait(None if due is None else due - now)
                    continue
                _, notice = self._queue.pop(about)
                notice, self._left_out = structs.replace(notice, left_out=self._left_out), 0
                # Order: before it is sent, which may take minutes: that it is over meanwhile is told all the same.
                self._remember(about, notice)
                return notice

    def _remember(self, about: str, notice: Notice) -> None:
        self._sent.pop(about, None)  # Order: the newest are the last.
        self._sent[about] = _Sent(notice.kind, notice.text, time.monotonic())
        if len(self._sent) > MOST_KNOWN:
            del self._sent[next(iter(self._sent))]

    def _deliver(self, notice: Notice) -> bool:
        """Send it, again and again; whether it was taken."""
        about, pause = f"notify {self.target.name}", FIRST_PAUSE
        for tried in range(1, TRIES + 1):
            try:
                self._send(read_url(self.target.url_file), render(notice, self.target.form))
            except (Refusal, Failed) as error:
                words = error.words if isinstance(error, Refusal) else error.brief
                again = error.retry if isinstance(error, Refusal) else True
                after = error.after if isinstance(error, Refusal) else 0.0
                self._say(about, f"notification {self.target.name}: {words}")
            else:
                self._count("sent")
                self._say(about, "", over=f"notification {self.target.name}: taken again")
                return True
            if not again or tried == TRIES or not self._pause(min(max(pause, after), LONGEST_PAUSE)):
                break
            pause *= 2
        return False

    def _pause(self, seconds: float) -> bool:
        """Wait; False where it is to end, and there is no time for that."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                if self._until is not None and self._until < deadline:
                    return False
                self._changed.wait(left)
        return True


def _says_nothing_new(notice: Notice, last: _Sent | None, now: float) -> bool:
    """Whether who heard `last` about a thing need not hear this: he was not told that it was bad, or was just told."""
    if notice.kind == "recovered":
        return last is None or last.kind == "recovered"
    return last is not None and (last.kind, last.text) == (notice.kind, notice.text) and now - last.at < AGAIN
