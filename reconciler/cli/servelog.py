"""What a controller tells → its log: lines on standard error, entries of systemd's journal with fields, or JSON lines."""

import sys
import threading
import time
from contextlib import suppress

from reconciler.api.look import PLAIN, Look, clean
from reconciler.api.told import final_lines
from reconciler.cli.render import look_of
from reconciler.linux.journal import Journal, is_journal
from reconciler.model.events import ActionDone, ActionFailed, ActionSkipped, AnyEvent, Changed, Note

FORMS = ("text", "json")
_STAYS = (ActionDone, ActionFailed, ActionSkipped, Note, Changed)
_WARNING, _INFO = 4, 6
"""Priorities of syslog(3)."""


class Log:
    """An entry an event, of those that stay."""

    def __init__(self, form: str = "text") -> None:
        self._lock = threading.Lock()
        self._json = form == "json"
        self._journal = None if self._json or not is_journal(2) else Journal()

    def __call__(self, event: AnyEvent) -> None:
        """Write it. From any thread."""
        if not isinstance(event, _STAYS):
            return
        # Nobody reads it any more: whoever works must go on.
        with self._lock, suppress(OSError):
            if self._json:
                print(render_json(event, time.time()), file=sys.stderr, flush=True)
            elif self._journal is None or not self._journal.write(render_fields(event)):
                _print_lines(event)


def is_bad(event: AnyEvent) -> bool:
    """Whether somebody should look."""
    return (
        isinstance(event, ActionFailed)
        or (isinstance(event, Note) and event.level == "warning")
        or (isinstance(event, Changed) and event.result in ("failed", "rolled-back"))
    )


def render_json(event: AnyEvent, now: float) -> str:
    """The event as `events -o json` shows it, with its time and a level."""
    import msgspec

    fields = msgspec.to_builtins(event)
    level = "warning" if is_bad(event) else "info"
    return msgspec.json.encode({"at": fields.pop("at", 0.0) or now, "level": level, **fields}).decode()


def render_fields(event: AnyEvent) -> dict[str, str]:
    """Its fields in the journal: MESSAGE and PRIORITY as everybody's, RECONCILE_… of our own."""
    import msgspec

    fields = msgspec.to_builtins(event)
    lines = _lines(event, PLAIN) or [_say_change(event)]
    own = {
        f"RECONCILE_{name.upper()}": str(fields[name])
        for name in ("event", "verb", "key", "stack", "who", "source", "commit", "result")
        if fields.get(name)
    }
    priority = str(_WARNING if is_bad(event) else _INFO)
    return {"MESSAGE": "\n".join(lines), "PRIORITY": priority, "SYSLOG_IDENTIFIER": "reconcile", **own}


def _say_change(event: AnyEvent) -> str:
    assert isinstance(event, Changed)
    return f"{event.verb} {event.stack} by {event.who}: {event.result} ({event.count} actions, {event.took:.1f} s)"


def _lines(event: AnyEvent, look: Look) -> list[str]:
    """As a terminal shows it, and why: nobody has read the plan here."""
    why = f"  because {clean(event.because)}" if isinstance(event, ActionDone) and event.because else ""
    return [line + why for line in final_lines(event, look)] if why else final_lines(event, look)


def _print_lines(event: AnyEvent) -> None:
    """Lines for people, with a time. What a change came to is told by its actions and by whoever asked for it."""
    head = time.strftime("%Y-%m-%d %H:%M:%S ")
    for line in _lines(event, look_of(sys.stderr)):
        for part in line.splitlines():
            print(f"{head}{part}", file=sys.stderr, flush=True)
