"""What was applied, and what happened: revisions and events. Reads only."""

import time
from collections.abc import Callable, Iterator

from reconciler.model.errors import NotFound
from reconciler.model.events import AnyEvent, silent
from reconciler.store.rows import Revision, StoredEvent
from reconciler.verbs.look import look
from reconciler.verbs.record import Recorder, note_exits, put_seen
from reconciler.verbs.root import Root

POLL = 0.5
"""Seconds between two looks for new events."""


def history(root: Root, stack: str) -> list[Revision]:
    """The kept revisions of a stack, oldest first. Raises NotFound."""
    with root.store.read() as tx:
        revisions, stacks = tx.revisions(stack), tx.stacks()
    if not revisions and stack not in stacks:
        raise NotFound("stack", stack, sorted(stacks))
    return revisions


def events(root: Root, *, stack: str = "", follow: bool, stop: Callable[[], bool]) -> Iterator[StoredEvent]:
    """Recorded events, oldest first; with `follow`, on until `stop()`. Exits that nobody has recorded yet are taken in."""
    last = 0
    while True:
        take_exits(root)
        with root.store.read() as tx:
            found = tx.events(last, stack=stack or None)
        yield from found
        last = found[-1].id if found else last
        if not follow or stop():
            return
        if not found:
            time.sleep(POLL)


def take_exits(root: Root) -> None:
    """Record the exits that exit commands left since somebody last looked."""
    told: list[AnyEvent] = []
    seen = note_exits(look(root), told.append)
    if seen:
        with Recorder(root, silent, []) as recorder:
            for event in told:
                recorder(event)
        put_seen(root, seen)
