"""A file as whoever asks sends it, with a manifest that names it."""

from typing import Annotated

from msgspec import Meta, Struct

Id = Annotated[int, Meta(ge=0, le=2**32 - 2)]
"""Of a user or a group; the largest number means none (chown(2))."""


class Sent(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A file as whoever asks has it."""

    data: bytes | None = None
    """What is in it, in base64; null: it is bound from the machine of the root, by its path."""
    size: Annotated[int, Meta(ge=0)] = 0
    """Bytes of what is not sent; 0 for a folder."""
    uid: Id = 0
    gid: Id = 0
    mode: Annotated[int, Meta(ge=0, le=0o777)] = 0o644
    """Permission bits."""
