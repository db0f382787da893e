"""The forms for machines: what `get` and the event stream give fits their schemas."""

from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from reconciler.model import events
from reconciler.model.key import Key
from reconciler.schema.load import FILES, load_schema

REGISTRY: Registry[Any] = Registry().with_resources(
    [(load_schema(name)["$id"], Resource.from_contents(load_schema(name))) for name in FILES]
)
KEY = Key("container/blog/web/1")
PLAN = {
    "stacks": ["blog"],
    "actions": [],
    "lines": [],
    "remarks": [],
    "summary": {"create": 0, "update": 0, "restart": 0, "replace": 0, "delete": 0},
}
EVENTS = [
    events.PlanMade(plan=PLAN),
    events.ActionStarted(id=1, verb="create", key=KEY),
    events.ActionStep(id=1, key=KEY, text="stopping"),
    events.Progress(key=KEY, part="sha256:aa", done=1, total=2),
    events.ActionDone(id=1, verb="create", key=KEY, took=0.5, at=1.0),
    events.ActionFailed(id=1, verb="create", key=KEY, brief="no", hint="try"),
    events.ActionSkipped(id=2, verb="create", key=KEY, because=KEY),
    events.Note(text="a word", key=KEY, level="warning"),
    events.Note(text="a word"),
    events.Changed(verb="apply", stack="blog", who="ann", uid=0, pid=7, result="done", actions=("create a: new",), count=1),
    events.Changed(verb="heal", stack="blog", who="serve", result="failed", why="no"),
]


def check(name: str, value: Any) -> list[str]:
    validator = Draft202012Validator(load_schema(name), registry=REGISTRY)
    return [error.message for error in validator.iter_errors(value)]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_fits_its_schema(event: events.AnyEvent):
    assert check("events", msgspec.json.decode(msgspec.json.encode(event))) == []


def test_schema_of_events_knows_every_event():
    assert {type(event) for event in EVENTS} == set(get_args(events.AnyEvent))
    tags = {form["properties"]["event"]["const"] for form in load_schema("events")["anyOf"]}
    assert tags == {kind.__struct_config__.tag for kind in get_args(events.AnyEvent)}


def test_a_list_of_resources_fits_the_schema_of_get():
    status = {"phase": "running", "pid": 123, "started_at": 1.0, "exit_code": None, "restarts": 0, "health": "healthy"}
    status |= {"image": "sha256:aa", "addresses": {"front": ["10.40.0.10"]}, "ports": [], "drift": []}
    element = {"key": KEY, "kind": "container", "stack": "blog", "name": "web", "index": 1, "spec": {}, "status": status}
    assert check("get", [element]) == []
    assert check("get", [{**element, "kind": "pod"}]) != []
    assert check("get", [{**element, "status": {**status, "pid": "123"}}]) != []


def test_the_form_of_status_knows_every_state_and_every_finding():
    from reconciler.model.observation import Stray
    from reconciler.model.record import StackRecord
    from reconciler.plan.condition import Condition, Finding, Revised, State, What
    from reconciler.verbs.status import Report, report_json

    conditions = [
        Condition(
            stack=StackRecord(name="blog", origin="name:blog", source="blog.yaml"),
            state=state,
            revision=Revised(number=1, at=1.0, who="ann", result="") if state is State.FAILED else None,
            findings=tuple(Finding(what=what, text="a word", key=KEY if what is What.DOWN else None) for what in What),
        )
        for state in State
    ]
    form = report_json(Report(stacks=tuple(conditions), strays=(Stray(kind="link", name="x"),)))
    assert check("status", form) == []
    assert check("status", {**form, "strays": None}) != []
    stacks = load_schema("status")["properties"]["stacks"]["items"]["properties"]
    assert set(stacks["state"]["enum"]) == {state.value for state in State}
    assert set(stacks["findings"]["items"]["properties"]["what"]["enum"]) == {what.value for what in What}
