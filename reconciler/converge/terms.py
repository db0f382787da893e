"""What a run is told and what it tells in the end."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from reconciler.model.errors import ReconcileError
from reconciler.model.key import Key


def _stays() -> bool:
    return False


class Options(Struct, frozen=True, kw_only=True):
    """How to converge."""

    wait: bool = True
    """Whether done means seen; what depends on health waits all the same."""
    timeout: float = 300.0
    """Seconds that one container may take to be seen."""
    workers: int = 16
    refused: Mapping[Key, ReconcileError] = {}
    """Actions that a rule forbids, by key, with why: they fail before they begin, and what comes after them is skipped."""
    gone: Callable[[], bool] = _stays
    """Whether nobody wants it any more: the same as an interrupt."""


class Result(Struct, frozen=True, kw_only=True):
    """How it went, action by action."""

    done: tuple[Key, ...]
    failed: tuple[Key, ...]
    skipped: tuple[Key, ...]
    interrupted: bool = False
    errors: dict[Key, ReconcileError] = {}
    """Of those that failed."""
