"""What was applied, and what happened: revisions and events. Reads only, but for `drop`."""

import time
from collections.abc import Callable, Iterator

from msgspec import Struct

from reconciler.model.errors import Failed, NotFound
from reconciler.model.events import AnyEvent, silent
from reconciler.model.record import Stack
from reconciler.plan.past import Difference, Past, diff_pasts
from reconciler.store.rows import Revision, StoredEvent
from reconciler.verbs.look import look
from reconciler.verbs.pasts import past_of
from reconciler.verbs.record import Recorder, note_exits, put_seen
from reconciler.verbs.root import Root

POLL = 0.5
"""Seconds between two looks for new events."""
NOTHING = Past(number=0, result="", stack=Stack(name="", origin="", source="", specs={}), images={})
"""What was before the first revision."""


class Entry(Struct, frozen=True, kw_only=True):
    """One revision, and what it changed."""

    revision: Revision
    changed: list[Difference] | None
    """From the revision before it; None where that one is not kept."""


def history(root: Root, stack: str) -> list[Entry]:
    """The kept revisions of a stack, oldest first. Raises NotFound."""
    with root.store.read() as tx:
        revisions, stacks = tx.whole_revisions(stack), tx.stacks()
    if not revisions and stack not in stacks:
        raise NotFound("stack", stack, stacks)
    entries, before = [], NOTHING
    for revision in revisions:
        past = past_of(revision)
        known = before.number == past.number - 1
        entries.append(Entry(revision=revision, changed=diff_pasts(before, past) if known else None))
        before = past
    return entries


def diff(root: Root, stack: str, old: int, new: int) -> list[Difference]:
    """What differs from one revision of a stack to another. Raises NotFound, Failed for a number that is not kept."""
    pasts = {entry.revision.number: past_of(entry.revision) for entry in history(root, stack)}
    for number in (old, new):
        if number not in pasts:
            kept = ", ".join(map(str, pasts))
            raise Failed(f"stack {stack} has no revision {number}", f"kept are {kept}", f"`reconcile history {stack}`")
    return diff_pasts(pasts[old], pasts[new])


def drop(root: Root, stack: str, *, keep: int) -> int:
    """Drop all but the newest revisions of a stack; how many went. Raises NotFound."""
    history(root, stack)
    with root.lock_root("history"), root.store.write() as tx:
        dropped = tx.drop_revisions(stack, keep=keep)
        tx.drop_unused_contents()
        return dropped


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
