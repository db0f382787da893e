"""Manifests → a plan, by what is recorded and seen. Changes nothing: no pull, no file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from reconciler.engine.protocol import Engine
from reconciler.model.errors import PortTaken
from reconciler.model.key import Key
from reconciler.model.observation import Observation
from reconciler.model.plan import Plan, Verb
from reconciler.model.record import Desired, Record, Stack
from reconciler.model.spec import ContainerSpec
from reconciler.plan.decide import PlanOptions
from reconciler.plan.limits import check_origins
from reconciler.plan.make import make_plan
from reconciler.verbs.look import Look, look
from reconciler.verbs.resolve import resolve
from reconciler.verbs.root import Root


class Wish(Struct, frozen=True, kw_only=True):
    """What somebody wants of a plan."""

    stacks: tuple[Stack, ...]
    offline: bool = False
    resume: bool = False
    prune: bool = True
    take_over: bool = False


def plan(root: Root, wish: Wish, *, now: float) -> tuple[Plan, Look]:
    """The plan that `apply` would run now, and what it was made from. Raises what resolve and the planner raise."""
    looked = look(root, ports=wanted_ports(wish.stacks), stacks=[stack.name for stack in wish.stacks])
    return plan_from(root.engine, wish, looked, now=now), looked


def plan_from(engine: Engine, wish: Wish, looked: Look, *, now: float) -> Plan:
    """Resolve and plan over a look."""
    if not wish.take_over:
        check_origins(Desired(stacks=wish.stacks, images={}), looked.stacks)
    desired = resolve(wish.stacks, images=engine.images, records=looked.records, offline=wish.offline)
    made = make_plan(
        desired,
        stacks=looked.stacks,
        records=looked.records,
        observation=looked.observation,
        options=PlanOptions(resume=wish.resume, prune=wish.prune),
        now=now,
    )
    check_ports(made, looked.observation, looked.records)
    return made


def wanted_ports(stacks: Sequence[Stack]) -> list[str]:
    """All host ports that the stacks want."""
    specs = (spec for stack in stacks for spec in stack.specs.values() if isinstance(spec, ContainerSpec))
    return sorted({port for spec in specs for port in spec.ports})


def check_ports(plan: Plan, observation: Observation, records: Mapping[Key, Record]) -> None:
    """Raise PortTaken where an action opens a port that another process holds. A port that we opened already stays."""
    for action in plan.actions:
        spec = plan.specs.get(action.key)
        if action.verb is Verb.DELETE or not isinstance(spec, ContainerSpec):
            continue
        record = records.get(action.key)
        had = record.spec.ports if record and isinstance(record.spec, ContainerSpec) else {}
        for port in spec.ports:
            if port not in had and port in observation.port_holders:
                raise PortTaken(action.key, port, observation.port_holders[port])


def load(
    paths: Sequence[Path], *, variables: Mapping[str, str], environment: Mapping[str, str], stdin: str | None = None
) -> tuple[Stack, ...]:
    """Read manifests: files, folders of them, `-` for the text given as `stdin`. Raises BadManifest."""
    from reconciler.manifest.load import load_stacks
    from reconciler.verbs.origin import origin_of

    return load_stacks(paths, variables=variables, environment=environment, origin_of=origin_of, stdin=stdin)
