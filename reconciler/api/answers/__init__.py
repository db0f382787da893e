"""Answers what is asked of a root, in this process: `answer`.

Each call ends in a verb; what comes back is plain data in the forms that `-o json` prints. The command line comes here
where no controller has the root, the socket's server always.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.api.asks import Ask
from reconciler.api.frames import Listener

if TYPE_CHECKING:
    from reconciler.verbs.root import Root


class Opener(Protocol):
    """How the root is had."""

    def __call__(
        self, *, create: bool = False, frees: bool = False, lock_timeout: float | None = None
    ) -> "AbstractContextManager[Root]":
        """The root; `create` makes one that is not there, who `frees` may use what is reserved for that."""
        ...


Answerer = Callable[[Opener, Any, Listener], Any]


def answer(opened: Opener, ask: Ask, listener: Listener) -> Any:
    """Do what is asked. Raises ReconcileError."""
    from reconciler.api.answers.changing import ANSWERS as CHANGING
    from reconciler.api.answers.hands import ANSWERS as HANDS
    from reconciler.api.answers.images import ANSWERS as IMAGES
    from reconciler.api.answers.reading import ANSWERS as READING
    from reconciler.api.answers.sessions import ANSWERS as SESSIONS

    found: Answerer = {**READING, **CHANGING, **HANDS, **SESSIONS, **IMAGES}[type(ask)]
    return found(opened, ask, listener)
