"""Puts variables into values: `${VAR}`, `${VAR:-default}`, `${VAR:?message}`, and `$$` for a dollar.

`text.py` calls it for every value with a dollar, never for keys. Never reads the environment: the variables come as a
mapping. A variable without a value and without a default is an error, where Compose would put nothing there.
"""

import re
from collections.abc import Mapping

_DOLLAR = re.compile(r"\$(?:\$|\{|[A-Za-z_][A-Za-z0-9_]*)")
_MARK = re.compile(r"\$\$|\$\{|\}")
_FORM = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:?)([-?+])(.*))?", re.DOTALL)
"""Name, colon (empty counts as not set), operator and its word, as in POSIX sh 2.6.2."""
_DEEPEST = 10
"""How deep defaults may nest: `${A:-${B:-c}}`."""


class CannotInterpolate(ValueError):
    """A value whose variables can't be put in: what is wrong, and what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint


def interpolate(text: str, variables: Mapping[str, str], *, depth: int = 0) -> tuple[str, bool]:
    """The text with its variables put in, and whether it names any. Raises CannotInterpolate."""
    out: list[str] = []
    named = False
    place = 0
    while found := _DOLLAR.search(text, place):
        out.append(text[place : found.start()])
        place = found.end()
        if found[0] == "$$":
            out.append("$")
        elif found[0] == "${":
            end = _closing_brace(text, place)
            out.append(_value(text[place:end], variables, depth=depth))
            place = end + 1
            named = True
        else:
            name = found[0][1:]
            raise CannotInterpolate(
                f"found ${name}; a variable is written ${{{name}}}",
                f"write ${{{name}}} for the variable, or $${name} for a dollar",
            )
    return "".join(out) + text[place:], named


def _closing_brace(text: str, place: int) -> int:
    """Where the brace that opened before `place` closes; braces of variables within it are stepped over."""
    depth = 1
    for found in _MARK.finditer(text, place):
        depth += {"${": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.start()
    raise CannotInterpolate("found ${ without its closing }", "write ${VAR}, or $${ for a dollar and a brace")


def _value(inside: str, variables: Mapping[str, str], *, depth: int) -> str:
    """The value of what stands between the braces."""
    found = _FORM.fullmatch(inside)
    if not found:
        raise CannotInterpolate(
            f"found ${{{inside[:20]}}}, which is no form of a variable", "write ${VAR}, ${VAR:-default} or ${VAR:?message}"
        )
    name, colon, operator, word = found.groups("")
    value = variables.get(name)
    missing = value is None or (bool(colon) and value == "")
    if operator == "+":
        return "" if missing else _nested(word, variables, depth=depth)
    if value is not None and not missing:
        return value
    if operator == "-":
        return _nested(word, variables, depth=depth)
    raise CannotInterpolate(
        f"the variable {name} is not set" + (f": {word}" if word else ""),
        f"give it with --var {name}=…, in the environment or in .env, or a default: ${{{name}:-…}}",
    )


def _nested(word: str, variables: Mapping[str, str], *, depth: int) -> str:
    if depth >= _DEEPEST:
        raise CannotInterpolate(f"defaults nest deeper than {_DEEPEST} levels", "use fewer variables")
    return interpolate(word, variables, depth=depth + 1)[0]
