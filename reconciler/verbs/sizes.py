"""A plan → the same plan with the sizes of what it discards. Walking costs, so only what goes is measured."""

from collections.abc import Callable

from msgspec import structs

from reconciler.converge.view import made_of
from reconciler.engine.protocol import Engine
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import Observation, Phase
from reconciler.model.plan import Plan, Verb
from reconciler.model.spec import ContainerSpec
from reconciler.verbs.look import Look


def plan_with_sizes(make: Callable[[Observation], Plan], engine: Engine, looked: Look) -> Plan:
    """Make a plan; where it discards something, measure that and make it again with what was found."""
    plan = make(looked.observation)
    sizes = _measure(engine, plan, looked)
    if not sizes:
        return plan
    statuses = {key: structs.replace(looked.observation.statuses[key], size=size) for key, size in sizes.items()}
    return make(structs.replace(looked.observation, statuses={**looked.observation.statuses, **statuses}))


def _measure(engine: Engine, plan: Plan, looked: Look) -> dict[Key, int]:
    """Bytes of the writable layers of containers that are replaced or deleted, and of volumes that are deleted."""
    found: dict[Key, int] = {}
    for action in plan.actions:
        record, status = looked.records.get(action.key), looked.observation.statuses.get(action.key)
        if record is None or status is None or status.phase is Phase.MISSING:
            continue
        if isinstance(record.spec, ContainerSpec) and action.verb in (Verb.REPLACE, Verb.DELETE):
            if not record.spec.read_only:
                found[action.key] = engine.containers.measure(made_of(record))
        elif kind_of(action.key) is Kind.VOLUME and action.verb is Verb.DELETE:
            found[action.key] = engine.volumes.measure(made_of(record))
    return found
