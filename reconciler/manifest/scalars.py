"""Plain scalars of YAML -> text, numbers, booleans or nothing, by the core schema of YAML 1.2 (chapter 10.3).

Feeds `text.py` and, for what variables gave, `validate.py`. Never makes what JSON has not: no dates, no NaN, no octal
numbers. `on`, `off`, `yes`, `no`, `0755`, `0x1F`, `1_000`, `12:30`, `2024-01-01`, `.nan` and `1e400` are text; where a
number or a boolean is wanted instead, validation says so. Numbers keep the text that they were written in.
"""

import math
import re

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBERLIKE = frozenset("+-.0123456789")


class Written(float):
    """A number with a fraction or an exponent that remembers its text: `1.10` stays `1.10` where text is wanted."""

    text: str


class Interpolated(str):
    """Text into which variables were put. `raw` is how it was written: what errors may show."""

    raw: str


Scalar = str | int | float | bool | None


def read_scalar(text: str) -> Scalar:
    """What a plain (unquoted) scalar means."""
    if text[:1] not in _NUMBERLIKE:
        return _WORDS.get(text, text)
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = Written(text)
        number.text = text
        return number if math.isfinite(number) else text
    return text


def render_scalar(value: str | float | bool) -> str:  # noqa: FBT001 - a value, not a switch
    """A scalar as the text that it was written in: what an environment variable gets."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.text if isinstance(value, Written) else str(value)


def make_interpolated(text: str, raw: str) -> Interpolated:
    """Text with the variables put in, and how it was written."""
    out = Interpolated(text)
    out.raw = raw
    return out
