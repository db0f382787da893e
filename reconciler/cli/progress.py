"""Events → what a person watches: a live block on a terminal, plain lines elsewhere, JSON lines with `-o json`."""

import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from reconciler.api.look import clean
from reconciler.api.told import PlainText, final_lines
from reconciler.cli.render import coloured, is_terminal, look_of
from reconciler.model.events import (
    ActionDone,
    ActionFailed,
    ActionStarted,
    ActionStep,
    AnyEvent,
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
    """Lines that stay, one below the other."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._lock = threading.Lock()
        self._text = PlainText(look_of(self._out))

    def __call__(self, event: AnyEvent) -> None:
        """Say it."""
        with self._lock:
            for line in self._text(event):
                print(line, file=self._out, flush=True)

    def close(self) -> None:
        """Nothing is held."""


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
            lines = final_lines(event, look_of(self._out))
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
