"""Plain data → what people read: tables, the plan in colours, errors. Knows terminals, decides nothing.

What comes from outside (tags, labels, words of programs) loses its control characters before a terminal sees it.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

from reconciler.model.errors import ReconcileError
from reconciler.model.units import render_age

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HEAD = re.compile(r"^( *\d+ )(create|update|restart|replace|delete)\b")
_COLOURS = {"create": "32", "update": "36", "restart": "33", "replace": "33", "delete": "31"}


def clean(text: str) -> str:
    """Text without control characters (ECMA-48 escapes among them), but for newlines and tabs."""
    return _CONTROL.sub("�", text)


_LOG = re.compile(rb"(\x1b\[[0-9;:]{0,40}m)|\x1b|\xc2[\x80-\x9f]|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f]")


def clean_log(line: bytes) -> bytes:
    """A log line as a terminal may have it: with its colours (SGR) and tabs, and nothing else that controls."""
    kept = line.removesuffix(b"\r")  # Compat: what a container with a terminal writes ends so.
    # A lone byte of C1 is none in UTF-8: whatever is broken is shown as such.
    text = _LOG.sub(lambda found: found[1] or b"\xef\xbf\xbd", kept)
    return text.decode(errors="replace").encode()


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody reads this stream on a terminal."""
    return stream.isatty()


def coloured(stream: TextIO) -> bool:
    """Whether to use colours there (no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, code: str, stream: TextIO) -> str:
    """Text in a colour of SGR (ECMA-48), where the stream takes it."""
    return f"\x1b[{code}m{text}\x1b[0m" if coloured(stream) else text


def show(line: str = "", stream: TextIO | None = None) -> None:
    """One line, harmless."""
    print(clean(line), file=stream or sys.stdout)


def show_plan_lines(lines: Sequence[str]) -> None:
    """The plan's text, with its verbs in colours."""
    for line in lines:
        line = clean(line)
        found = _HEAD.match(line)
        if found and coloured(sys.stdout):
            head, verb = found.groups()
            line = f"{head}\x1b[{_COLOURS[verb]};1m{verb}\x1b[0m{line[found.end() :]}"
        print(line)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Columns as wide as their widest cell; the last one is cut to the terminal's width."""
    out = stream or sys.stdout
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    limit = shutil.get_terminal_size().columns if is_terminal(out) else 0
    for number, row in enumerate([list(head), *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        line = line[: limit - 1] + "…" if limit and len(line) > limit else line
        print(paint(line, "1", out) if number == 0 else _with_states(line, out), file=out)


def _with_states(line: str, out: TextIO) -> str:
    """Words that a tired operator looks for, in colours."""
    if not coloured(out):
        return line
    line = re.sub(r"\b(running|healthy|present)\b", "\x1b[32m\\1\x1b[0m", line)
    return re.sub(r"\b(exited|missing|unhealthy|gave up|drifted)\b", "\x1b[31m\\1\x1b[0m", line)


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
    err = sys.stderr
    from reconciler.model.errors import BadManifest

    if isinstance(error, BadManifest):
        print(clean(error.detail), file=err)
        print(paint(clean(error.brief), "31;1", err), file=err)
        return
    print(paint("error: ", "31;1", err) + clean(error.brief), file=err)
    for line in error.detail.splitlines():
        print(f"  {clean(line)}", file=err)
    for number, line in enumerate(error.hint.splitlines()):
        print(f"  {paint('hint:', '1', err) if number == 0 else '     '} {clean(line)}", file=err)


def counted(number: int, what: str) -> str:
    """`1 action`, `2 actions`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def since(moment: float) -> str:
    """How long ago a moment was; `-` for never."""
    return render_age(time.time() - moment) if moment else "-"


def moment(at: float) -> str:
    """A moment in local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
