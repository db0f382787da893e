"""Durations of a manifest -> seconds."""

from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path
from reconciler.model.units import parse_duration


def read_duration(draft: Draft, written: dict[str, Any], path: Path, *, default: float, least: float = 0.0) -> float:
    """The duration that `written` has at the path's last word, in seconds."""
    value = written.get(str(path[-1]))
    if value is None:
        return default
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        draft.blame(path, f"{error}")
        return default
    if seconds < least:
        draft.blame(path, f"found {value}; expected at least {least:g} s")
    return seconds
