"""What a call that streams tells, a line of JSON each: events, what to show, items, and at the end an answer or a problem.

`Listener` is who hears it: a terminal, or the far end of a socket.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from reconciler.api.problem import ProblemDetails, Question
from reconciler.api.sessions import MOST_CELLS
from reconciler.model.events import AnyEvent, Emit, silent


class Frame(Struct, frozen=True, kw_only=True, tag_field="type"):
    """One line."""


class Event(Frame, frozen=True, kw_only=True, tag="event"):
    """Something happened."""

    event: AnyEvent


class Shown(Frame, frozen=True, kw_only=True, tag="shown"):
    """A plan, as people read it."""

    lines: tuple[str, ...]


class Item(Frame, frozen=True, kw_only=True, tag="item"):
    """One of what was asked for: a log line, a recorded event."""

    item: Any
    id: int = 0
    """Of a recorded event: where to resume."""


class Output(Frame, frozen=True, kw_only=True, tag="output"):
    """What a command wrote."""

    stream: str
    """stdout | stderr"""
    data: bytes
    """In base64 (RFC 4648)."""


class Begun(Frame, frozen=True, kw_only=True, tag="begun"):
    """A command runs, or a container's streams were joined: from now on input is taken."""

    tty: bool = False
    """It has a terminal: the one at this end should pass every key on."""
    stdin: bool = False
    """It reads input."""


class Answer(Frame, frozen=True, kw_only=True, tag="answer"):
    """It is done; the last line."""

    answer: Any = None


class Broken(Frame, frozen=True, kw_only=True, tag="problem"):
    """It failed; the last line."""

    problem: ProblemDetails


AnyFrame = Event | Shown | Item | Output | Begun | Answer | Broken


class Input(Frame, frozen=True, kw_only=True, tag="input"):
    """What a command is to read."""

    data: bytes
    """Empty: there is no more; the body's end says the same."""


class Signal(Frame, frozen=True, kw_only=True, tag="signal"):
    """A signal for a command."""

    number: int


class Resize(Frame, frozen=True, kw_only=True, tag="resize"):
    """The terminal at this end has another size."""

    rows: Annotated[int, Meta(ge=0, le=MOST_CELLS)]
    columns: Annotated[int, Meta(ge=0, le=MOST_CELLS)]


AnyInput = Input | Signal | Resize

encode = msgspec.json.Encoder().encode
decode_frame = msgspec.json.Decoder(AnyFrame).decode


def _nothing(what: Any) -> None:  # noqa: ARG001 the signature of `show` and `item`
    return


def _nobody(question: Question) -> bool | None:  # noqa: ARG001 the signature of `confirm`
    return None


def _stays() -> bool:
    return False


def _with_own(work: Callable[[Any], Any]) -> Any:
    return work(None)


class Listener(Struct, frozen=True, kw_only=True):
    """Who hears what a call tells. Called from any thread but `confirm`."""

    emit: Emit = silent
    show: Callable[[Sequence[str]], None] | None = None
    """Lines of a plan, before anything is changed; None where nobody reads them."""
    item: Callable[[Any], None] = _nothing
    confirm: Callable[[Question], bool | None] = _nobody
    """Yes, no, or None where nobody can be asked."""
    gone: Callable[[], bool] = _stays
    """Whether nobody listens any more: nothing new is begun then."""
    join: Callable[[Callable[[Any], Any]], Any] = _with_own
    """Does what is passed to it, with the streams of whoever listens (`engine.protocol.Streams`), and gives what that
    gives; with None: those of this process."""
