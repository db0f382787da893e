"""Finds where in the text a path of the data is, and so turns faults into problems. The last step of a bad manifest.

The text is composed a second time, into nodes with marks: only bad manifests pay for that. Never raises: `text.py` has read
the same text before.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from reconciler.manifest.faults import Fault, Path, make_problem
from reconciler.manifest.text import EVENT_LOADER
from reconciler.model.errors import Problem


def locate_faults(faults: Iterable[Fault], *, file: str, text: str) -> list[Problem]:
    """The problems of a file, in the order of the text."""
    root = yaml.compose(text, Loader=EVENT_LOADER)
    lines = text.splitlines()
    problems = [
        make_problem(fault, file=file, lines=lines, place=fault.place or _find(root, fault.path, at_key=fault.at_key))
        for fault in faults
    ]
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _find(root: Any, path: Path, *, at_key: bool) -> tuple[int, int]:
    """Line and column, from 1, of the value at a path, or of the key that leads to it; else of what is nearest above."""
    node = place = root
    for number, segment in enumerate(path, 1):
        below = _below(node, segment)
        if below is None:
            break
        key, node = below
        place = key if number == len(path) and at_key and key is not None else node
        # An empty value has no place worth showing: its key has.
        if place is node and key is not None and isinstance(node, yaml.ScalarNode) and not node.value and not node.style:
            place = key
    mark = place.start_mark
    return mark.line + 1, mark.column + 1


def _below(node: Any, segment: str | int) -> tuple[Any, Any] | None:
    """The key node (None in lists) and value node of one segment; what `<<` merges counts where nothing else does."""
    if isinstance(node, yaml.SequenceNode):
        fits = isinstance(segment, int) and segment < len(node.value)
        return (None, node.value[segment]) if fits else None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.value == segment:
            return key, value
    for merged in _merged(node.value):
        found = _below(merged, segment)
        if found:
            return found
    return None


def _merged(pairs: Sequence[tuple[Any, Any]]) -> Iterable[Any]:
    for key, value in pairs:
        if key.value == "<<" and not key.style:
            yield from value.value if isinstance(value, yaml.SequenceNode) else (value,)
