"""The OpenAPI document: whole, as the code is, and true of what the server does."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from api.conftest import Served
from reconciler.api import asks
from reconciler.api.examples import EXAMPLES
from reconciler.api.openapi import render_document, render_text

REPOSITORY = Path(__file__).parents[2]


def test_document_is_the_committed_one() -> None:
    assert (REPOSITORY / "docs/openapi.json").read_text() == render_text(), "run scripts/generate-docs"


def test_document_leads_nowhere_that_is_not_in_it_and_its_schemas_are_schemas() -> None:
    document = render_document()
    components = document["components"]["schemas"]
    for reference in re.findall(r'"\$ref":"#/components/schemas/([^"/]+)', json.dumps(document, separators=(",", ":"))):
        assert reference in components
    for schema in components.values():
        Draft202012Validator.check_schema(schema)


def test_there_is_an_example_of_each_body_and_each_fits() -> None:
    document = render_document()
    registry: Registry[Any] = Registry().with_resource("urn:document", Resource(document, DRAFT202012))
    bodies = {call.name for call in asks.CALLS if call.method == "POST"}
    assert bodies == EXAMPLES.keys()
    for call in asks.CALLS:
        if call.method == "POST":
            example = json.loads(msgspec.json.encode(EXAMPLES[call.name]))
            schema = {"$ref": f"urn:document#/components/schemas/{call.ask.__name__}"}
            Draft202012Validator(schema, registry=registry).validate(example)
            assert msgspec.convert(example, call.ask) == EXAMPLES[call.name]


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("call", asks.CALLS, ids=lambda call: call.name)
def test_every_call_answers_in_the_form_that_the_document_says(served: Served, call: asks.Call) -> None:
    served.apply()
    if call.method == "GET":
        given = {"name": "blog/web", "stack": "blog", "old": "1", "new": "1", "names": "blog/web", "image": "box"}
        given |= {"path": "/", "what": "blog"}
        known = {field.name: field for field in msgspec.structs.fields(call.ask)}
        words = "&".join(f"{name}={value}" for name, value in given.items() if name in known and known[name].required)
        if call.ask is asks.Wait:
            words = "names=nothere"
        status, body = served.ask(f"/v1{call.path}?{words}")
    else:
        status, body = served.ask(f"/v1{call.path}", "POST", msgspec.json.encode(EXAMPLES[call.name]))
    if status != 200:
        problem = json.loads(body)
        assert problem["title"]
        assert problem["status"] == status
        assert "mistake" not in problem["title"]
        return
    assert b"mistake" not in body
    if call.gives and not call.streams:
        from reconciler.schema.load import FILES, load_schema

        found: Registry[Any] = Registry().with_resources(
            [(load_schema(name)["$id"], Resource.from_contents(load_schema(name))) for name in FILES]
        )
        Draft202012Validator(load_schema(call.gives), registry=found).validate(json.loads(body))


def test_what_is_not_there_is_a_problem(served: Served) -> None:
    for path, method, status in (("/v1/nothere", "GET", 404), ("/v1/apply", "GET", 405), ("/v1/resources", "POST", 405)):
        code, body = served.ask(path, method)
        assert code == status
        assert json.loads(body)["type"] == "urn:reconcile:BadRequest"
    status, body = served.ask("/v1/resources?nothere=1")
    assert (status, "is no parameter of get" in json.loads(body)["title"]) == (400, True)


def test_the_example_runs(served: Served) -> None:
    served.apply()
    script = REPOSITORY / "examples/api/restart_unhealthy.py"
    done = subprocess.run([sys.executable, str(script), str(served.path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1 containers, 0 unhealthy\n", 0), done.stderr
    gone = subprocess.run([sys.executable, str(script), f"{served.path}.not"], capture_output=True, text=True, check=False)
    assert gone.returncode == 1
    assert "nobody answers" in gone.stderr
