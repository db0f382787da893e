"""What was applied, and what happened: revisions and events. Reads only."""

import time
from collections.abc import Callable, Iterator

from reconciler.model.errors import NotFound
from reconciler.store.rows import Revision, StoredEvent
from reconciler.verbs.root import Root

POLL = 0.2
"""Seconds between two looks for new events."""


def history(root: Root, stack: str) -> list[Revision]:
    """The kept revisions of a stack, oldest first. Raises NotFound."""
    with root.store.read() as tx:
        revisions, stacks = tx.revisions(stack), tx.stacks()
    if not revisions and stack not in stacks:
        raise NotFound("stack", stack, sorted(stacks))
    return revisions


def events(root: Root, *, stack: str = "", follow: bool, stop: Callable[[], bool]) -> Iterator[StoredEvent]:
    """Recorded events, oldest first; with `follow`, on until `stop()`."""
    last = 0
    while True:
        with root.store.read() as tx:
            found = tx.events(last, stack=stack or None)
        yield from found
        last = found[-1].id if found else last
        if not follow or stop():
            return
        if not found:
            time.sleep(POLL)
