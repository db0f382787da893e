"""The OpenAPI 3.1 document, made of the list of calls, the structs that they take, and the schemas of what they give."""

import inspect
from typing import Any

import msgspec

from reconciler import __version__
from reconciler.api import frames
from reconciler.api.asks import CALLS, Call, Get
from reconciler.api.examples import EXAMPLES
from reconciler.api.problem import MEDIA_TYPE, ProblemDetails
from reconciler.api.sessions import Session
from reconciler.api.text import RAW_ASKS, RAW_TYPE, TEXT_TYPE
from reconciler.schema.load import load_schema

_REF = "#/components/schemas/{name}"
_STREAMS = (
    "As application/jsonl the body is this call on its first line, and on each line after that, while the response comes,"
    " an Input, a Signal or a Resize. It begins with `begun`; the end of the body is the end of the input."
)
_FORMS = ("get", "status", "plan", "events")


def render_document() -> dict[str, Any]:
    """All of it; the same code gives the same document."""
    components = _components()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "reconcile",
            "version": __version__,
            "summary": "What the commands of `reconcile` do, over the controller's UNIX socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "http://reconcile", "description": "The UNIX socket; Host must be reconcile or localhost."}],
        "paths": {
            "/healthz": _probe("Whether it answers at all."),
            "/readyz": _probe("Whether all sources have been read once."),
            "/metrics": _text("What the controller does and sees, for Prometheus."),
            **_operations(components),
        },
        "components": {"schemas": components},
    }


def _text(summary: str) -> dict[str, Any]:
    answer = {"description": "In Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"get": {"summary": summary, "responses": {"200": answer, **_problems()}}}


def render_text() -> str:
    """The document as docs/openapi.json has it."""
    return msgspec.json.format(msgspec.json.encode(render_document()), indent=1).decode() + "\n"


def _components() -> dict[str, Any]:
    types: list[Any] = [*(call.ask for call in CALLS), frames.AnyFrame, frames.AnyInput, ProblemDetails]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    found: dict[str, Any] = dict(components)
    found["Frame"] = schemas[len(CALLS)]
    for name in _FORMS:
        found[f"{name}.schema"] = _rebased(load_schema(name), name)
    return found


def _rebased(schema: Any, name: str) -> Any:
    """A schema as a component: its references lead to where it now stands."""
    if isinstance(schema, list):
        return [_rebased(one, name) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _rebased(value, name) for key, value in schema.items() if key not in ("$schema", "$id")}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        file, _, pointer = reference.partition("#")
        owner = file.removesuffix(".schema.json") or name
        out["$ref"] = f"#/components/schemas/{owner}.schema{pointer}"
    return out


def _probe(summary: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
    responses = {
        "200": {"description": "Yes.", "content": {"application/json": {"schema": schema}}},
        "503": {"description": "No.", "content": {"application/json": {"schema": schema}}},
    }
    return {"get": {"summary": summary, "responses": {**responses, **_problems()}}}


def _operations(components: dict[str, Any]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for call in CALLS:
        paths.setdefault(f"/v1{call.path}", {})[call.method.lower()] = _operation(call, components)
    return paths


def _operation(call: Call, components: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {"operationId": call.name, "summary": inspect.getdoc(call.ask) or ""}
    if call.method == "GET":
        schema = components[call.ask.__name__]
        out["parameters"] = [
            {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": value}
            for name, value in schema["properties"].items()
        ]
    else:
        content: dict[str, Any] = {"schema": {"$ref": _REF.format(name=call.ask.__name__)}}
        if call.name in EXAMPLES:
            content["example"] = msgspec.to_builtins(EXAMPLES[call.name])
        out["requestBody"] = {"required": True, "content": {"application/json": content}}
    if issubclass(call.ask, Session):
        out["description"] = _STREAMS
    out["responses"] = {"200": _answer(call), **_problems()}
    return out


def _answer(call: Call) -> dict[str, Any]:
    if call.streams:
        words = "Frames as they come, a line each; the last is an answer or a problem."
        schema = {"$ref": "#/components/schemas/Frame"}
        content: dict[str, Any] = {
            "application/jsonl": {"itemSchema": schema},
            "text/event-stream": {"itemSchema": {"type": "object", "properties": {"data": {"contentSchema": schema}}}},
        }
        if call.ask in RAW_ASKS:
            content[RAW_TYPE] = {"schema": {"type": "string", "format": "binary"}}
        return {"description": words, "content": content}
    schema = {"$ref": f"#/components/schemas/{call.gives}.schema"} if call.gives else {}
    content = {"application/json": {"schema": schema}}
    if call.ask is Get:
        content[TEXT_TYPE] = {"schema": {"type": "string"}}
    return {"description": "The answer.", "content": content}


def _problems() -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {"default": {"description": "What is wrong, in the words of the terminal.", "content": content}}
