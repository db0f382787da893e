"""Turns a plan into plain data and back: for machines (`plan -o json`, a contract), and whole (`--out` files).

The whole form keeps sensitive values as they stand in the plan: who writes one seals them in it first, and opens them in
what was read. Neither writes nor reads a file.
"""

from typing import Any

import msgspec

from reconciler.model.errors import Failed
from reconciler.model.key import Key, kind_of
from reconciler.model.plan import Plan
from reconciler.model.record import Commit, Stack
from reconciler.model.spec import SPEC_TYPES, Spec

FORM = "reconcile-plan/1"


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan for machines, in the form of `schemas/plan.schema.json`. Holds nothing that people must not see."""
    return {
        "stacks": list(plan.stacks),
        "actions": [
            {
                "id": action.id,
                "verb": action.verb.value,
                "key": action.key,
                "after": list(action.after),
                "reason": action.reason.value,
                "changes": [
                    {"path": change.path, "from": change.old, "to": change.new, "effect": change.effect.value}
                    for change in action.changes
                ],
                "notes": list(action.notes),
            }
            for action in plan.actions
        ],
        "lines": [{"key": line.key, "text": line.text} for line in plan.lines],
        "remarks": list(plan.remarks),
        "summary": plan.summary,
    }


def dump_plan(plan: Plan) -> dict[str, Any]:
    """All of a plan as plain data. Sensitive values stand in it as `{"type": "sensitive", "value": …}`, as they are."""
    whole = msgspec.to_builtins(plan)
    return {"form": FORM, **whole}


def load_plan(data: object, *, path: str) -> Plan:
    """The plan that `dump_plan` gave. Raises Failed, naming `path`, for anything else."""
    try:
        return _load(data)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Failed(
            f"{path}: this is no plan of this version of reconcile",
            detail=str(error),
            hint="make one with `reconcile plan --out`",
        ) from error


def _load(data: object) -> Plan:
    if not isinstance(data, dict) or data.get("form") != FORM:
        raise ValueError(f"expected the form {FORM}")
    # The specs' structs have no tag: which one it is follows from its key.
    plain = {name: value for name, value in data.items() if name not in ("form", "specs", "wanted")}
    wanted = tuple(_load_stack(stack) for stack in data["wanted"])
    bare = msgspec.convert(plain, _BarePlan)
    return Plan(
        **{field: getattr(bare, field) for field in bare.__struct_fields__},
        specs=_load_specs(data["specs"]),
        wanted=wanted,
    )


def _load_stack(data: dict[str, Any]) -> Stack:
    name, origin, source = msgspec.convert([data[name] for name in ("name", "origin", "source")], tuple[str, str, str])
    commit = msgspec.convert(data.get("commit"), Commit | None)
    return Stack(name=name, origin=origin, source=source, specs=_load_specs(data["specs"]), commit=commit)


def _load_specs(data: dict[str, Any]) -> dict[Key, Spec]:
    return {Key(key): msgspec.convert(spec, SPEC_TYPES[kind_of(Key(key))]) for key, spec in data.items()}


_BarePlan = msgspec.defstruct(
    "_BarePlan",
    [
        (field.name, field.type, field.default)
        for field in msgspec.structs.fields(Plan)
        if field.name not in ("specs", "wanted")
    ],
    kw_only=True,
)
