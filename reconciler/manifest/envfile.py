"""The text of `.env` and `env_file` files -> variables by name.

`load.py` reads `.env` with it, `verbs/resolve.py` the files of `env_file`. Never shows a value, not even in an error.
Source: the forms that Docker Compose documents for env files; variables within values are not put in.
"""

import re

from reconciler.model.errors import BadManifest, Problem

_LINE = re.compile(r"\s*(?:export\s+)?([^=\s]+)\s*(?:=(.*))?", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def parse_env_text(text: str, *, file: str) -> dict[str, str]:
    """Variables by name, the last of a name winning. Raises BadManifest for lines that are no NAME=VALUE.

    `#` begins a comment; '…' is taken as it is; "…" knows \\n, \\t, \\" and \\\\; other values end before ` #`.
    """
    out: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        value = _read_value(found[2].strip()) if found and found[2] is not None else None
        if not found or value is None or "\0" in line:
            problems.append(
                Problem(
                    file=file, line=number, column=1, text="expected NAME=VALUE", hint="quote it, or begin a comment with #"
                )
            )
        else:
            out[found[1]] = value
    if problems:
        raise BadManifest(problems)
    return out


def _read_value(text: str) -> str | None:
    """The value, quotes taken off; None where a quote is not closed or something follows it."""
    quote = text[:1]
    if quote not in ("'", '"'):
        return re.split(r"\s#", text, maxsplit=1)[0].rstrip()
    end = re.match(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", text)
    if not end or (text[end.end() :].strip() and not text[end.end() :].lstrip().startswith("#")):
        return None
    if quote == "'":
        return end[1]
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[0]), end[2])
