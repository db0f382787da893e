"""JSON by the accelerator that json itself is built on, without what `import json` brings along (re, enum, functools).

That import costs as much as all else that the exit command does before it starts a container. Used by bundle.py only.
"""

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Rules:
    """What json.JSONDecoder sets by default."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


_scan = _json.make_scanner(_Rules())  # type: ignore[arg-type]  # typeshed wants itself; the C code reads names


def parse_json(data: bytes) -> "Any":
    """The value of a JSON text. Raises ValueError."""
    text = data.decode()
    try:
        value, end = _scan(text, len(text) - len(text.lstrip()))
    except StopIteration:
        raise ValueError("no JSON") from None
    if text[end:].strip():
        raise ValueError("something follows the JSON")
    return value


def render_json(value: "Any") -> str:
    """A value made of dicts with text for keys, lists, texts, numbers, booleans and None, as JSON in one line."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        inner = (f"{_json.encode_basestring_ascii(name)}:{render_json(item)}" for name, item in value.items())
        return "{" + ",".join(inner) + "}"
    return "[" + ",".join(map(render_json, value)) + "]"
