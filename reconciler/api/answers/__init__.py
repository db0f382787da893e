"""Answers what is asked of a root, in this process: `answer`.

Each call ends in a verb; what comes back is plain data in the forms that `-o json` prints. The command line comes here
where no controller has the root, the socket's server always.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.api.asks import CALL_OF, Ask
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
    module = import_module(f"{__name__}.{CALL_OF[type(ask)].by}")
    found: Answerer = module.ANSWERS[type(ask)]
    return found(opened, ask, listener)
