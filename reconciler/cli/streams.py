"""Calls with streams: by the controller over its socket, or in this process; with our streams, terminal and signals.

Nothing that is slow to import may be imported here at the top.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.reach import find_client

if TYPE_CHECKING:
    from reconciler.api.frames import Begun
    from reconciler.api.sessions import Session
    from reconciler.model.events import AnyEvent, Emit


def show_warning(event: "AnyEvent") -> None:
    """Standard output is the command's: what a person should know goes to standard error."""
    from reconciler.model.events import Note

    if isinstance(event, Note) and event.level == "warning" and event.key is None:
        click.echo(event.text, err=True)


def _nothing() -> None:
    return


def join(
    ctx: click.Context, root: Path | None, question: "Session", *, emit: "Emit" = show_warning,
    signals: bool = False, begun: Callable[[], None] = _nothing,
) -> Any:  # fmt: skip
    """What is asked, answered, with our streams. `signals` says that those that we get are passed on; `begun` is called
    once it runs. Raises ReconcileError."""
    from reconciler.api.frames import Begun, Listener

    def hear(frame: Any) -> None:
        if isinstance(frame, Begun):
            begun()

    if (client := find_client(ctx, root)) is not None:
        from reconciler.api.client import Unreachable
        from reconciler.api.line import Ends

        with ExitStack() as held:
            begin = partial(_begin, held, signals=signals, begun=begun)
            try:
                return client.join(question, Ends(stdin=0, size=_read_size, begun=begin), Listener(emit=emit))
            except Unreachable:
                if client.remote:
                    raise
    from reconciler.api.answers import answer
    from reconciler.cli.options import opened

    return answer(partial(opened, ctx, root), question, Listener(emit=emit, item=hear))


def _begin(held: ExitStack, frame: "Begun", *, signals: bool, begun: Callable[[], None]) -> int:
    """Once it runs: our terminal is raw where keys go through it."""
    begun()
    if not (signals or frame.tty):
        return -1
    from reconciler.linux import terminal

    bell = held.enter_context(terminal.listen(passed_on=signals, sizes=frame.tty))
    if frame.tty and frame.stdin:
        held.enter_context(terminal.raw(0))
    return bell


def _read_size() -> tuple[int, int] | None:
    from reconciler.linux import terminal

    return terminal.read_size(0, 1, 2)


def size_fields() -> dict[str, int]:
    """`rows` and `columns` of a call, where we have a terminal."""
    size = _read_size()
    return {} if size is None else {"rows": size[0], "columns": size[1]}
