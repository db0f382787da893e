"""A plan against what others hold: host ports of processes and of other stacks, subnets of routes and of other stacks.

Found before anything is changed. The pools of the store and the kernel have the last word when the plan runs.
"""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from reconciler.engine.protocol import Engine
from reconciler.model.errors import PortTaken, SubnetTaken
from reconciler.model.key import Key, stack_of
from reconciler.model.observation import Observation
from reconciler.model.plan import Action, Plan, Verb
from reconciler.model.record import Made, Record, Stack
from reconciler.model.spec import ContainerSpec, NetworkSpec, VolumeSpec
from reconciler.plan.former import find_former, say_way_out
from reconciler.verbs.look import Look

EVERY = "0.0.0.0"


def wanted_ports(stacks: Sequence[Stack]) -> list[str]:
    """All host ports that the stacks want."""
    specs = (spec for stack in stacks for spec in stack.specs.values() if isinstance(spec, ContainerSpec))
    return sorted({port for spec in specs for port in spec.ports})


def check_clashes(plan: Plan, engine: Engine, looked: Look) -> None:
    """Raise PortTaken or SubnetTaken where an action wants what somebody else has, Failed where it wants what this machine
    can't have. What we hold already is no clash."""
    records = looked.records
    others = {key: record for key, record in records.items() if stack_of(key) not in plan.stacks}
    former = find_former(plan.wanted, looked.stacks)
    for action in plan.actions:
        spec = plan.specs.get(action.key)
        record = records.get(action.key)
        if action.verb is Verb.DELETE:
            continue
        if isinstance(spec, ContainerSpec):
            had = record.spec.ports if record and isinstance(record.spec, ContainerSpec) else {}
            _check_ports(action.key, [port for port in spec.ports if port not in had], looked.observation, others, former)
        elif isinstance(spec, VolumeSpec):
            engine.volumes.check(Made(key=action.key, spec=spec))
        elif isinstance(spec, NetworkSpec) and spec.subnet:
            _check_subnet(action, spec.subnet, record, engine, others, former)


def _way_out(holder: Key, former: Mapping[str, str]) -> str:
    """What to do where the holder belongs to what the manifest was before it was renamed."""
    return f"if that stack was renamed: {say_way_out(stack_of(holder))}" if stack_of(holder) in former else ""


def _check_ports(
    key: Key, ports: Sequence[str], observation: Observation, others: Mapping[Key, Record], former: Mapping[str, str]
) -> None:
    published = [
        (other, port)
        for other, record in others.items()
        if isinstance(record.spec, ContainerSpec)
        for port in record.spec.ports
    ]
    for port in ports:
        if port in observation.port_holders:
            raise PortTaken(key, port, observation.port_holders[port])
        for other, taken in published:
            if _meet(port, taken):
                raise PortTaken(key, port, other, _way_out(other, former))


def _meet(one: str, other: str) -> bool:
    """Whether two `HOST_IP:PORT/PROTO` can't both be had."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    return port == other_port and (host == other_host or EVERY in (host, other_host))


def _check_subnet(
    action: Action,
    subnet: str,
    record: Record | None,
    engine: Engine,
    others: Mapping[Key, Record],
    former: Mapping[str, str],
) -> None:
    if record is not None and record.grants.subnet == subnet:
        return
    wanted = ipaddress.ip_network(subnet)
    for other, taken in _subnets(others):
        if wanted.overlaps(ipaddress.ip_network(taken)):
            raise SubnetTaken(action.key, subnet, f"{taken} of {other}", _way_out(other, former))
    engine.check_subnet(action.key, subnet)


def _subnets(records: Mapping[Key, Record]) -> Iterator[tuple[Key, str]]:
    return ((key, record.grants.subnet) for key, record in records.items() if record.grants.subnet)
