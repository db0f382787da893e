"""Reads `schemas/*.json`, the one description of manifests, and tells the planner what a change of a property means.

Neighbours: `manifest/validate.py` interprets the schemas, `plan/` asks `change_effect`, the command `schema` shows them.
Never knows a property by name: what there is to know stands in the files. JSON Schema 2020-12 with words of our own:

- `x-change`: in-place | restart | replace | refuse | ignore; inherited by what lies beneath.
- `x-spec`: the property's name in the canonical spec (`model/spec.py`) where it is another one.
- `x-not-built`, `x-not-built-values`: refused by name at validate; text is what to do instead.
- `x-expected`: what an error says was expected. `x-example`: for the documentation.
- `x-sensitive`: values beneath that interpolate a variable are never shown. `x-free`: read by nobody.
"""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from reconciler.model.key import Kind
from reconciler.model.plan import Effect

Schema = dict[str, Any]

FILES = (
    "stack",
    "image",
    "network",
    "volume",
    "config",
    "secret",
    "container",
    "common",
    "plan",
    "get",
    "status",
    "events",
    "serve",
)
"""The names of the schema files, without `.schema.json`."""

_FOLDER = Path(__file__).resolve().parent.parent / "schemas"
"""A link to the checkout's `schemas/`, and a folder in a wheel. importlib.resources would cost 10 ms of imports."""


@lru_cache(maxsize=len(FILES))
def read_schema_text(name: str) -> str:
    """A schema file as it is: a kind, `stack`, or one of the machine-readable forms. Raises KeyError for another name."""
    if name not in FILES:
        raise KeyError(name)
    return (_FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")


@lru_cache(maxsize=len(FILES))
def load_schema(name: str) -> Schema:
    """A schema file, parsed. Shared: callers must not change it."""
    schema: Schema = json.loads(read_schema_text(name))
    return schema


def resolve_reference(schema: Schema) -> Schema:
    """The schema with its `$ref` followed, if it has one; words beside the reference win over the target's."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return {**_read_target(reference), **{word: value for word, value in schema.items() if word != "$ref"}}


@lru_cache(maxsize=256)
def _read_target(reference: str) -> Schema:
    """What `NAME.schema.json` or `NAME.schema.json#/$defs/WORD` points at."""
    file, _, pointer = reference.partition("#")
    found = load_schema(file.removesuffix(".schema.json"))
    for segment in pointer.split("/")[1:]:
        found = found[segment]
    return resolve_reference(found)


@lru_cache(maxsize=8192)
def change_effect(kind: Kind, pointer: str) -> Effect:
    """What a change at a JSON pointer into a canonical spec means: the nearest `x-change` on the way down.

    What the schema does not name (a key of a map, an index, a field that only one written form has) inherits.
    """
    schema = load_schema(kind.value)
    effect = schema["x-change"]
    for segment in pointer.split("/")[1:]:
        below = _step(schema, segment.replace("~1", "/").replace("~0", "~"))
        if below is None:
            break
        schema = below
        effect = schema.get("x-change", effect)
    return Effect(effect)


def _step(schema: Schema, segment: str) -> Schema | None:
    """The schema of what lies at one segment of a spec: a property by its spec's name, else the entry of a map or list.

    Maps by key of the spec may be lists in the manifest (mounts by target), so a list's items count as entries.
    """
    forms = [resolve_reference(form) for form in (schema, *schema.get("anyOf", ()))]
    for form in forms:
        for name, below in form.get("properties", {}).items():
            if below.get("x-spec", name) == segment:
                return resolve_reference(below)
    for below in _entries(forms):
        return resolve_reference(below)
    return None


def _entries(forms: list[Schema]) -> Iterator[Schema]:
    for word in ("additionalProperties", "items"):
        for form in forms:
            if isinstance(form.get(word), dict):
                yield form[word]
