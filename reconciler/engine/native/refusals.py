"""Turns what the kernel refuses in a verb of engine or driver, where nobody below told it, into one of our errors.

The protocol promises errors of ours only: `converge` takes back what a failed verb began, and goes on. A disk that is full
or fails, no memory, no descriptors may come up at any call below; who can say more about his own refusals does so before.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from reconciler.model.errors import MachineRefused, find_refusal
from reconciler.model.record import Made

_Told = TypeVar("_Told", bound=type[Any])


def telling(*names: str, **tried: str) -> Callable[[_Told], _Told]:
    """Decorates a class: those of its methods raise MachineRefused. It says what was tried, which is the method's name or
    other words for it, after the key of what the first argument is, where it is something."""

    def decorate(told: _Told) -> _Told:
        for name, words in (*zip(names, names, strict=True), *tried.items()):
            setattr(told, name, _tell(vars(told)[name], words))
        return told

    return decorate


def _tell(verb: Callable[..., Any], tried: str) -> Callable[..., Any]:
    @functools.wraps(verb)
    def told(self: object, *arguments: Any, **named: Any) -> Any:
        try:
            return verb(self, *arguments, **named)
        except (OSError, MemoryError, RuntimeError) as error:
            refusal = find_refusal(error)
            if refusal is None:
                raise
            whose = f"{arguments[0].key}: " if arguments and isinstance(arguments[0], Made) else ""
            raise MachineRefused(f"{whose}{tried}", refusal) from error

    return told
