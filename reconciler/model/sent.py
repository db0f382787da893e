"""A file as whoever asks sends it, with a manifest that names it."""

from msgspec import Struct


class Sent(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A file as whoever asks has it."""

    data: bytes | None = None
    """What is in it, in base64; null: it is bound from the machine of the root, by its path."""
    size: int = 0
    """Bytes of what is not sent; 0 for a folder."""
    uid: int = 0
    gid: int = 0
    mode: int = 0o644
    """Permission bits."""
