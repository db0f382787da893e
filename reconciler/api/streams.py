"""What one call tells, on its way from the thread that works to the loop that sends.

Bounded: who reads slowly is waited for, and who does not read at all has gone.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from reconciler.api import frames
from reconciler.api.asks import Agreed, Ask
from reconciler.api.frames import AnyFrame, Listener, Output
from reconciler.api.problem import Question, Unanswered, describe_error, map_error
from reconciler.api.pump import Pump
from reconciler.api.sessions import CopyOut, Session
from reconciler.model.events import AnyEvent

MOST_WAITING = 1024
"""Frames that may wait to be sent; one of output counts as one for each KiB."""
PATIENCE = 30.0
"""Seconds until who reads nothing has gone."""
LONG_PATIENCE = 3600.0
"""The same where streams are passed on: who pages through an output reads nothing for a while."""


class Room:
    """Frames that may wait."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._most = most
        self._changed = threading.Condition()

    def take(self, count: int, *, seconds: float) -> bool:
        """Wait until there is room for so many; False where there was none for so long."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._free >= min(count, self._most), timeout=seconds)
            if found:
                self._free -= count
            return found

    def give(self, count: int) -> None:
        """They are on their way."""
        with self._changed:
            self._free += count
            self._changed.notify_all()


def weigh(frame: AnyFrame) -> int:
    """What it counts for."""
    return 1 + (len(frame.data) >> 10) if isinstance(frame, Output) else 1


class Stream:
    """One call's. Its listener is called by threads, everything else on the loop."""

    def __init__(self, ask: Ask, loop: asyncio.AbstractEventLoop) -> None:
        self._ask = ask
        self._loop = loop
        self._frames: list[AnyFrame] = []
        self._room = Room(MOST_WAITING)
        self._patience = LONG_PATIENCE if isinstance(ask, Session | CopyOut) else PATIENCE
        self._gone = threading.Event()
        self._left = False
        self._ended = False
        self._some = asyncio.Event()
        self.pump: Pump | None = None
        """Of a call with streams: where its input goes."""
        if isinstance(ask, Session):
            self.pump = Pump(ask, self._put)
        self.listener = Listener(
            emit=self._emit, show=self._show, item=self._put, confirm=self._confirm, gone=self._gone.is_set,
            **({"join": self.pump.run} if self.pump else {}),
        )  # fmt: skip

    # --- from threads ---

    def _emit(self, event: AnyEvent) -> None:
        self._put(frames.Event(event=event))

    def _show(self, lines: Sequence[str]) -> None:
        self._put(frames.Shown(lines=tuple(lines)))

    def _put(self, frame: AnyFrame) -> None:
        if self._left:
            return
        if not self._room.take(weigh(frame), seconds=self._patience):
            self._loop.call_soon_threadsafe(self.leave)
            return
        self._loop.call_soon_threadsafe(self._take, frame)

    def _confirm(self, question: Question) -> bool | None:
        ask = self._ask
        if not isinstance(ask, Agreed) or not (ask.asks or ask.agreed):
            return None
        if ask.agreed in (question.token, "no"):
            return ask.agreed != "no"
        raise Unanswered(question)

    def cancel(self) -> None:
        """End at the next action; its end is still told."""
        self._gone.set()
        if self.pump is not None:
            self.pump.let_go()

    # --- on the loop ---

    def _take(self, frame: AnyFrame) -> None:
        if self._left:
            self._room.give(weigh(frame))
            return
        self._frames.append(frame)
        self._some.set()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._left = True
        self._gone.set()
        if self.pump is not None:
            self.pump.hang_up()
        self._room.give(MOST_WAITING * 2)  # Whoever waits to put one must not wait on.
        self._frames.clear()
        self._some.set()

    def end(self, future: "asyncio.Future[Any]") -> None:
        """The work has ended; what it came to is the last frame."""
        error = None if future.cancelled() else future.exception()
        self._ended = True
        if error is None:
            self._frames.append(frames.Answer(answer=None if future.cancelled() else future.result()))
        else:
            self._frames.append(frames.Broken(problem=describe_error(map_error(error))))
        self._some.set()

    async def begun(self) -> bool:
        """Wait until there is something to send: whether the work told something or went well."""
        await self._some.wait()
        return not (self._ended and len(self._frames) == 1 and isinstance(self._frames[0], frames.Broken))

    async def batches(self) -> AsyncIterator[Sequence[AnyFrame]]:
        """What there is, again and again, until the work has ended or nobody reads any more."""
        while not self._left:
            await self._some.wait()
            self._some.clear()
            batch, self._frames = self._frames, []
            self._room.give(sum(map(weigh, batch)))
            ended = self._ended
            if batch:
                yield batch
            if ended and not self._frames:
                return
