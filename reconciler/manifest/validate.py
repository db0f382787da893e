"""Checks a manifest's data against `schemas/`: what fits, and a fault for each thing that does not.

`text.py` comes before, `desire.py` after: it gets what fits, so that it can look for faults of its own in the rest. This is
an interpreter of the part of JSON Schema 2020-12 that our schemas use; a test holds it against jsonschema itself. Where the
two would differ: a number that variables gave is text in the data and counts as a number here.
Never knows a property by name.
"""

import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from msgspec import Struct

from reconciler.manifest.faults import DROPPED, Fault, Path, shorten
from reconciler.manifest.scalars import Interpolated, Written, read_scalar, render_scalar
from reconciler.manifest.suggest import suggest_key, suggest_value
from reconciler.schema.load import Schema, load_schema, resolve_reference

_TYPES: dict[type, tuple[str, ...]] = {
    dict: ("object",),
    list: ("array",),
    str: ("string",),
    Interpolated: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    Written: ("number",),
    type(None): ("null",),
}
_FAULTS_WITH_HINT = 200
"""More are not shown, and looking for what was meant takes milliseconds."""
_NUMBERS = (int, float, Written)
_TYPE_WORDS = {
    "object": "a map",
    "array": "a list",
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "nothing",
}


class Rule(Struct):
    """One schema, prepared for checking; the fields are the schema's words. Ours are explained in `schema/load.py`."""

    types: frozenset[type]
    """The Python types that fit."""
    expected: str
    properties: dict[str, "Rule"] = {}
    patterns: list[tuple[str, "Rule"]] = []
    others: "Rule | None" = None
    """additionalProperties: for keys that nothing else names."""
    names: "Rule | None" = None
    required: tuple[str, ...] = ()
    items: "Rule | None" = None
    branches: tuple["Rule", ...] = ()
    """anyOf. Each has types of its own: the value's type tells which one is meant."""
    enum: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """What hints may suggest."""
    pattern: str = ""
    minimum: float = -math.inf
    maximum: float = math.inf
    least: int = 0
    """minLength, minItems, minProperties."""
    most: float = math.inf
    """maxLength."""
    not_built: str | None = None
    not_built_values: tuple[str, ...] = ()
    sensitive: bool = False
    free: bool = False


def validate(data: Any, schema: str = "stack") -> tuple[Any, list[Fault]]:
    """What of a stack's data, or of another schema's, fits it, and the faults of the rest. DROPPED where nothing fits."""
    faults: list[Fault] = []
    return _check(_rule_of(schema), data, (), faults), faults


@lru_cache(maxsize=4)
def _rule_of(schema: str) -> Rule:
    return prepare_rule(load_schema(schema))


def prepare_rule(schema: Schema, *, sensitive: bool = False, expected: str = "") -> Rule:
    """A schema made ready, references and all. Our schemas have no cycles. `expected` is for forms that say no own."""
    schema = resolve_reference(schema)
    sensitive = sensitive or schema.get("x-sensitive", False)

    def below(word: str) -> Rule | None:
        found = schema.get(word)
        return prepare_rule(found, sensitive=sensitive) if isinstance(found, dict) else None

    named = schema.get("type", list(_TYPE_WORDS) if "anyOf" not in schema else [])
    wanted = (named,) if isinstance(named, str) else tuple(named)
    enum = (schema["const"],) if "const" in schema else tuple(schema.get("enum", ()))
    not_built = schema.get("x-not-built")
    built = [word for word in enum if word not in schema.get("x-not-built-values", ())]
    expected = schema.get("x-expected") or expected or _join_words(built or [_TYPE_WORDS[word] for word in wanted])
    forms = schema.get("anyOf", ())
    return Rule(
        types=frozenset(kind for kind, names in _TYPES.items() if set(names) & set(wanted)),
        expected=expected,
        properties={name: prepare_rule(under, sensitive=sensitive) for name, under in schema.get("properties", {}).items()},
        patterns=[(name, prepare_rule(under)) for name, under in schema.get("patternProperties", {}).items()],
        others=below("additionalProperties"),
        names=below("propertyNames"),
        required=tuple(schema.get("required", ())),
        items=below("items"),
        branches=tuple(prepare_rule(form, sensitive=sensitive, expected=expected) for form in forms),
        enum=enum,
        words=tuple(schema.get("x-values", enum)),
        pattern=schema.get("pattern", ""),
        minimum=schema.get("minimum", -math.inf),
        maximum=schema.get("maximum", math.inf),
        least=next((schema[word] for word in ("minLength", "minItems", "minProperties") if word in schema), 0),
        most=schema.get("maxLength", math.inf),
        not_built=None if not_built is None else not_built if isinstance(not_built, str) else "",
        not_built_values=tuple(schema.get("x-not-built-values", ())),
        sensitive=sensitive,
        free=schema.get("x-free", False),
    )


@lru_cache(maxsize=256)
def _compile(pattern: str) -> re.Pattern[str]:
    """A pattern when it is first needed: most manifests meet few of them."""
    # Compat: in a schema `$` is the end of the text; Python's also matches before a last newline.
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def _join_words(words: Sequence[str]) -> str:
    return " or ".join(words) if len(words) < 3 else ", ".join(words[:-1]) + f" or {words[-1]}"


