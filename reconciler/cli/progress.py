"""Events → what a person watches: a live block on a terminal, plain lines elsewhere, JSON lines with `-o json`."""

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from reconciler.api.look import clean, paint
from reconciler.cli.render import coloured, is_terminal, look_of
from reconciler.model.events import (
    ActionDone,
    ActionFailed,
    ActionSkipped,
    ActionStarted,
    ActionStep,
    AnyEvent,
    Note,
    PlanMade,
    Progress,
)
from reconciler.model.units import render_size_rounded

if TYPE_CHECKING:
    from rich.live import Live


class Watcher(Protocol):
    """Takes events until it is closed."""

    def __call__(self, event: AnyEvent) -> None:
        """One event; from any thread."""

    def close(self) -> None:
        """The last word was said."""


def make_watcher(form: str) -> Watcher:
    """The watcher that fits where our output goes."""
    if form == "json":
        return JsonLines()
    return LiveBlock() if is_terminal(sys.stdout) and coloured(sys.stdout) else PlainLines()


class JsonLines:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, event: AnyEvent) -> None:
        """Write it at once."""
        import msgspec

        with self._lock:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Nothing is held."""


class PlainLines:
    """A line for each thing that began to matter or ended; progress only where it changes its word."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lock = threading.Lock()
        self._parts: dict[tuple[str, str], str] = {}

    def __call__(self, event: AnyEvent) -> None:
        """Say it."""
        with self._lock:
            for line in final_lines(event):
                print(line, file=self._out, flush=True)
            if isinstance(event, Progress) and event.text in ("downloading", "done", "exists") and self._is_new(event):
                self._parts[(event.key, event.part)] = event.text
                total = f" ({render_size_rounded(event.total)})" if event.total else ""
                print(f"  {clean(event.key)} {clean(event.part)} {clean(event.text)}{total}", file=self._out, flush=True)

    def _is_new(self, event: Progress) -> bool:
        return self._parts.get((event.key, event.part)) != event.text

    def close(self) -> None:
        """Nothing is held."""


def final_lines(event: AnyEvent) -> list[str]:
    """What stays on the screen of an event."""
    look = look_of(sys.stdout)
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


class LiveBlock:
    """Lines that stay, and beneath them a block of what is at work now: a line an action, a bar a layer."""

    SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._running: dict[int, tuple[ActionStarted, float]] = {}
        self._steps: dict[int, str] = {}
        self._parts: dict[str, dict[str, Progress]] = {}

    def __call__(self, event: AnyEvent) -> None:
        """Take it in; the block redraws itself."""
        if isinstance(event, PlanMade):
            return
        with self._lock:
            self._take(event)
            lines = final_lines(event)
            if self._live is None and (self._running or self._parts):
                self._open()
            if self._live is not None:
                from rich.text import Text

                for line in lines:
                    self._live.console.print(Text.from_ansi(line))
            else:
                for line in lines:
                    print(line, file=self._out, flush=True)

    def _take(self, event: AnyEvent) -> None:
        if isinstance(event, ActionStarted):
            self._running[event.id] = (event, time.monotonic())
        elif isinstance(event, ActionStep):
            self._steps[event.id] = event.text
        elif isinstance(event, Progress):
            self._parts.setdefault(event.key, {})[event.part] = event
        elif isinstance(event, ActionDone | ActionFailed):
            self._running.pop(event.id, None)
            self._steps.pop(event.id, None)
            self._parts.pop(event.key, None)

    def _open(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(highlight=False, file=self._out)
        self._live = Live(
            get_renderable=self._render,
            console=console,
            refresh_per_second=10,
            transient=True,
            vertical_overflow="ellipsis",
        )
        self._live.start()

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        now = time.monotonic()
        spin = self.SPIN[int(now * 10) % len(self.SPIN)]
        rows: list[Text] = []
        for number, (event, began) in list(self._running.items()):
            step = self._steps.get(number, "")
            rows.append(Text(f"{spin} {event.verb} {clean(event.key)}  {clean(step)}  {now - began:.1f} s", style="cyan"))
            rows += self._bars(event.key)
        for key in list(self._parts):
            if not any(event.key == key for event, _ in self._running.values()):
                rows += self._bars(key)
        return Group(*rows)

    def _bars(self, key: str) -> list[Any]:
        from rich.text import Text

        return [Text("    " + bar(part), no_wrap=True) for part in list(self._parts.get(key, {}).values())]

    def close(self) -> None:
        """Take the block away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def bar(part: Progress, width: int = 24) -> str:
    """`sha256:9f86d08  [██████····]  12.1 / 30.0 MB  downloading`."""
    share = min(part.done / part.total, 1.0) if part.total else 0.0
    full = int(share * width)
    amount = render_size_rounded(part.done) + (f" / {render_size_rounded(part.total)}" if part.total else "")
    return f"{clean(part.part):<14} [{'█' * full}{'·' * (width - full)}]  {amount}  {clean(part.text)}"
