"""Turns a step into the lines that people must see beside it: what it opens, closes, discards, keeps.

Called by `make.py` and `delete.py` for each step. Words only: nothing is decided by them.
"""

from collections.abc import Iterator

from reconciler.model.content import kept_files
from reconciler.model.key import (
    Key,
    Kind,
    full_name,
    kind_of,
    named_key,
    short_name,
    split_key,
    split_replica_volume,
    stack_of,
)
from reconciler.model.plan import Reason, Verb
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec, NetworkSpec
from reconciler.model.units import render_size_rounded
from reconciler.plan.borrowing import borrowed_keys
from reconciler.plan.complete import implicit_volumes
from reconciler.plan.diff import pointer_names
from reconciler.plan.graph import Step
from reconciler.plan.scene import Scene
from reconciler.plan.updates import choose_order


def render_notes(step: Step, scene: Scene, *, replaced: frozenset[Key]) -> tuple[str, ...]:
    """The lines of one step. `replaced` are the networks that are made anew."""
    key = step.decision.key
    if kind_of(key) is Kind.CONTAINER:
        return tuple(_container_notes(step, scene, replaced))
    return tuple(_thing_notes(step, scene))


def _name_beside(key: Key, container: Key) -> str:
    """What a container is called where a resource is spoken of: with its stack where that is another one."""
    return short_name(container) if stack_of(container) == stack_of(key) else full_name(container)


def _thing_notes(step: Step, scene: Scene) -> Iterator[str]:
    key, kind = step.decision.key, kind_of(step.decision.key)
    if kind is Kind.VOLUME and step.verb is Verb.DELETE:
        size = scene.status(key).size
        yield "deletes its data" + (f" ({render_size_rounded(size)})" if size else "")
    if kind is Kind.VOLUME and step.decision.reason is Reason.GONE:
        yield "its folder is gone: it is made anew, and empty (accepted)"
    if kind is Kind.NETWORK and step.verb is Verb.REPLACE and (sitting := scene.sitting_on(key)):
        yield f"stops and detaches {', '.join(_name_beside(key, container) for container in sitting)} first"


def _container_notes(step: Step, scene: Scene, replaced: frozenset[Key]) -> Iterator[str]:
    key, verb = step.decision.key, step.verb
    record, recorded, wanted = scene.records.get(key), scene.recorded(key), scene.wanted(key)
    if wanted is not None and verb is not Verb.DELETE:
        yield from _port_notes(key, wanted, recorded if verb is not Verb.CREATE else None)
        yield from _implicit_notes(key, wanted, recorded)
        yield from _borrowing_notes(key, wanted, recorded)
        yield from _gate_notes(step, wanted, scene)
        yield from _signal_notes(step, wanted)
    if verb is Verb.DELETE and recorded is not None:
        yield from (f"closes {port}" for port in sorted(recorded.ports))
    if step.decision.reason is Reason.NOT_WANTED and record is not None and recorded is not None:
        yield from _return_notes(record, recorded)
    if choose_order(step, scene, replaced=replaced):
        yield "starts the new one first, with another address; its names move once it is seen"
    if verb in (Verb.REPLACE, Verb.DELETE) and recorded is not None and scene.is_there(key) and not recorded.read_only:
        size = scene.status(key).size
        yield "discards its writable layer" + (f" ({render_size_rounded(size)})" if size else "")
    if verb is not step.decision.verb and verb is Verb.DELETE:
        yield "made again below: it hands a port, an address, a subnet or a volume over to one that hands it another"
    if record is not None and wanted is not None and verb is not Verb.DELETE:
        yield from _address_notes(record, wanted, scene, replaced)
    if record is not None and record.hold is not None and verb is not Verb.DELETE:
        ended = step.decision.reason is Reason.RESUMED
        hold = f"its hold ({record.hold.kind} by {record.hold.who})"
        frozen = record.hold.kind == "pause" and verb is Verb.UPDATE
        yield f"ends {hold}" if ended else f"stays {'paused' if frozen else 'stopped'} by {hold}"


def _return_notes(record: Record, recorded: ContainerSpec) -> Iterator[str]:
    """What a replica that goes finds again when it comes back."""
    mounts = recorded.mounts.values()
    volumes = sorted({mount.source for mount in mounts if mount.type == "volume" and split_replica_volume(mount.source)[1]})
    if volumes:
        places = [f"{place.address} on {name}" for name, place in sorted(record.grants.endpoints.items())]
        yield f"keeps for when it is scaled up again: {', '.join([f'volume {name}' for name in volumes] + places)}"


def _port_notes(key: Key, wanted: ContainerSpec, recorded: ContainerSpec | None) -> Iterator[str]:
    before = recorded.ports if recorded is not None else {}
    for port in sorted(before):
        if port not in wanted.ports:
            yield f"closes {port}"
    for port, inside in sorted(wanted.ports.items()):
        if before.get(port) != inside:
            yield f"opens {port} -> {short_name(key)}:{inside}"


def _implicit_notes(key: Key, wanted: ContainerSpec, recorded: ContainerSpec | None) -> Iterator[str]:
    before = implicit_volumes(key, recorded) if recorded is not None else {}
    for volume, target in implicit_volumes(key, wanted).items():
        if volume not in before:
            yield f"keeps {target} in volume {split_key(volume).name}: a VOLUME of its image that no mount covers"


def _borrowing_notes(key: Key, wanted: ContainerSpec, recorded: ContainerSpec | None) -> Iterator[str]:
    before = set(borrowed_keys(key, recorded)) if recorded is not None else set()
    for used in dict.fromkeys(borrowed_keys(key, wanted)):
        if used not in before:
            parts = split_key(used)
            yield f"borrows the {parts.kind.value} {parts.name} of stack {parts.stack}"


def _gate_notes(step: Step, wanted: ContainerSpec, scene: Scene) -> Iterator[str]:
    """A held dependency counts as met for what runs and for what is held itself, as unmet for what must start."""
    if step.verb is Verb.UPDATE or step.decision.reason is Reason.RESUMED:
        return
    own = scene.records.get(step.decision.key)
    if own is not None and own.hold is not None:
        return
    stack = split_key(step.decision.key).stack
    for name in sorted(wanted.depends_on):
        for dependency in scene.named(stack, name):
            record = scene.records.get(dependency)
            if record is not None and record.hold is not None:
                yield f"can't start while {short_name(dependency)}, which it depends on, is held"


def _signal_notes(step: Step, wanted: ContainerSpec) -> Iterator[str]:
    """What a container is sent because a file changed beneath it; not where it is started anew for another reason."""
    if step.verb is not Verb.UPDATE:
        return
    changed = {pointer_names(change.path)[1] for change in step.decision.changes if change.path.endswith("/digest")}
    signals = {file.signal for target, file in kept_files(wanted) if target in changed and file.signal}
    yield from (f"is sent {signal}" for signal in sorted(signals))


def _address_notes(record: Record, wanted: ContainerSpec, scene: Scene, replaced: frozenset[Key]) -> Iterator[str]:
    stack = split_key(record.key).stack
    for name, endpoint in sorted(record.grants.endpoints.items()):
        network = named_key(Kind.NETWORK, stack, name)
        if network not in replaced or name not in wanted.networks:
            continue
        spec = scene.specs.get(network)
        pool = spec.subnet if isinstance(spec, NetworkSpec) and spec.subnet else "the network's subnet"
        fixed = wanted.networks[name].ipv4
        yield f"address on {name}: {endpoint.address} → {fixed or f'one of {pool}'}"
