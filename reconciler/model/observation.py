"""What was seen of the machine at one moment: one frozen value that records ambiguity and decides nothing."""

from enum import StrEnum

from msgspec import Struct

from reconciler.model.key import Key


class Phase(StrEnum):
    """The state of a resource as a whole."""

    PRESENT = "present"
    """Image, network or volume: it is there, whatever its parts say."""
    MISSING = "missing"
    """Nothing of it that counts is there."""
    CREATED = "created"
    """Container: prepared, never started."""
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a resource consists of. `field`, `old` and `new` say what was altered by others: from what we
    made to what is there now."""

    state: str = "present"
    """present | missing | altered"""
    field: str = ""
    old: str = ""
    new: str = ""
    mend: str = "in-place"
    """in-place | restart | replace: what it takes to bring this part back beneath a running container."""


class Health(StrEnum):
    """Health of a container. UNKNOWN where it has a check and nobody probes."""

    NONE = "none"
    UNKNOWN = "unknown"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class End(Struct, frozen=True):
    """An end of a container that its restart policy follows."""

    at: float
    """In seconds since the epoch."""
    ran: float
    """Seconds from its start to that."""


class Status(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was observed of a resource. Times are seconds since the epoch, 0 for never."""

    phase: Phase
    parts: dict[str, Part] = {}
    """By name: `bridge`, `address`, `rules`, `names`, `netns`, `veth/front`, `mount`, `monitor`, `cgroup`, `layers`, …"""
    incarnation: str = ""
    pid: int = 0
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    oom_killed: bool = False
    restarts: int = 0
    restarting: bool = False
    """Exited, and the exit command is about to start it again."""
    restart_at: float = 0.0
    """When it will, while it is restarting."""
    ends: tuple[End, ...] = ()
    """Its last few since somebody started it, oldest first."""
    stopped: bool = False
    """Its last end was a stop, not its own."""
    gave_up: bool = False
    """`on-failure:N` is used up."""
    health: Health = Health.NONE
    size: int = 0
    """Image: bytes of its layers here; container: bytes of its writable layer, when asked for."""
    empty: bool = False
    """Volume: nothing is in it."""
    error: str = ""
    """Why the last start failed, in the runtime's words."""


MISSING = Status(phase=Phase.MISSING)
"""Nothing of it is on the machine."""


class Stray(Struct, frozen=True, kw_only=True):
    """A thing on the machine that bears this root's id and belongs to no record: left by a crash."""

    kind: str
    """link | netns | mount | cgroup | bundle | process | folder | table | port"""
    name: str


class Observation(Struct, frozen=True, kw_only=True):
    """Everything seen. Every `Made` of the view has a status; where a key has two incarnations, the one that runs."""

    statuses: dict[Key, Status]
    others: dict[str, Status] = {}
    """By incarnation: the second one of a key that is being replaced."""
    strays: tuple[Stray, ...] = ()
    port_holders: dict[str, str] = {}
    """`HOST_IP:PORT/PROTO` of listening sockets that are not ours to who holds them, `nginx (pid 4121)`; only filled for
    the ports that were asked for."""
    boot_id: str = ""


def altered(field: str, old: str, new: str, mend: str = "in-place") -> Part:
    """A part that somebody changed."""
    return Part(state="altered", field=field, old=old, new=new, mend=mend)


def missing(mend: str = "in-place") -> Part:
    """A part that is gone."""
    return Part(state="missing", mend=mend)


PRESENT = Part()
