"""How what is told looks as text: tables, ages, colours, and nothing that steers a terminal.

Pure but for the clock. The command line prints it, and the API sends it to who asks for text.
"""

import re
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from reconciler.model.units import render_age

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Look(Struct, frozen=True):
    """What a reader's terminal takes; all as here: it is none, but a file or a pipe."""

    columns: int = 0
    """Its width; 0: of no matter."""
    colours: bool = False


PLAIN = Look()


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


def paint(text: str, code: str, look: Look) -> str:
    """Text in a colour of SGR (ECMA-48), where there are any."""
    return f"\x1b[{code}m{text}\x1b[0m" if look.colours else text


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], look: Look) -> Iterator[str]:
    """Columns as wide as their widest cell; a line is cut to the terminal's width."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    limit = look.columns
    for number, row in enumerate([list(head), *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        line = line[: limit - 1] + "…" if limit and len(line) > limit else line
        yield paint(line, "1", look) if number == 0 else _with_states(line, look)


def _with_states(line: str, look: Look) -> str:
    """Words that a tired operator looks for, in colours."""
    if not look.colours:
        return line
    line = re.sub(r"\b(running|healthy|present)\b", "\x1b[32m\\1\x1b[0m", line)
    return re.sub(r"\b(exited|missing|unhealthy|gave up|drifted)\b", "\x1b[31m\\1\x1b[0m", line)


def since(moment: float) -> str:
    """How long ago a moment was; `-` for never."""
    return render_age(time.time() - moment) if moment else "-"


def moment(at: float) -> str:
    """A moment in local time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def render_log_time(at: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9)) + f".{at % 10**9:09d}Z"


def counted(number: int, what: str) -> str:
    """`1 action`, `2 actions`."""
    return f"{number} {what}{'' if number == 1 else 's'}"
