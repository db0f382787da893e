"""What is told while something is done, as lines: events, and the plan with its verbs in colours."""

import re
from collections.abc import Iterator, Sequence

from reconciler.api.look import Look, clean, counted, paint
from reconciler.model.events import ActionDone, ActionFailed, ActionSkipped, AnyEvent, Note, Progress
from reconciler.model.units import render_size_rounded

_HEAD = re.compile(r"^( *\d+ )(create|update|restart|replace|delete)\b")
_COLOURS = {"create": "32", "update": "36", "restart": "33", "replace": "33", "delete": "31"}


class PlainText:
    """A line for each thing that began to matter or ended; progress only where it changes its word."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._parts: dict[tuple[str, str], str] = {}

    def __call__(self, event: AnyEvent) -> Iterator[str]:
        """Its lines."""
        yield from final_lines(event, self._look)
        if isinstance(event, Progress) and event.text in ("downloading", "done", "exists") and self._is_new(event):
            self._parts[(event.key, event.part)] = event.text
            total = f" ({render_size_rounded(event.total)})" if event.total else ""
            yield f"  {clean(event.key)} {clean(event.part)} {clean(event.text)}{total}"

    def _is_new(self, event: Progress) -> bool:
        return self._parts.get((event.key, event.part)) != event.text


def final_lines(event: AnyEvent, look: Look) -> list[str]:
    """What stays on the screen of an event."""
    if isinstance(event, ActionDone):
        return [f"{paint('✓', '32', look)} {event.verb} {clean(event.key)}  {event.took:.2f} s"]
    if isinstance(event, ActionFailed):
        brief = clean(event.brief.removeprefix(f"{event.key}: "))
        lines = [f"{paint('✗', '31;1', look)} {event.verb} {clean(event.key)}: {brief}"]
        lines += [f"    {clean(line)}" for line in event.detail.splitlines()]
        return lines + ([f"    hint: {clean(event.hint)}"] if event.hint else [])
    if isinstance(event, ActionSkipped):
        return [f"- {event.verb} {clean(event.key)}: not begun, for {clean(event.because)} failed"]
    if isinstance(event, Note):
        mark = paint("!", "33;1", look) if event.level == "warning" else "·"
        return [f"{mark} {clean(event.key) + ': ' if event.key else ''}{clean(event.text)}"]
    return []


def render_plan(lines: Sequence[str], look: Look) -> Iterator[str]:
    """A plan's text, with its verbs in colours."""
    for line in map(clean, lines):
        found = _HEAD.match(line)
        if found and look.colours:
            head, verb = found.groups()
            yield f"{head}\x1b[{_COLOURS[verb]};1m{verb}\x1b[0m{line[found.end() :]}"
        else:
            yield line


def render_done(done: int) -> str:
    """The last line of what went well."""
    return f"done: {counted(done, 'action')}"
