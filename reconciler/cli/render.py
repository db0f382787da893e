"""Plain data → what people read: tables, the plan in colours, errors. Knows terminals, decides nothing.

What comes from outside (tags, labels, words of programs) loses its control characters before a terminal sees it.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from reconciler.api.look import Look, clean, paint, render_table
from reconciler.api.told import render_plan
from reconciler.model.errors import ReconcileError


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody reads this stream on a terminal."""
    return stream.isatty()


def coloured(stream: TextIO) -> bool:
    """Whether to use colours there (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def look_of(stream: TextIO) -> Look:
    """What whoever reads this stream can take."""
    return Look(shutil.get_terminal_size().columns if is_terminal(stream) else 0, coloured(stream))


def show(line: str = "", stream: TextIO | None = None) -> None:
    """One line, harmless."""
    print(clean(line), file=stream or sys.stdout)


def show_plan_lines(lines: Sequence[str]) -> None:
    """The plan's text, with its verbs in colours."""
    for line in render_plan(lines, look_of(sys.stdout)):
        print(line)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """A table on a stream."""
    out = stream or sys.stdout
    for line in render_table(head, rows, look_of(out)):
        print(line, file=out)


def show_json(data: Any) -> None:
    """One JSON document."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def show_json_line(data: Any) -> None:
    """One JSON value on a line of its own, at once."""
    import msgspec

    print(msgspec.json.encode(data).decode(), flush=True)


def show_yaml(data: Any) -> None:
    """One YAML document."""
    from reconciler.manifest.emit import dump_yaml

    print(dump_yaml(data), end="")


def show_error(error: ReconcileError) -> None:
    """What happened, the tool's words, what to do next; on standard error."""
    err, look = sys.stderr, look_of(sys.stderr)
    from reconciler.model.errors import BadManifest

    if isinstance(error, BadManifest):
        print(clean(error.detail), file=err)
        print(paint(clean(error.brief), "31;1", look), file=err)
        return
    print(paint("error: ", "31;1", look) + clean(error.brief), file=err)
    for line in error.detail.splitlines():
        print(f"  {clean(line)}", file=err)
    for number, line in enumerate(error.hint.splitlines()):
        print(f"  {paint('hint:', '1', look) if number == 0 else '     '} {clean(line)}", file=err)
