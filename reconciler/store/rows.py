"""What the store hands out besides the model's own records: grants, revisions, stored events."""

from msgspec import Struct

from reconciler.model.events import AnyEvent
from reconciler.model.key import Key
from reconciler.model.record import Stack

KEPT = 20
"""How many revisions of a stack are kept where nobody says otherwise."""


class Grant(Struct, frozen=True, kw_only=True):
    """One scarce thing that is given away; unique by everything but its owner."""

    pool: str
    """address | subnet | link | mac | port | volume"""
    scope: str
    """address: the network's key; port: `8080/tcp`; else empty."""
    value: str
    owner: Key


class Revision(Struct, frozen=True, kw_only=True):
    """One applied version of a stack."""

    stack: str
    number: int
    """From 1, growing by one."""
    at: float
    """Seconds since the epoch."""
    who: str
    source: str
    summary: dict[str, int]
    """Of its plan: how many actions of each verb."""
    images: dict[Key, str]
    """Digest by image key."""
    result: str = ""
    """Empty while it is applied; then `done` or what went wrong."""
    wanted: Stack | None = None
    """The stack as wanted; only filled where one revision is asked for."""


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event as recorded. Sensitive values in it stay sealed."""

    id: int
    at: float
    stack: str
    key: str
    """Empty for events of no resource."""
    event: AnyEvent


class Lease(Struct, frozen=True, kw_only=True):
    """An image kept because somebody pulled, loaded or built it by hand."""

    digest: str
    name: str
