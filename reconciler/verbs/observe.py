"""What is recorded and seen → what people ask: `get`, `describe`, `drift`. Writes nothing."""

import time
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import Struct, structs

from reconciler.converge.view import made_of
from reconciler.model.errors import NotFound
from reconciler.model.health import active_check
from reconciler.model.key import Key, Kind, kind_of, sort_key, split_key, split_replica_volume
from reconciler.model.observation import MISSING, Health, Phase, Status, Stray
from reconciler.model.plan import Plan
from reconciler.model.record import Hold, Record
from reconciler.model.spec import ContainerSpec, VolumeSpec, spec_builtins
from reconciler.plan.borrowing import find_borrowers
from reconciler.plan.exits import Standing, choose_standing, signal_of
from reconciler.plan.make import make_drift_plan
from reconciler.plan.scene import volume_keys
from reconciler.verbs.look import Look, look
from reconciler.verbs.names import find_containers
from reconciler.verbs.root import Root


class Seen(Struct, frozen=True, kw_only=True):
    """One resource as recorded and as seen."""

    record: Record
    status: Status
    unowned: bool = False
    """A volume that no container mounts and no manifest names: it stays until somebody deletes it by name."""
    sized: bool = False
    """Whether `status.size` of a volume was measured."""
    stack_hold: Hold | None = None
    """What holds its whole stack: a rollback."""

    @property
    def key(self) -> Key:
        """Its key."""
        return self.record.key


class Drift(Struct, frozen=True, kw_only=True):
    """What differs from the records though no manifest changed."""

    plan: Plan
    """Its actions are what an apply would do about it."""
    strays: tuple[Stray, ...]
    """What bears the root's id and belongs to nobody."""
    warnings: tuple[str, ...] = ()
    """What other programs do to what is as it was made: no apply mends it."""


def get(root: Root, kind: Kind | None = None, name: str = "", *, measure: bool = False) -> list[Seen]:
    """Resources in the order of kinds, stacks and names; of one kind, of one name, of a stack. Raises NotFound for a name.

    Sizes of volumes are walked: of all with `measure`, of those that nobody owns where volumes are asked for, else of none.
    """
    looked = look(root)
    records = [record for record in looked.records.values() if kind in (None, split_key(record.key).kind)]
    if name:
        records = _named(looked, records, kind, name)
    records.sort(key=lambda record: sort_key(record.key))
    unowned = find_unowned(root, looked)
    sized = {
        record.key
        for record in records
        if isinstance(record.spec, VolumeSpec)
        # A server that does not answer would hang who only asks for a list.
        and (measure or (kind is Kind.VOLUME and record.key in unowned and not record.spec.driver_opts))
    }
    return [
        Seen(
            record=record,
            status=_status(root, looked, record, sized=sized),
            unowned=record.key in unowned,
            sized=record.key in sized,
            stack_hold=looked.stacks[stack].hold if (stack := split_key(record.key).stack) in looked.stacks else None,
        )
        for record in records
    ]


def find_unowned(root: Root, looked: Look) -> frozenset[Key]:
    """The volumes that no container mounts and that the newest revision of their stack does not name."""
    containers = ((key, record.spec) for key, record in looked.records.items())
    mounted = {volume for key, spec in containers if isinstance(spec, ContainerSpec) for volume in volume_keys(key, spec)}
    idle = [key for key in looked.records if split_key(key).kind is Kind.VOLUME and key not in mounted]
    if not idle:
        return frozenset()
    wanted: set[Key] = set()
    with root.store.read() as tx:
        for stack in sorted({split_key(key).stack for key in idle}):
            number = looked.stacks[stack].revision if stack in looked.stacks else 0
            revision = tx.revision(stack, number) if number else None
            wanted |= set(revision.wanted.specs) if revision is not None and revision.wanted is not None else set()
    return frozenset(key for key in idle if key not in wanted)


def _named(looked: Look, records: list[Record], kind: Kind | None, name: str) -> list[Record]:
    found = [record for record in records if name in (record.key, *_names(record.key))]
    if found := found or [record for record in records if split_key(record.key).stack == name]:
        return found
    if kind in (None, Kind.CONTAINER):
        return find_containers(looked.records, name)
    raise NotFound(kind.value if kind else "resource", name, {split_key(record.key).name for record in records})


def _names(key: Key) -> tuple[str, ...]:
    """What people may write: a name, with its stack; `data` means the volumes of all replicas."""
    parts = split_key(key)
    names = {parts.name, split_replica_volume(parts.name)[0] if parts.kind is Kind.VOLUME else parts.name}
    return (*names, *(f"{parts.stack}/{name}" for name in names))


def _status(root: Root, looked: Look, record: Record, *, sized: Collection[Key]) -> Status:
    status = status_of(looked, record)
    if record.key in sized and isinstance(record.spec, VolumeSpec) and status.phase is not Phase.MISSING:
        return structs.replace(status, size=root.engine.volumes.measure(made_of(record)))
    return status


