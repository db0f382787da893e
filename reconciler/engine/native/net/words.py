"""Turns the kernel's refusals into the project's errors, for all of `net/`: which resource, what was tried, its words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.model.errors import Failed, NotRoot
from reconciler.model.key import Key


@contextmanager
def saying(key: Key | str, tried: str) -> Iterator[None]:
    """Raise what the kernel refuses in the block as Failed (NotRoot where rights are missing), naming key and deed."""
    try:
        yield
    except PermissionError as refusal:
        if refusal.errno == errno.EPERM:
            raise NotRoot(f"{key}: {tried}") from refusal
        raise _failed(key, tried, refusal) from refusal
    except OSError as refusal:
        raise _failed(key, tried, refusal) from refusal


def _failed(key: Key | str, tried: str, refusal: OSError) -> Failed:
    return Failed(
        f"{key}: {tried}: {refusal.strerror or refusal}", hint="`reconcile doctor` looks for what the kernel lacks"
    )
