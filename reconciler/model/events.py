"""Events: what people and programs are told while something happens. Typed, and streamed as JSON lines by `-o json`."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from reconciler.model.key import Key


class Event(Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    """What all events share. `at` is filled where the event is recorded or shown."""

    at: float = 0.0


class PlanMade(Event, frozen=True, kw_only=True, tag="plan"):
    """A plan was made and is about to run; in the form of `plan -o json`."""

    plan: dict[str, Any]


class ActionStarted(Event, frozen=True, kw_only=True, tag="started"):
    """Work on an action began."""

    id: int
    verb: str
    key: Key


class ActionStep(Event, frozen=True, kw_only=True, tag="step"):
    """What an action does now, in one or two words: `stopping`, `waiting for health`."""

    id: int
    key: Key
    text: str


class Progress(Event, frozen=True, kw_only=True, tag="progress"):
    """How far a part of the work on a resource is, a layer for example. Bytes; `total` 0 when not known."""

    key: Key
    part: str
    done: int
    total: int
    text: str = ""
    """downloading | unpacking | done | exists"""


class ActionDone(Event, frozen=True, kw_only=True, tag="done"):
    """An action is done; `took` in seconds."""

    id: int
    verb: str
    key: Key
    took: float
    because: str = ""
    """Why it was in the plan, in its words; empty where somebody asked for it by name."""


class ActionFailed(Event, frozen=True, kw_only=True, tag="failed"):
    """An action failed, in the words of the error."""

    id: int
    verb: str
    key: Key
    brief: str
    detail: str = ""
    hint: str = ""


class ActionSkipped(Event, frozen=True, kw_only=True, tag="skipped"):
    """An action was not begun because one that it comes after failed."""

    id: int
    verb: str
    key: Key
    because: Key


class Note(Event, frozen=True, kw_only=True, tag="note"):
    """Something worth telling: a lock waited for, a stray removed, a restart, a warning."""

    text: str
    key: Key | None = None
    level: str = "info"
    """info | warning"""


class Changed(Event, frozen=True, kw_only=True, tag="change"):
    """Somebody changed something of a stack, or tried to: told at its end, with what came of it. An audit reads these."""

    verb: str
    """apply | heal | delete | rollback | boot | run | stop | start | restart | kill | pause | unpause | exec | attach | cp
    | pull | images rm | images prune"""
    stack: str
    """Empty for images."""
    who: str
    """A user, or `serve SOURCE`."""
    uid: int | None = None
    pid: int | None = None
    source: str = ""
    commit: str = ""
    result: str
    """done | failed | rolled-back | refused | interrupted"""
    why: str = ""
    """What went wrong, or what else came of it."""
    actions: tuple[str, ...] = ()
    """`VERB KEY: REASON PATH …` of each action of the plan, with the fields that it is for; of very many the first.
    `exec KEY: PROGRAM`, `cp KEY: out PATH`."""
    count: int = 0
    """How many there are."""
    took: float = 0.0
    """Seconds."""


AnyEvent = PlanMade | ActionStarted | ActionStep | Progress | ActionDone | ActionFailed | ActionSkipped | Note | Changed

Emit = Callable[[AnyEvent], None]
"""Where events go. May be called from worker threads."""


def silent(event: AnyEvent) -> None:
    """An `Emit` that drops everything."""