def status_of(looked: Look, record: Record) -> Status:
    """What was seen of a record, with its health as far as anybody knows it."""
    status = looked.observation.statuses.get(record.key, MISSING)
    if isinstance(record.spec, ContainerSpec):
        status = structs.replace(status, health=_health(record.spec, status))
    return status


def _health(spec: ContainerSpec, status: Status) -> Health:
    """NONE without a check; what was probed last, while that holds; UNKNOWN where nobody probes."""
    if active_check(spec.healthcheck) is None:
        return Health.NONE
    return Health.UNKNOWN if status.health is Health.NONE else status.health


def seen_json(seen: Seen) -> dict[str, Any]:
    """One element of `get -o json`, as the contract in `schemas/get.schema.json` says."""
    record, parts = seen.record, split_key(seen.key)
    return {
        "key": record.key,
        "kind": parts.kind.value,
        "stack": parts.stack,
        "name": parts.name,
        "index": parts.index or None,
        "spec": spec_builtins(record.spec),
        "status": _status_json(seen),
        "created_at": record.created_at,
        **({"unfinished": record.unfinished} if record.unfinished else {}),
        **({"stack_held": msgspec.to_builtins(seen.stack_hold)} if seen.stack_hold else {}),
    }


def _status_json(seen: Seen) -> dict[str, Any]:
    record, status = seen.record, seen.status
    out: dict[str, Any] = {"phase": status.phase.value}
    if isinstance(record.spec, ContainerSpec):
        out |= {
            "pid": status.pid or None,
            "started_at": status.started_at or None,
            "finished_at": status.finished_at or None,
            "exit_code": status.exit_code,
            "signal": signal_of(status.exit_code) or None,
            "oom_killed": status.oom_killed,
            "restarts": status.restarts,
            "restarting": status.restarting,
            "restart_at": status.restart_at or None,
            "gave_up": status.gave_up,
            "health": status.health.value,
            "image": record.image,
            "incarnation": record.incarnation,
            "addresses": {name: [place.address] for name, place in record.grants.endpoints.items()},
            "ports": [f"{host} -> {port}" for host, port in record.spec.ports.items()],
            "held": msgspec.to_builtins(record.hold) if record.hold else None,
        }
        out |= {"stopped": True} if status.stopped else {}
        if record.spec.job:
            out["completed"] = choose_standing(record.spec, status) is Standing.COMPLETED
    else:
        out |= {name: value for name, value in _given(record, status).items() if value}
        out |= {"unowned": True} if seen.unowned else {}
        out |= {"size": status.size} if seen.sized else {}
    out["drift"] = [_part(name, seen) for name, part in sorted(status.parts.items()) if part.state != "present"]
    return out


def _given(record: Record, status: Status) -> dict[str, Any]:
    grants = record.grants
    return {
        "image": record.image,
        "size": status.size,
        "link": grants.link,
        "subnet": grants.subnet,
        "gateway": grants.gateway,
        "volume_id": grants.volume_id,
    }


def _part(name: str, seen: Seen) -> dict[str, str]:
    part = seen.status.parts[name]
    return {"part": name, **{k: v for k, v in msgspec.to_builtins(part).items() if v}}


def describe(root: Root, kind: Kind | None, name: str) -> list[dict[str, Any]]:
    """Everything known of the resources that a name means: `get`'s form, with parts and the last events."""
    out = []
    found = get(root, kind, name, measure=True)
    lent = _find_lent(root) if any(split_key(seen.key).kind in (Kind.NETWORK, Kind.VOLUME) for seen in found) else {}
    for seen in found:
        with root.store.read() as tx:
            events = [event for event in tx.events(stack=split_key(seen.key).stack) if event.key == seen.key][-10:]
        out.append(
            {
                **seen_json(seen),
                "stack_held": msgspec.to_builtins(seen.stack_hold) if seen.stack_hold else None,
                **({"borrowed_by": list(lent[seen.key])} if seen.key in lent else {}),
                "parts": {part: value.state for part, value in sorted(seen.status.parts.items())},
                "events": [{"at": event.at, **msgspec.to_builtins(event.event)} for event in events],
            }
        )
    return out


def _find_lent(root: Root) -> dict[Key, tuple[Key, ...]]:
    with root.store.read() as tx:
        return find_borrowers((key, record.spec) for key, record in tx.records().items())


def drift(root: Root, stack: str = "") -> Drift:
    """What the machine changed behind our back: the plan that would mend it, of what is recorded as the wish.

    Raises NotFound for a stack that is not on record.
    """
    looked = look(root)
    stacks = sorted({split_key(key).stack for key in looked.records})
    if stack and stack not in stacks:
        raise NotFound("stack", stack, stacks)
    names = [stack] if stack else stacks
    records = {key: record for key, record in looked.records.items() if split_key(key).stack in names}
    known = {name: record for name, record in looked.stacks.items() if name in names}
    plan = make_drift_plan(stacks=known, records=records, observation=looked.observation, now=time.time())
    warnings = root.engine.read_warnings() if any(kind_of(key) is Kind.NETWORK for key in records) else ()
    return Drift(plan=plan, strays=looked.observation.strays, warnings=tuple(warnings))
