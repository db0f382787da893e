"""Faults, what is wrong at a path of a manifest's data, and their way to `Problem`s with positions.

`text.py`, `validate.py` and `desire.py` make them; `places.py` finds where they are. Positions are only looked for when
there is something to say, so a right manifest never pays for them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from reconciler.model.errors import Problem

Path = tuple[str | int, ...]
"""Keys and indexes from the top: `("containers", "web", "ports", 0)`."""


class Fault(NamedTuple):
    """One thing wrong. `at_key` places it at the key that ends the path rather than at its value."""

    path: Path
    text: str
    hint: str = ""
    at_key: bool = False
    place: tuple[int, int] | None = None
    """Line and column from 1, where they are known already."""


DROPPED: Any = object()
"""What stands in a list for an entry that does not fit, so that the others keep their indexes."""


def fitting_entries(entries: Sequence[Any] | None) -> Iterator[tuple[int, Any]]:
    """Index and value of a list's entries that fit."""
    return ((place, entry) for place, entry in enumerate(entries or ()) if entry is not DROPPED)


def render_path(path: Path) -> str:
    """`containers.web.ports[0]`"""
    out = ""
    for segment in path:
        if isinstance(segment, int):
            out += f"[{segment}]"
        else:
            plain = segment.replace("-", "").replace("_", "").isalnum()
            out += ("." if out else "") + (segment if plain else f'"{shorten(segment)}"')
    return out


def shorten(text: str, length: int = 60) -> str:
    """Text for an error: one line, no control characters, at most `length` characters."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: length + 1])
    return line if len(line) <= length else line[: length - 1] + "…"


def make_problem(fault: Fault, *, file: str, lines: Sequence[str], place: tuple[int, int]) -> Problem:
    """A fault at its place, with the line for the caret where that is short enough to be read."""
    line, column = place
    source = lines[line - 1] if 0 < line <= len(lines) and column <= _LONGEST_SOURCE else ""
    return Problem(
        file=file,
        line=line,
        column=column,
        path=render_path(fault.path),
        text=fault.text,
        hint=fault.hint,
        source=source[:_LONGEST_SOURCE],
    )


_LONGEST_SOURCE = 200
"""Columns of a line that an error shows."""
