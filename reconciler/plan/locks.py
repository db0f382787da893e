"""Lock files against manifests: what is locked and not there any more, what is there and not locked. Lines, no decisions.

Called by `make.py`. That a tag has moved since is `verbs/resolve.py`'s to find, which asks outside.
"""

from collections.abc import Iterable, Iterator

from reconciler.model.key import Key, Kind, make_key
from reconciler.model.plan import Line
from reconciler.model.record import Stack
from reconciler.model.spec import ImageSpec


def render_locks(stacks: Iterable[Stack]) -> list[Line]:
    """The lines of all stacks that have a lock file."""
    return [line for stack in stacks for line in _render(stack)]


def _render(stack: Stack) -> Iterator[Line]:
    lock = stack.lock
    if lock is None:
        return
    mends = f"`reconcile lock {stack.source}`"
    pinned = {spec.reference for spec in stack.specs.values() if isinstance(spec, ImageSpec)}
    for tag, digest in lock.digests.items():
        if f"{tag}@{digest}" not in pinned:
            key = make_key(Kind.IMAGE, stack.name, tag)
            yield Line(key=key, text=f"{lock.file} names it, and the manifest does not: {mends} takes it out")
    for key, spec in stack.specs.items():
        if is_open(spec):
            yield Line(key=Key(key), text=f"{lock.file} does not name it: {mends} adds it")


def is_open(spec: object) -> bool:
    """Whether an image is a tag that nothing pins, and that may be locked."""
    return isinstance(spec, ImageSpec) and bool(spec.reference) and "@" not in spec.reference and spec.pull != "never"
