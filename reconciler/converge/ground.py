"""What converge stands on: store, engine, the root's lock, and the sources of time and chance, handed in from outside."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec import Struct

from reconciler.engine.protocol import Engine
from reconciler.model.record import ApplyId, Made
from reconciler.store.store import Store


def let_begin(made: Made) -> None:
    """Nobody attaches."""


class Ground(Struct, frozen=True, kw_only=True):
    """One root, opened for change. Whoever holds it holds the locks of the stacks that he changes."""

    root_id: str
    store: Store
    engine: Engine
    apply: ApplyId
    lock_root: Callable[[str], AbstractContextManager[None]]
    """The root's lock, with what it is taken for; held for milliseconds, never while waiting for anything."""
    now: Callable[[], float]
    """Seconds since the epoch."""
    clock: Callable[[], float]
    """Seconds of a clock that only goes forward."""
    token: Callable[[int], str]
    """So many random hex digits."""
    pause: Callable[[float], None] = time.sleep
    """Wait so many seconds. Called from worker threads."""
    named: Callable[[], None] | None = None
    """Called when a new container is made in full, before it runs: returns once its name is loaded, raises where that can't
    be. Called from worker threads. None where names were loaded before."""
    created: Callable[[Made], None] = let_begin
    """Called with a new container once it is made and before it begins: who attaches there misses nothing."""
