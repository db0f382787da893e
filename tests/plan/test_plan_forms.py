"""Plans as data: the contract for machines, and whole for a file."""

import json

import jsonschema
import msgspec
import pytest

from plan.builders import AA, BB, CACHE, FRONT, WEB, Known, container, stack, volume_at
from reconciler.model.errors import Failed
from reconciler.model.observation import Phase, missing
from reconciler.model.plan import Effect, Plan, Reason, Verb
from reconciler.model.record import ImageFact
from reconciler.model.spec import Healthcheck, NetworkSpec, Sensitive
from reconciler.plan.forms import dump_plan, load_plan, plan_json
from reconciler.schema.load import load_schema

web = container(
    networks=("front",),
    ports={"127.0.0.1:8080/tcp": 80},
    env={"TOKEN": Sensitive("hidden"), "LOG": "info"},
    command=("serve", "--port"),
    ulimits={"nofile": (1, -1)},
    depends_on={"cache": "started"},
)
blog = stack(web=web, cache=container(mounts=volume_at("/data", "data")))
FACT = ImageFact(digest=AA, volumes=("/v",), healthcheck=Healthcheck(test=("CMD", "true")), warning="old")


def plans() -> list[Plan]:
    known = Known.of(blog)
    return [
        Known().plan(blog, facts={"app": FACT}),
        known.plan(blog, facts={"app": ImageFact(digest=BB)}),
        known.plan(stack(web=container(env={"TOKEN": Sensitive("other")}), networks={"back": NetworkSpec(mtu=1400)})),
        known.drifted(FRONT, bridge=missing()).drifted(WEB, monitor=missing("restart")).held(CACHE).plan(blog),
        known.seen(WEB, Phase.EXITED, exit_code=1).held(CACHE).plan(blog, resume=True),
        known.plan_delete(),
        known.plan(blog),
    ]


def test_machine_form_is_as_the_schema_says_and_hides_what_is_sensitive():
    schema = load_schema("plan")
    jsonschema.Draft202012Validator.check_schema(schema)
    for plan in plans():
        data = json.loads(json.dumps(plan_json(plan)))
        jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
        assert "hidden" not in json.dumps(data)


def test_machine_form_has_the_fields_of_the_design():
    (action,) = plan_json(
        Known.of(blog).plan(stack(web=msgspec.structs.replace(web, hostname="w"), cache=blog.specs[CACHE]))
    )["actions"]
    assert action == {
        "id": 1,
        "verb": "restart",
        "key": "container/blog/web/1",
        "after": [],
        "reason": "field-changed",
        "changes": [{"path": "/hostname", "from": None, "to": "w", "effect": "restart"}],
        "notes": [],
    }


def test_schema_knows_every_verb_reason_and_effect():
    action = load_schema("plan")["$defs"]["action"]["properties"]
    assert action["verb"]["enum"] == [verb.value for verb in Verb]
    assert action["reason"]["enum"] == [reason.value for reason in Reason]
    assert action["changes"]["items"]["properties"]["effect"]["enum"] == [effect.value for effect in Effect]


def test_whole_form_comes_back_as_it_was_through_json():
    for plan in plans():
        assert load_plan(json.loads(json.dumps(dump_plan(plan))), path="plan.out") == plan


def test_whole_form_marks_sensitive_values_by_their_tag():
    env = dump_plan(Known().plan(blog))["specs"][WEB]["env"]
    assert env["TOKEN"] == {"type": "sensitive", "value": "hidden"}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"form": "reconcile-plan/2"},
        {"form": "reconcile-plan/1"},
        {**dump_plan(Known().plan(blog)), "actions": [{"id": "x"}]},
        {**dump_plan(Known().plan(blog)), "specs": {"nonsense": {}}},
        {**dump_plan(Known().plan(blog)), "specs": {"image/a/b": {"pull": 3}}},
        {**dump_plan(Known().plan(blog)), "specs": [1]},
        {**dump_plan(Known().plan(blog)), "wanted": [{"name": "x"}]},
        {**dump_plan(Known().plan(blog)), "wanted": 7},
    ],
)
def test_anything_else_is_refused_naming_the_file(data):
    with pytest.raises(Failed, match=r"plan\.out: this is no plan"):
        load_plan(data, path="plan.out")
