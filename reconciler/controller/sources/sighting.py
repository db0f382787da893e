"""What one look at a source gives, whatever kind it is."""

from typing import Protocol

from msgspec import Struct

from reconciler.model.record import Commit, Stack


class Version(Struct, frozen=True, kw_only=True):
    """One stack as its source wants it now."""

    stack: Stack
    by_hand: str
    """The origin that the manifest has where a person applies it: what that owns, its source may take over."""
    token: str
    """Differs where anything of it may differ: the manifest or a file that it names."""
    invalid: str = ""
    """The entry that is invalid by now, where this is the last version of it that was not."""
    confined: bool = False
    """Whether it may borrow nothing of stacks that are not its source's."""


class Sighting(Struct, frozen=True, kw_only=True):
    """All that a source says at one moment."""

    versions: dict[str, Version]
    """By the stack's name: what is valid now, and of what is not the last that was."""
    problems: dict[str, str] = {}
    """By entry: why its last version stays, as `validate` would say it."""
    broken: str = ""
    """Why the source itself can't be read: then nothing is new, and nothing is gone."""
    unsettled: tuple[str, ...] = ()
    """Entries that are being written: to be looked at again in a moment."""
    stale: str = ""
    """Why this may not be what the source wants by now: it does not answer, or what it says is not taken."""
    commit: Commit | None = None
    """What was taken last of a repository."""
    fresh: bool = False
    """Whether it was taken with this very look."""
    answered_at: float = 0.0
    """When a repository answered last; seconds since the epoch."""
    again: float | None = None
    """Seconds until it is to be looked at again; None: as the policy says."""


class Source(Protocol):
    """Where stacks come from."""

    name: str
    kind: str
    """directory | git"""

    def read(self) -> Sighting:
        """What it says now."""
        ...

    def name_paths(self, text: str) -> str:
        """An error about its files, by the names that they have there; and why one of them is not there."""
        ...