def _check(rule: Rule, value: Any, path: Path, faults: list[Fault]) -> Any:
    """The value as far as it fits, faults appended."""
    if rule.not_built is not None:
        faults.append(Fault(path, "not built yet", rule.not_built, at_key=True))
        return DROPPED
    if rule.free:
        return value
    kind = type(value)
    if rule.branches:
        return _check_branches(rule, value, path, faults)
    if kind not in rule.types:
        value = _convert(rule, value)
        kind = type(value)
        if kind not in rule.types:
            faults.append(_misfit(rule, value, path))
            return DROPPED
    if kind is dict:
        return _check_map(rule, value, path, faults)
    if kind is list:
        return _check_list(rule, value, path, faults)
    if kind is str or kind is Interpolated:
        return _check_text(rule, value, path, faults)
    if kind in _NUMBERS and not rule.minimum <= value <= rule.maximum:
        faults.append(_misfit(rule, value, path))
        return DROPPED
    return value


def _convert(rule: Rule, value: Any) -> Any:
    """A value in a type that fits, where it means one: the number that a variable gave, 3.0 for 3."""
    if type(value) is Interpolated:
        value = read_scalar(value.strip())
    if isinstance(value, float) and value.is_integer() and int in rule.types:
        return int(value)
    return value


def _check_branches(rule: Rule, value: Any, path: Path, faults: list[Fault]) -> Any:
    for branch in rule.branches:
        if type(value) in branch.types:
            return _check(branch, value, path, faults)
    for branch in rule.branches:
        converted = _convert(branch, value)
        if type(converted) in branch.types:
            return _check(branch, converted, path, faults)
    faults.append(_misfit(rule, value, path))
    return DROPPED


def _check_map(rule: Rule, value: dict[str, Any], path: Path, faults: list[Fault]) -> Any:
    if len(value) < rule.least:
        faults.append(_misfit(rule, value, path))
        return DROPPED
    out: dict[str, Any] = {}
    properties = rule.properties
    for key, under in value.items():
        below = properties.get(key)
        if below is None:
            below = _rule_of_key(rule, key, path, faults)
            if below is None:
                continue
        fitting = _check(below, under, (*path, key), faults)
        if fitting is not DROPPED:
            out[key] = fitting
    for key in rule.required:
        if key not in value:
            example = properties[key].expected
            faults.append(Fault(path, f"{key} is missing", f"expected {example}", at_key=True))
    return out


def _rule_of_key(rule: Rule, key: str, path: Path, faults: list[Fault]) -> Rule | None:
    """The rule for a key that is no property; None, with a fault, where it may not stand here."""
    for pattern, below in rule.patterns:
        if _compile(pattern).search(key):
            return below
    if rule.others is None:
        hint = suggest_key(key, rule.properties) if len(faults) < _FAULTS_WITH_HINT else ""
        faults.append(Fault((*path, key), "unknown key", hint, at_key=True))
        return None
    if rule.names is not None:
        found: list[Fault] = []
        _check(rule.names, key, (*path, key), found)
        faults.extend(fault._replace(at_key=True) for fault in found)
        if found:
            return None
    return rule.others


def _check_list(rule: Rule, value: list[Any], path: Path, faults: list[Fault]) -> Any:
    if len(value) < rule.least:
        faults.append(_misfit(rule, value, path))
        return DROPPED
    if rule.items is None:
        return value
    out = []
    for place, under in enumerate(value):
        before = len(faults)
        fitting = _check(rule.items, under, (*path, place), faults)
        # A map that lost a part could be mistaken for another form of it: a mount without its type.
        out.append(fitting if len(faults) == before else DROPPED)
    return out


def _check_text(rule: Rule, value: str, path: Path, faults: list[Fault]) -> Any:
    if value in rule.not_built_values:
        faults.append(Fault(path, f"{value} is not built yet", ""))
        return DROPPED
    if len(value) > rule.most:
        faults.append(Fault(path, f"found {len(value):,} characters; at most {rule.most:,} may stand here"))
        return DROPPED
    fits = len(value) >= rule.least and (not rule.enum or value in rule.enum)
    if not fits or (rule.pattern and not _compile(rule.pattern).search(value)):
        faults.append(_misfit(rule, value, path))
        return DROPPED
    return value if rule.sensitive or type(value) is str else str(value)


def _misfit(rule: Rule, value: Any, path: Path) -> Fault:
    return Fault(path, f"found {describe(value)}; expected {rule.expected}", _hint(rule, value))


def describe(value: Any) -> str:
    """A value for an error: short, and what variables gave only as it was written."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a map" if value else "an empty map"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        shown = value.raw if isinstance(value, Interpolated) else value
        return f'"{shorten(shown)}"' if shown else "empty text"
    return render_scalar(value)


def _hint(rule: Rule, value: Any) -> str:
    """What may have been meant by a value that does not fit."""
    if isinstance(value, str):
        allowed = [word for word in rule.words if word not in rule.not_built_values]
        if bool in rule.types and str not in rule.types:
            allowed = ["true", "false"]
        elif int in rule.types and str not in rule.types and value[:1].isdigit():
            return "write it in plain decimals, without quotes and leading zeros"
        return suggest_value(value, allowed)
    if isinstance(value, bool | int | float) and str in rule.types and not {int, Written} & rule.types:
        return suggest_value(render_scalar(value), rule.words) or f'quote it: "{render_scalar(value)}"'
    return ""
