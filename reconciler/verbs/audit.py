"""Who did what to a stack, why, and what came of it: one `Changed` for each, at its end, in the event log.

`Recorder` (`record.py`) calls it for what has a plan, `containers.py` for what is done by hand.
"""

import getpass
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from msgspec import Struct, structs

from reconciler.model.errors import ConvergeFailed, Interrupted, ReconcileError, Refused, RolledBack
from reconciler.model.events import Changed
from reconciler.model.key import Key, Kind, stack_of
from reconciler.model.plan import Reason

MOST = 100
"""Actions that one event names: of more it has the number."""
_MOST_PATHS = 5
"""Fields that are named of an action."""
LONGEST = 2000
"""Characters of why something failed."""


class Actor(Struct, frozen=True, kw_only=True):
    """Who does something. What is not known of him is left out."""

    name: str
    uid: int | None = None
    pid: int | None = None
    source: str = ""
    """Of the controller: which of its sources wants it so."""
    commit: str = ""
    """Which version of that source."""


_ACTING: ContextVar[Actor | None] = ContextVar("acting", default=None)


@contextmanager
def acting_as(
    name: str, *, uid: int | None = None, pid: int | None = None, source: str = "", commit: str = ""
) -> Iterator[None]:
    """Have what this thread does recorded as done by somebody else than the process's user."""
    token = _ACTING.set(Actor(name=name, uid=uid, pid=pid, source=source, commit=commit))
    try:
        yield
    finally:
        _ACTING.reset(token)


def read_actor() -> Actor:
    """Who does this: who was named, or the user of this process; of sudo, who called it."""
    acting = _ACTING.get()
    if acting is not None:
        return acting
    asked = os.environ.get("SUDO_UID", "")
    name = os.environ.get("SUDO_USER") or getpass.getuser()
    return Actor(name=name, uid=int(asked) if asked.isdigit() else os.getuid(), pid=os.getpid())


def asking_uid() -> int:
    """Whose rights stand behind what this thread does: at a socket those of who asks, else our own."""
    acting = _ACTING.get()
    return os.geteuid() if acting is None or acting.uid is None else acting.uid


def who() -> str:
    """The same in one word, for revisions and holds."""
    return read_actor().name


class Audit:
    """What one verb does, from its beginning to its end."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._began = time.monotonic()
        self._actions: Sequence[Mapping[str, Any]] = ()

    def take_actions(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """What is to be done, in the form of `plan -o json`: of several plans the first, for the others follow from it."""
        self._actions = self._actions or actions

    def finish(self, error: BaseException | None) -> tuple[Changed, ...]:
        """What to record: an event for each stack of which something was to be done; none where nothing was."""
        by_stack: dict[str, list[Mapping[str, Any]]] = {}
        for action in self._actions:
            by_stack.setdefault(stack_of(action["key"]), []).append(action)
        return tuple(
            self._tell(stack, [_render(action) for action in actions[:MOST]], error, count=len(actions))
            for stack, actions in sorted(by_stack.items())
        )

    def finish_one(self, what: str, words: str, error: BaseException | None, *, note: str = "") -> Changed:
        """What to record of something that has no plan: `what` it was done to, a container's key or an image, with which
        `words`; `note` is what came of it, where that is worth a line."""
        stack = stack_of(Key(what)) if what.startswith(f"{Kind.CONTAINER.value}/") else ""
        action = f"{self._verb} {what}: {words}".removesuffix(": ")
        told = self._tell(stack, [action], error, count=1)
        return told if error is not None else structs.replace(told, why=note)

    def _tell(self, stack: str, actions: Sequence[str], error: BaseException | None, *, count: int) -> Changed:
        actor = read_actor()
        return Changed(
            verb=self._verb,
            stack=stack,
            who=actor.name,
            uid=actor.uid,
            pid=actor.pid,
            source=actor.source,
            commit=actor.commit,
            result=_name_result(error),
            why=_say_why(error),
            actions=tuple(actions),
            count=count,
            took=round(time.monotonic() - self._began, 3),
        )


def by_hand(verb: str, keys: Sequence[Key]) -> Audit:
    """Of something that is done to containers by their names."""
    audit = Audit(verb)
    audit.take_actions([{"verb": verb, "key": key, "reason": Reason.REQUESTED.value} for key in keys])
    return audit


def _render(action: Mapping[str, Any]) -> str:
    paths = [change["path"] for change in action.get("changes", ())]
    more = [f"and {len(paths) - _MOST_PATHS} more"] if len(paths) > _MOST_PATHS else []
    return " ".join([f"{action['verb']} {action['key']}: {action['reason']}", *paths[:_MOST_PATHS], *more])


def _name_result(error: BaseException | None) -> str:
    if error is None:
        return "done"
    if isinstance(error, RolledBack):
        return "rolled-back"
    if isinstance(error, Refused):
        return "refused"
    by_exception = isinstance(error, Exception) and not isinstance(error, Interrupted)
    return "failed" if by_exception else "interrupted"


def _say_why(error: BaseException | None) -> str:
    if error is None:
        return ""
    if not isinstance(error, ReconcileError):
        return f"{type(error).__name__}: {error}"[:LONGEST]
    # Not their details: what programs and logs said stands in the events of the actions.
    return "\n".join([error.brief, *(cause.brief for cause in find_causes(error))])[:LONGEST]


def find_causes(error: ReconcileError) -> Sequence[ReconcileError]:
    """Why its actions failed, where it is of an apply that did, gone back or not."""
    failed = error.failed if isinstance(error, RolledBack) else error
    return failed.causes if isinstance(failed, ConvergeFailed) else ()
