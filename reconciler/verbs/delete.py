"""What is recorded under a name → gone, in order; volumes stay unless they are named."""

from collections.abc import Sequence

from msgspec import Struct, structs

from reconciler.converge.view import made_of
from reconciler.model.errors import NotFound, OriginDiffers
from reconciler.model.key import Key, Kind, kind_of, make_key, split_key, split_replica_volume
from reconciler.model.observation import Observation
from reconciler.model.plan import Plan
from reconciler.model.record import Record
from reconciler.plan.delete import find_unused, make_delete_plan
from reconciler.verbs.apply import Applied, ApplyOptions, carry_out, recovered
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root
from reconciler.verbs.sizes import plan_with_sizes

RUN = "run"
"""The stack of `reconcile run`: images and networks that were made for one container go with it."""


class Doomed(Struct, frozen=True, kw_only=True):
    """What is to be deleted."""

    stack: str
    keys: tuple[Key, ...] = ()
    """Only these of the stack; all where empty."""
    volumes: tuple[str, ...] = ()
    """Names of the volumes whose data goes too."""
    all_volumes: bool = False
    origin: str = ""
    """Of the manifest that the delete was asked by; "" where it was asked by name."""
    take_over: bool = False


def delete(root: Root, doomed: Doomed, options: ApplyOptions, *, face: Face) -> Applied:
    """Delete a stack, or some resources of one. Raises NotFound, OriginDiffers, NeedsYes, ConvergeFailed."""
    with root.lock_stacks([doomed.stack], "delete"), Recorder(root, face.emit, [doomed.stack]) as told:
        looked = recovered(root, [doomed.stack], emit=told)
        plan = plan_with_sizes(lambda seen: delete_plan(looked, doomed, seen), root.engine, looked)
        # It is the request itself: the limit on what a changed manifest may delete does not hold here.
        options = structs.replace(options, allow_delete=True)
        face = structs.replace(face, emit=told)
        return carry_out(root, plan, looked, options, face=face, tried=f"delete {doomed.stack}")


def delete_plan(looked: Look, doomed: Doomed, observation: Observation) -> Plan:
    """The plan of a delete. Raises NotFound for a stack, a key or a volume that is not on record."""
    own = {key: record for key, record in looked.records.items() if split_key(key).stack == doomed.stack}
    if not own:
        raise NotFound("stack", doomed.stack, sorted({split_key(key).stack for key in looked.records}))
    recorded = looked.stacks.get(doomed.stack)
    if recorded and doomed.origin and recorded.origin != doomed.origin and not doomed.take_over:
        raise OriginDiffers(doomed.stack, recorded.origin, doomed.origin)
    for key in doomed.keys:
        if key not in own:
            raise NotFound("resource", key, sorted(own))
    keys = doomed.keys or tuple(own)
    if doomed.stack == RUN and any(kind_of(key) is Kind.CONTAINER for key in keys):
        keys = (*keys, *(key for key in find_unused(keys, looked.records) if key not in keys))
    return make_delete_plan(
        keys,
        volumes=_volumes(own, doomed),
        stacks=looked.stacks,
        records=looked.records,
        observation=observation,
    )


def _volumes(own: dict[Key, Record], doomed: Doomed) -> tuple[Key, ...]:
    volumes = {split_key(key).name: key for key in own if kind_of(key) is Kind.VOLUME}
    if doomed.all_volumes:
        return tuple(volumes.values())
    found: list[Key] = []
    for name in doomed.volumes:
        named = [key for volume, key in volumes.items() if name in (volume, split_replica_volume(volume)[0])]
        if not named:
            raise NotFound("volume", name, sorted(volumes))
        found += named
    return tuple(dict.fromkeys(found))


def find_stack_or_key(records: Sequence[Key], text: str) -> Doomed:
    """What a name given to `delete` means: a stack, or a key in full; without its index, all replicas of a container or
    their volumes."""
    if any(split_key(key).stack == text for key in records):
        return Doomed(stack=text)
    matches = tuple(key for key in records if text in (key, _without_index(key)))
    if not matches:
        raise NotFound("stack or resource", text, sorted({split_key(key).stack for key in records}))
    volumes = tuple(split_key(key).name for key in matches if kind_of(key) is Kind.VOLUME)
    return Doomed(stack=split_key(matches[0]).stack, keys=matches, volumes=volumes)


def _without_index(key: Key) -> str:
    parts = split_key(key)
    if parts.kind is Kind.CONTAINER:
        return key.rpartition("/")[0]
    return make_key(parts.kind, parts.stack, split_replica_volume(parts.name)[0])


def doomed_volumes(root: Root, doomed: Doomed) -> dict[Key, int]:
    """The volumes whose data would go, with their bytes, for people who must agree to it."""
    with root.store.read() as tx:
        own = tx.records([doomed.stack])
    return {key: root.engine.volumes.measure(made_of(own[key])) for key in _volumes(own, doomed)}
