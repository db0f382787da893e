"""Points of failure of this process, for as long as a block runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.linux import failpoint


@contextmanager
def failing(terms: str) -> Iterator[None]:
    """Points armed as `failpoint.arm` has it, and none afterwards, however the block ends."""
    failpoint.arm(terms)
    try:
        yield
    finally:
        failpoint.arm("")
