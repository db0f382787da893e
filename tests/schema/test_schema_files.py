"""The schema files themselves: valid, complete, and what the documentation says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from reconciler.model.plan import Effect
from reconciler.schema.load import FILES, load_schema, read_schema_text, resolve_reference
from reconciler.schema.pages import render_manifest_page, render_serve_page

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ("stack", "image", "network", "volume", "container", "config", "secret")
EFFECTS = {effect.value for effect in Effect}


def properties(schema: dict[str, Any], above: str, change: str | None) -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Every property within a schema, with the `x-change` that holds for it."""
    schema = resolve_reference(schema)
    change = schema.get("x-change", change)
    for name, below in schema.get("properties", {}).items():
        below = resolve_reference(below)
        yield f"{above}/{name}", below, below.get("x-change", change)
        yield from properties(below, f"{above}/{name}", change)
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from properties(schema[word], f"{above}/*", change)
    for form in schema.get("anyOf", ()):
        yield from properties(form, above, change)


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_a_schema_of_2020_12(name: str):
    schema = load_schema(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"{name}.schema.json", "relative, so that editors find what it refers to beside it"
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", MANIFEST)
def test_every_property_has_a_description_and_says_or_inherits_what_its_change_means(name: str):
    found = list(properties(load_schema(name), name, None))
    assert found
    assert [path for path, schema, _ in found if not schema.get("description")] == []
    assert [path for path, _, change in found if change not in EFFECTS] == []


@pytest.mark.parametrize("name", MANIFEST)
def test_every_property_that_is_built_has_an_example(name: str):
    found = list(properties(load_schema(name), name, None))
    assert [path for path, schema, _ in found if not {"x-example", "x-not-built"} & schema.keys()] == []


@pytest.mark.parametrize("name", MANIFEST)
def test_forms_of_a_property_differ_by_type(name: str):
    """What lets the checker know which form was meant, and say what is wrong with that one."""

    def types(form: dict[str, Any]) -> set[str]:
        named = resolve_reference(form)["type"]
        return {named} if isinstance(named, str) else set(named)

    for path, schema, _ in properties(load_schema(name), name, None):
        forms = [types(form) for form in schema.get("anyOf", ())]
        assert sum(map(len, forms)) == len(set().union(*forms)), path


def test_links_lead_to_the_files_at_the_top():
    assert (ROOT / "reconciler" / "schemas").resolve() == ROOT / "schemas"
    assert read_schema_text("stack") == (ROOT / "schemas" / "stack.schema.json").read_text()
    assert {f"{name}.schema.json" for name in FILES} == {path.name for path in (ROOT / "schemas").iterdir()}


def test_unknown_name_is_a_key_error():
    with pytest.raises(KeyError):
        read_schema_text("../../etc/passwd")


def test_page_of_the_manifest_is_up_to_date():
    page = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    assert page == render_manifest_page(), "run scripts/generate-docs"


def test_page_of_the_controllers_configuration_is_up_to_date_and_names_all_of_it():
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert page == render_serve_page(), "run scripts/generate-docs"
    found = list(properties(load_schema("serve"), "serve", None))
    built = [(path, schema) for path, schema, _ in found if "x-not-built" not in schema]
    assert [path for path, schema in built if not {"description", "x-example"} <= schema.keys()] == []
    assert [path for path, _ in built if path.rsplit("/", 1)[-1] not in page] == []


def test_page_names_each_property_that_is_built_and_each_that_is_not():
    page = render_manifest_page()
    for name in MANIFEST:
        for path, _, _ in properties(load_schema(name), name, None):
            assert path.rsplit("/", 1)[-1] in page, path
