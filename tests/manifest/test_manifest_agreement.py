"""Our reading of the schemas against jsonschema's own: both take and refuse the same documents."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from reconciler.manifest.faults import Fault
from reconciler.manifest.judge import judge as second_opinion
from reconciler.manifest.scalars import read_scalar
from reconciler.manifest.validate import validate
from reconciler.schema.load import FILES, load_schema, resolve_reference

REGISTRY: Registry[Any] = Registry().with_resources(
    [(load_schema(name)["$id"], Resource.from_contents(load_schema(name))) for name in FILES]
)
JUDGE = Draft202012Validator(load_schema("stack"), registry=REGISTRY)
HEAD = {"apiVersion": "reconcile/v1", "name": "s"}


def is_about_more_than_the_schema(fault: Fault) -> bool:
    """What is not built yet is in the schemas, and refused by us alone."""
    return "not built yet" in fault.text


def judge(data: Any) -> tuple[bool, bool]:
    """Whether we take a document, and whether jsonschema does; what is not built counts as taken."""
    faults = [fault for fault in validate(data)[1] if not is_about_more_than_the_schema(fault)]
    return not faults, JUDGE.is_valid(data)


def examples(schema: dict[str, Any]) -> list[Any]:
    """The examples that a schema gives of itself."""
    schema = resolve_reference(schema)
    return [schema["x-example"]] if "x-example" in schema else []


def whole(kind: str) -> dict[str, Any]:
    """A resource with every property that is built, each with its example."""
    schema = load_schema(kind)
    return {
        name: resolve_reference(prop)["x-example"]
        for name, prop in schema["properties"].items()
        if "x-not-built" not in prop
    }


FULL = {**HEAD, "origin": "team", "x-a": [1]}
FULL |= {f"{kind}s": {"a": whole(kind)} for kind in ("image", "network", "volume", "container")}
ANYTHING = st.sampled_from(
    [
        *[
            None,
            True,
            False,
            0,
            1,
            -1,
            3,
            70000,
            2**40,
            1.5,
            2.0,
            -0.5,
            "",
            "a",
            "A b",
            "5s",
            "64M",
            "../x",
            "no",
            "/a",
            "10.0.0.1",
        ],
        *["10.0.0.0/24", "a" * 200, [], {}, ["a"], ["a=b"], [1], [None], [["a"]], [{"type": "tmpfs", "target": "/t"}]],
        *[
            {"a": "b"},
            {"a": 1},
            {"a": None},
            {"": 1},
            {"target": "/x"},
            {"soft": 1, "hard": 2},
            {"test": "a"},
            {"a": "healthy"},
        ],
        {"a": {"aliases": ["b"]}},
    ]
)


def places(data: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path within a document."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [above, *(path for key, below in pairs for path in places(below, (*above, key)))]


PLACES = [path for path in places(FULL) if path]


def test_a_manifest_with_every_example_fits():
    assert judge(FULL) == (True, True)


@pytest.mark.parametrize("kind", ["image", "network", "volume", "container"])
def test_every_property_that_is_built_has_an_example_that_fits(kind: str):
    for name, value in whole(kind).items():
        base = {"image": "a/b:1"} if kind == "container" else {}
        assert judge({**HEAD, f"{kind}s": {"a": {**base, name: value}}}) == (True, True), name


@settings(max_examples=300)
@given(st.sampled_from(PLACES), ANYTHING, st.sampled_from(["set", "add", "delete"]))
def test_what_is_changed_at_any_place_is_judged_alike(path: tuple[Any, ...], value: Any, how: str):
    data = copy.deepcopy(FULL)
    holder: Any = data
    for segment in path[:-1]:
        holder = holder[segment]
    if how == "set":
        holder[path[-1]] = value
    elif how == "delete":
        del holder[path[-1]]
    elif isinstance(holder, dict):
        holder["added"] = value
    else:
        holder.append(value)
    ours, theirs = judge(data)
    assert ours == theirs, (path, how, value)


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from([*FULL, "y", "x-b"]), ANYTHING | st.dictionaries(st.sampled_from(["a", "B", "c d"]), ANYTHING)
    )
)
def test_documents_of_any_form_are_judged_alike(data: dict[str, Any]):
    ours, theirs = judge({**HEAD, **data})
    assert ours == theirs


@pytest.mark.parametrize("value", [3.0, 2.5, 1e15])
def test_numbers_with_a_fraction_are_whole_when_they_are(value: float):
    data = {**HEAD, "containers": {"a": {"image": "a/b:1", "resources": {"pids": read_scalar(f"{value}")}}}}
    ours, theirs = judge(data)
    assert ours == theirs


def test_second_opinion_takes_what_we_take_and_names_what_the_schema_refuses() -> None:
    assert list(second_opinion(FULL)) == []
    faults = list(second_opinion({**HEAD, "containers": {"web": {"image": 7}}}))
    assert [fault.path for fault in faults] == [("containers", "web", "image")]
    assert "please report it" in faults[0].hint
