"""What was applied, and what happened: revisions and events. Reads only, but for `drop`."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from msgspec import Struct

from reconciler.linux.inotify import TouchWaiter
from reconciler.model.errors import Failed, NotFound
from reconciler.model.events import AnyEvent, silent
from reconciler.model.record import Stack
from reconciler.plan.past import Difference, Past, diff_pasts
from reconciler.store.rows import Revision, StoredEvent
from reconciler.verbs.look import look
from reconciler.verbs.pasts import past_of
from reconciler.verbs.record import Recorder, note_exits, put_seen
from reconciler.verbs.root import Root
from reconciler.verbs.serving import read_serving

PAGE = 1000
"""Events that are read at once; so many of the newest are shown where nobody says since when."""
LONGEST_WAIT = 30.0
"""Seconds that `events` waits for a write to the database before it asks whether it is to stop."""
UNSERVED_WAIT = 2.0
"""The same where no controller lives: nobody else records exits then, so whoever follows looks for them."""
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


def events(
    root: Root,
    *,
    stack: str = "",
    since: float = 0.0,
    after: int = 0,
    follow: bool,
    stop: Callable[[], bool],
    longest_wait: float = LONGEST_WAIT,
) -> Iterator[StoredEvent]:
    """Recorded events, oldest first: those since a moment (seconds since the epoch), those after one whose id is known,
    else the newest. With `follow`, on until `stop()`, which is asked at least each `longest_wait` seconds.

    Exits that nobody has recorded yet are taken in. Whoever follows sleeps until some are written.
    """
    last = after
    with ExitStack() as left:
        waiter = left.enter_context(_waiting(root)) if follow else None
        while True:
            served = waiter is not None and read_serving(root.path) is not None
            if not served:
                take_exits(root)
            onward = bool(last or since)
            with root.store.read() as tx:
                found = tx.events(last, stack=stack or None, at=since, limit=PAGE)
            yield from found
            last = found[-1].id if found else last
            if onward and len(found) == PAGE:
                continue
            if waiter is None or stop():
                return
            waiter(min(longest_wait, LONGEST_WAIT if served else UNSERVED_WAIT))


@contextmanager
def _waiting(root: Root) -> Iterator[Callable[[float], object]]:
    """A wait for events that any process writes (the store touches its file then); where there is no file yet, a sleep."""
    try:
        waiter = TouchWaiter(root.store.path)
    except OSError:
        yield lambda seconds: time.sleep(min(seconds, UNSERVED_WAIT))
        return
    try:
        yield waiter.wait
    finally:
        waiter.close()


def take_exits(root: Root) -> None:
    """Record the exits that exit commands left since somebody last looked."""
    told: list[AnyEvent] = []
    seen = note_exits(look(root), told.append)
    if seen:
        with Recorder(root, silent, []) as recorder:
            for event in told:
                recorder(event)
        put_seen(root, seen)
