"""What the controller says of itself to others: `ROOT/controller.json`, whole at any moment.

`status` reads it. It counts only while the process that wrote it lives; the next controller writes it anew.
"""

import time
from pathlib import Path

import msgspec
from msgspec import Struct

from reconciler.linux import process
from reconciler.model.record import ApplyId

NAME = "controller.json"
DEFAULT_ROOT = Path("/var/lib/reconcile")
DEFAULT_SOCKET = "/run/reconcile/api.sock"
"""Where the controller of that root answers, unless it was told otherwise."""


class CommitState(Struct, frozen=True, kw_only=True):
    """A commit, as its author described it."""

    id: str
    subject: str
    author: str
    at: float


class SourceState(Struct, frozen=True, kw_only=True):
    """How a source is."""

    name: str
    kind: str = "directory"
    broken: str = ""
    """Why it can't be read."""
    polled: str = ""
    """Why the kernel does not tell of changes in a folder, so that it is read every now and then."""
    problems: dict[str, str] = {}
    """By file: why its last version stays."""
    stale: str = ""
    """Of a repository: why what was taken of it last may not be what it wants by now."""
    commit: CommitState | None = None
    """What was taken of it last."""
    answered_at: float = 0.0
    """When it answered last; 0 for never, and for a folder."""


class StackState(Struct, frozen=True, kw_only=True):
    """How a stack stands with its source."""

    stack: str
    source: str
    file: str
    synced: bool
    """Whether what the source wants was applied; never where that can't be read or is gone."""
    since: float
    """Since when the source wants what it wants, has it no more, or is invalid."""
    problem: str = ""
    invalid: str = ""
    """The entry of the source that is invalid by now, so that its last version stays."""
    waits: str = ""
    """What of it waits for approval, and for which command."""
    gone: bool = False
    wanted: CommitState | None = None
    """The commit of a repository by which it is to be."""
    running: CommitState | None = None
    """The one by which it is; None where that is not known yet."""


class Serving(Struct, frozen=True, kw_only=True):
    """All of it."""

    process: ApplyId
    since: float
    at: float
    """When this was written."""
    ended: float = 0.0
    """When it was told to end and did; 0 while it lives, and for good where it was killed."""
    socket: str = ""
    """Where its API answers; empty where it does not."""
    problem: str = ""
    """Why its configuration is not as its file says."""
    sources: tuple[SourceState, ...] = ()
    stacks: tuple[StackState, ...] = ()

    @property
    def found_something(self) -> bool:
        """Whether anybody must look."""
        sources = any(source.broken or source.stale or source.problems for source in self.sources)
        return bool(self.problem) or sources or any(stack.problem or stack.waits or stack.gone for stack in self.stacks)

    def only(self, stack: str, source: str) -> "Serving":
        """What it says of one stack, and of the source that it is recorded to be of."""
        stacks = tuple(one for one in self.stacks if one.stack == stack)
        names = {source, *(one.source for one in stacks)}
        sources = tuple(source for source in self.sources if source.name in names)
        return msgspec.structs.replace(self, sources=sources, stacks=stacks)


def write_serving(root: Path, state: Serving) -> None:
    """Put it in the root. Raises OSError."""
    from reconciler.linux import files  # whoever only reads needs none of it

    files.write_atomic(root / NAME, msgspec.json.encode(msgspec.structs.replace(state, at=time.time())))


def read_serving(root: Path) -> Serving | None:
    """What the controller of a root says; None where none lives."""
    state = _read(root)
    return state if state is not None and _lives(state) else None


def read_last_serving(root: Path) -> Serving | None:
    """What the last controller of a root said before it ended; None where one lives, and where there never was one."""
    state = _read(root)
    return state if state is not None and not _lives(state) else None


def _lives(state: Serving) -> bool:
    who = state.process
    return not state.ended and who.boot_id == process.read_boot_id() and process.is_alive(who.pid, who.start_time)


def read_last_socket(root: Path) -> Path | None:
    """Where the last controller of a root answered, whether it lives or not; None where nobody knows."""
    state = _read(root)
    return Path(state.socket) if state is not None and state.socket else None


def _read(root: Path) -> Serving | None:
    try:
        state: Serving = msgspec.json.decode((root / NAME).read_bytes(), type=Serving)
    except (OSError, msgspec.MsgspecError):
        return None
    return state
