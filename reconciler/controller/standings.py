"""How stacks stand with their sources: who has which, in what version, and whether that was applied.

Values and a lock; `keeper.py` acts by them. Nothing of it outlives the process: what must, is in the root.
"""

import threading
import time
from collections.abc import Collection, Iterator

from msgspec import Struct

from reconciler.controller.sources.sighting import Sighting, Source, Version
from reconciler.model.record import Commit
from reconciler.verbs.serving import CommitState, SourceState, StackState


class Standing(Struct, kw_only=True):
    """How one stack stands with its source."""

    source: str
    version: Version | None
    """What its source wants; None where it has it no more."""
    reached: str = ""
    """The token of the version that was applied last, whatever came of it that would come of it again."""
    running: Commit | None = None
    """Of a repository's: the commit that it is as; None where that is not known."""
    since: float = 0.0
    problem: str = ""
    """Why it is not as its source wants it."""
    waiting: str = ""
    """The token of the version whose plan waits for approval."""
    waits: str = ""
    """What waits, in words."""
    doomed: bool = False
    """It is gone from its source, and is to be deleted for that."""

    @property
    def invalid(self) -> str:
        """The entry of its source that is invalid by now, so that its last version stays."""
        return self.version.invalid if self.version is not None else ""

    @property
    def synced(self) -> bool:
        """Whether what the source wants was applied."""
        return self.version is not None and self.reached == self.version.token and not self.problem


class Differences(Struct, frozen=True, kw_only=True):
    """What a sighting changed."""

    renewed: tuple[str, ...] = ()
    """Stacks that are new, or another version."""
    claimed: tuple[tuple[str, str], ...] = ()
    """Stacks that another source has already, and which."""
    gone: tuple[str, ...] = ()
    """All that the source had and has no more."""
    left: int = 0
    """How many it has."""


class Standings:
    """All of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, Standing] = {}

    def __iter__(self) -> Iterator[tuple[str, Standing]]:
        with self._lock:
            return iter(sorted(self._by_name.items()))

    def get(self, stack: str) -> Standing | None:
        """That of one stack, if a source has or had it."""
        with self._lock:
            return self._by_name.get(stack)

    def forget(self, stack: str) -> None:
        """It was deleted."""
        with self._lock:
            self._by_name.pop(stack, None)

    def release(self, source: str) -> tuple[str, ...]:
        """A source is served no more: nobody says any longer what its stacks are to be. Their names."""
        with self._lock:
            names = sorted(name for name, held in self._by_name.items() if held.source == source)
            for name in names:
                del self._by_name[name]
        return tuple(names)

    def reach(self, held: Standing, version: Version | None, problem: str) -> None:
        """What an apply of a version came to; None where it is to be tried again."""
        with self._lock:
            held.problem = problem
            held.waiting = held.waits = ""
            if version is not None:
                held.reached = version.token
                held.running = held.running if problem else version.stack.commit

    def wait(self, held: Standing, version: Version | None, words: str) -> None:
        """A version waits for approval, if it is still what its source wants; None: nothing does."""
        with self._lock:
            if version is None or (held.version is not None and version.token == held.version.token):
                held.waiting, held.waits, held.problem = version.token if version is not None else "", words, ""

    def take(self, source: str, sighting: Sighting, recorded: Collection[str]) -> Differences:
        """What a source says now; `recorded` are the stacks that are on record as its own.

        Of what is recorded and was not seen since we began, nothing is known while an entry is invalid or being written.
        """
        renewed, claimed = [], []
        with self._lock:
            for stack, version in sighting.versions.items():
                held = self._by_name.get(stack)
                if held is None or held.version is None:
                    self._by_name[stack] = Standing(source=source, version=version, since=time.time())
                    renewed.append(stack)
                elif held.source != source:
                    claimed.append((stack, held.source))
                elif held.version.token != version.token:
                    held.version, held.since, held.problem = version, time.time(), ""
                    held.waiting = held.waits = ""
                    renewed.append(stack)
                else:  # A commit that changed nothing of it, or what came after it is invalid.
                    if version.invalid and not held.invalid:
                        held.since = time.time()
                    held.version = version
                    held.running = version.stack.commit if held.synced else held.running
            if not sighting.problems and not sighting.unsettled:
                for stack in recorded:
                    self._by_name.setdefault(stack, Standing(source=source, version=None, since=time.time()))
            own = {stack: held for stack, held in self._by_name.items() if held.source == source}
            gone = sorted(own.keys() - sighting.versions.keys())
            for stack in gone:
                if own[stack].version is not None:
                    own[stack].since = time.time()
                own[stack].version = None
                own[stack].waiting = own[stack].waits = ""
        return Differences(renewed=tuple(renewed), claimed=tuple(claimed), gone=tuple(gone), left=len(own) - len(gone))

    def read(self) -> tuple[StackState, ...]:
        """For `status`."""
        return tuple(
            StackState(
                stack=name,
                source=held.source,
                file=held.version.stack.source if held.version is not None else "",
                since=held.since,
                gone=held.version is None,
                synced=held.synced and not held.invalid,
                invalid=held.invalid,
                problem=held.problem,
                waits=held.waits,
                wanted=render_commit(held.version.stack.commit) if held.version is not None else None,
                running=render_commit(held.running),
            )
            for name, held in self
        )


def render_commit(commit: Commit | None) -> CommitState | None:
    """A commit as `status` has it."""
    return None if commit is None else CommitState(id=commit.id, subject=commit.subject, author=commit.author, at=commit.at)


def render_source(source: Source, sighting: Sighting, polled: str) -> SourceState:
    """A source as `status` has it."""
    return SourceState(
        name=source.name,
        kind=source.kind,
        broken=sighting.broken,
        polled=polled,
        problems=sighting.problems,
        stale=sighting.stale,
        commit=render_commit(sighting.commit),
        answered_at=sighting.answered_at,
    )
