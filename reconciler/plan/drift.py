"""Turns an observed status into changes at `/parts/NAME`: from what is there to what we made.

Feeds `decide.py`. A container that does not run though it should is the part `process`. Never says whether it should.
"""

from reconciler.model.key import Kind
from reconciler.model.observation import Part, Status
from reconciler.model.plan import Change, Effect
from reconciler.plan.diff import pointer_step
from reconciler.plan.exits import render_end

PARTS = "/parts"


def diff_parts(kind: Kind, status: Status) -> tuple[Change, ...]:
    """A change for each part that is missing or altered, by name; its effect is what mending it takes."""
    if not status.parts:
        return ()
    return tuple(
        _change(name, part, _mend(kind, part)) for name, part in sorted(status.parts.items()) if part.state != "present"
    )


def diff_process(status: Status) -> Change:
    """The change that brings a container back to running."""
    return Change(path=f"{PARTS}/process", old=render_end(status), new="running", effect=Effect.RESTART)


def diff_pause() -> Change:
    """The change that lets a container go on which nobody of ours has paused."""
    return Change(path=f"{PARTS}/process", old="paused", new="running", effect=Effect.IN_PLACE)


def is_part(change: Change) -> bool:
    """Whether a change mends the machine, rather than following the manifest."""
    return change.path.startswith(PARTS + "/")


def _change(name: str, part: Part, effect: Effect) -> Change:
    path = PARTS + pointer_step(name)
    if part.state == "missing":
        return Change(path=path, old="missing", new="present", effect=effect)
    field = f"{part.field} " if part.field else ""
    # A part says what others did, from what we made to what is there; the plan goes the way back.
    return Change(path=path, old=f"{field}{part.new}", new=f"{field}{part.old}", effect=effect)


def _mend(kind: Kind, part: Part) -> Effect:
    effect = Effect(part.mend)
    # Only containers run; anything else is mended where it is.
    return Effect.IN_PLACE if effect is Effect.RESTART and kind is not Kind.CONTAINER else effect
