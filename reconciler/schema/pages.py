"""Schemas -> the page that documents manifests, docs/manifest.md. `scripts/generate-docs` writes it, a test compares.

Says nothing that the schemas do not say.
"""

import json
from typing import Any

from reconciler.schema.load import Schema, load_schema, resolve_reference

_KINDS = ("image", "network", "volume", "config", "secret", "container")
_INTRODUCTION = """\
# Manifests

*Made from `schemas/*.json` by `scripts/generate-docs`; change those.*

A manifest is one YAML file that describes one stack. Plain values are those of YAML 1.2: `on`, `yes` and `0755` are text.
Every unknown key is an error. Values may hold `${VAR}`, `${VAR:-default}` and `${VAR:?message}`; `$$` is a dollar.
Variables come from `--var`, the environment and `.env` beside the manifest, in this order.
Keys that begin with `x-` are yours.

*Change* says what changing a property does: **in-place** keeps the process running, **restart** starts it anew,
**replace** makes a new container, **refuse** is refused with the steps to take, **ignore** changes nothing on the machine.
"""


def render_manifest_page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, _render_section("The manifest", load_schema("stack"), changes=False)]
    parts += [_render_section(f"{kind.capitalize()}s", load_schema(kind), changes=True) for kind in _KINDS]
    parts.append(_render_not_built())
    return "\n".join(parts)


_SERVE_INTRODUCTION = """\
# The configuration of `reconcile serve`

*Made from `schemas/serve.schema.json` by `scripts/generate-docs`; change that.*

`reconcile serve --config /etc/reconcile/serve.yaml`. One YAML file, read as a manifest is, but without variables: every
unknown key is an error with its place, and `reconcile serve --config FILE --check` tells all of them.
`reconcile schema serve` prints the schema for editors; `examples/systemd/serve.yaml` is an example;
[operations.md](operations.md#its-configuration) says what it is for.
Durations are `30s`, `5m`, `1h30m`, `14d`; a number is seconds.

"""


def render_serve_page() -> str:
    """The page of the controller's configuration, docs/serve.md."""
    schema = load_schema("serve")
    rows = "".join(_serve_rows(schema, ""))
    return f"{_SERVE_INTRODUCTION}| key | what it is | default |\n|---|---|---|\n{rows}"


def _serve_rows(schema: Schema, above: str) -> list[str]:
    rows = []
    for name, prop in _properties(schema).items():
        if "x-not-built" in prop:
            continue
        rows.append(f"| `{above}{name}` | {_words(prop)} | {_default(prop)} |\n")
        rows += _serve_rows(prop, f"{above}{name}[]." if _lists_maps(prop) else f"{above}{name}.")
        for entry in _entries_with_properties(prop):
            rows += _serve_rows(entry, f"{above}{name}.NAME.")
    return rows


def _render_section(title: str, schema: Schema, *, changes: bool) -> str:
    rows = "".join(_rows(schema, "", schema.get("x-change", ""), changes=changes))
    head = ("| key | what it is | default |", "|---|---|---|")
    if changes:
        head = ("| key | what it is | default | change |", "|---|---|---|---|")
    return f"## {title}\n\n{schema['description']}\n\n{head[0]}\n{head[1]}\n{rows}"


def _rows(schema: Schema, above: str, effect: str, *, changes: bool) -> list[str]:
    """A row for each property that is built, those within it below it."""
    rows = []
    for name, written in _properties(schema).items():
        prop = resolve_reference(written)
        if "x-not-built" in prop:
            continue
        own = prop.get("x-change", effect)
        required = name in schema.get("required", ()) and not above
        cells = [f"`{above}{name}`" + (" (required)" if required else ""), _words(prop), _default(prop)]
        rows.append("| " + " | ".join([*cells, own] if changes else cells) + " |\n")
        if changes:
            inner = f"{above}{name}[]." if _lists_maps(prop) else f"{above}{name}."
            rows += _rows(prop, inner, own, changes=changes)
            for entry in _entries_with_properties(prop):
                rows += _rows(entry, f"{above}{name}.NAME.", own, changes=changes)
    return rows


def _properties(schema: Schema) -> dict[str, Schema]:
    """The properties of a map, of one form of it, or of a list's items."""
    forms = [schema, *map(resolve_reference, schema.get("anyOf", ()))]
    forms += [form["items"] for form in forms if isinstance(form.get("items"), dict)]
    forms += [resolve_reference(inner) for form in forms for inner in form.get("anyOf", ()) if form is not schema]
    return {name: prop for form in forms for name, prop in form.get("properties", {}).items()}


def _lists_maps(schema: Schema) -> bool:
    items = schema.get("items", {})
    return any("properties" in form for form in (items, *items.get("anyOf", ())))


def _entries_with_properties(schema: Schema) -> list[Schema]:
    """What a map by names holds, where that is a map with properties of its own."""
    forms = [schema, *schema.get("anyOf", ())]
    entries = [form["additionalProperties"] for form in forms if isinstance(form.get("additionalProperties"), dict)]
    return [entry for entry in map(resolve_reference, entries) if _properties(entry)]


def _words(prop: Schema) -> str:
    text = f"{prop.get('description', '')}".replace("|", "\\|")
    choices = [choice for choice in prop.get("enum", ()) if choice not in prop.get("x-not-built-values", ())]
    if choices:
        text += " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    return text + (f" Example: `{_flow(prop['x-example'])}`" if "x-example" in prop else "")


def _default(prop: Schema) -> str:
    return f"`{_flow(prop['default'])}`" if "default" in prop else ""


def _flow(value: Any) -> str:
    """A value as YAML's flow style, of which JSON is a part; plain words without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace("|", "\\|")


def _render_not_built() -> str:
    lines = ["## Not built yet\n", "These are refused by name:\n"]
    for name in ("stack", *_KINDS):
        words = _not_built(load_schema(name), "")
        lines += [f"- {name}: {', '.join(f'`{word}`' for word in words)}"] if words else []
    return "\n".join(lines) + "\n"


def _not_built(schema: Schema, above: str) -> list[str]:
    out = []
    for name, written in _properties(schema).items():
        prop = resolve_reference(written)
        if "x-not-built" in prop:
            out.append(f"{above}{name}")
            continue
        out += [f"{above}{name}: {value}" for value in prop.get("x-not-built-values", ())]
        if schema.get("title") != "stack":
            out += _not_built(prop, f"{above}{name}.")
            for form in (prop, *prop.get("anyOf", ())):
                entry = form.get("additionalProperties")
                if isinstance(entry, dict):
                    values = resolve_reference(entry).get("x-not-built-values", ())
                    out += [f"{above}{name}: {value}" for value in values]
                    out += _not_built(resolve_reference(entry), f"{above}{name}.NAME.")
    return out
