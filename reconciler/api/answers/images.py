"""Images by hand."""

from typing import Any

from reconciler.api import asks
from reconciler.api.answers import Answerer, Opener
from reconciler.api.frames import Listener
from reconciler.model.errors import Interrupted
from reconciler.model.events import AnyEvent
from reconciler.verbs import images as verbs


def list_images(opened: Opener, ask: asks.Images, listener: Listener) -> Any:
    """In the form of `images ls -o json`."""
    with opened() as root:
        rows = verbs.list_images(root)
    return [
        {"digest": row.image.digest, "names": row.image.names, "size": row.image.size, "used_by": row.used_by}
        for row in rows
    ]


def inspect(opened: Opener, ask: asks.Inspect, listener: Listener) -> Any:
    """In the form of `images inspect`."""
    with opened() as root:
        return verbs.inspect(root, ask.image)


def pull(opened: Opener, ask: asks.Pull, listener: Listener) -> Any:
    """Digests by reference. Raises Interrupted where nobody wants them any more."""

    def emit(event: AnyEvent) -> None:
        if listener.gone():
            raise Interrupted("interrupted", hint="the next pull goes on with what this one brought")
        listener.emit(event)

    with opened(create=True) as root:
        return {reference: verbs.pull(root, reference, emit=emit) for reference in ask.references}


def remove(opened: Opener, ask: asks.RemoveImage, listener: Listener) -> Any:
    """What went: pairs of a name and bytes."""
    with opened(frees=True) as root:
        return verbs.remove(root, ask.image)


def prune(opened: Opener, ask: asks.Prune, listener: Listener) -> Any:
    """As remove."""
    with opened(frees=not ask.dry_run) as root:
        return verbs.prune(root, all_=ask.all, dry_run=ask.dry_run)


ANSWERS: dict[type[asks.Ask], Answerer] = {
    asks.Images: list_images,
    asks.Inspect: inspect,
    asks.Pull: pull,
    asks.RemoveImage: remove,
    asks.Prune: prune,
}
