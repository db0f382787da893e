"""What is recorded under a name → gone, in order; volumes stay unless they are named."""

from collections.abc import Collection

from msgspec import Struct, structs

from reconciler.converge.sweep import sweep
from reconciler.converge.view import made_of
from reconciler.model.errors import NotFound, Usage
from reconciler.model.events import Emit
from reconciler.model.key import RUN_STACK, Key, Kind, kind_of, split_key, split_replica_volume, stack_of
from reconciler.model.observation import Observation
from reconciler.model.plan import Plan, Reason
from reconciler.model.record import Record
from reconciler.plan.delete import find_unused, make_delete_plan
from reconciler.plan.limits import check_deletable
from reconciler.verbs.apply import Applied, ApplyOptions, carry_out, recovered
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look
from reconciler.verbs.names import find_keys
from reconciler.verbs.origin import gone_origins
from reconciler.verbs.record import Recorder
from reconciler.verbs.root import Root
from reconciler.verbs.sizes import plan_with_sizes


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
    reason: Reason = Reason.REQUESTED


def delete(root: Root, doomed: Doomed, options: ApplyOptions, *, face: Face) -> Applied:
    """Delete a stack, or some resources of one. Raises NotFound, OriginDiffers, NeedsYes, ConvergeFailed."""
    with root.lock_stacks([doomed.stack], "delete"), Recorder(root, face.emit, [doomed.stack], "delete") as told:
        looked = recovered(root, [doomed.stack], emit=told)
        wanted = _read_wanted(root, doomed.stack) if doomed.keys and doomed.stack != RUN_STACK else ()
        plan = plan_with_sizes(lambda seen: delete_plan(looked, doomed, seen, wanted=wanted), root.engine, looked)
        # It is the request itself: the limit on what a changed manifest may delete does not hold here.
        options = structs.replace(options, allow_delete=True)
        face = structs.replace(face, emit=told)
        return carry_out(root, plan, looked, options, face=face, tried=f"delete {doomed.stack}")


def remove_strays(root: Root, emit: Emit) -> None:
    """What a delete that was killed at its very end left: its records are gone, and nothing has its name any more."""
    if root.root_id:
        sweep(root.ground(), emit)


def _read_wanted(root: Root, stack: str) -> Collection[Key]:
    """What the manifest had when it was applied last."""
    with root.store.read() as tx:
        recorded = tx.stacks().get(stack)
        revision = tx.revision(stack, recorded.revision) if recorded is not None else None
    return revision.wanted.specs.keys() if revision is not None and revision.wanted is not None else ()


def delete_plan(looked: Look, doomed: Doomed, observation: Observation, *, wanted: Collection[Key] = ()) -> Plan:
    """The plan of a delete. Raises NotFound for a stack, a key or a volume that is not on record, OriginDiffers, Usage."""
    own = {key: record for key, record in looked.records.items() if split_key(key).stack == doomed.stack}
    if not own:
        raise NotFound("stack", doomed.stack, {stack_of(key) for key in looked.records})
    recorded = looked.stacks.get(doomed.stack)
    if not doomed.take_over:
        check_deletable(doomed.stack, recorded, origin=doomed.origin, gone=gone_origins(looked.stacks, [doomed.stack]))
    for key in doomed.keys:
        if key not in own:
            raise NotFound("resource", key, own)
    keys = doomed.keys or tuple(own)
    if doomed.stack == RUN_STACK and any(kind_of(key) is Kind.CONTAINER for key in keys):
        keys = (*keys, *(key for key in find_unused(keys, looked.records) if key not in keys))
    return make_delete_plan(
        keys,
        volumes=_volumes(own, doomed),
        wanted=wanted,
        reason=doomed.reason,
        stacks=looked.stacks,
        records=looked.records,
        observation=observation,
    )


def _volumes(own: dict[Key, Record], doomed: Doomed) -> tuple[Key, ...]:
    if doomed.keys and doomed.all_volumes:
        raise Usage("--volumes goes with a whole stack", hint="name the volumes that are to go: --volume NAME")
    volumes = {split_key(key).name: key for key in own if kind_of(key) is Kind.VOLUME}
    if doomed.all_volumes:
        return tuple(volumes.values())
    found: list[Key] = []
    for name in doomed.volumes:
        named = [key for volume, key in volumes.items() if name in (volume, split_replica_volume(volume)[0])]
        if not named:
            raise NotFound("volume", name, volumes)
        found += named
    return tuple(dict.fromkeys(found))


def find_doomed(records: Collection[Key], text: str) -> Doomed:
    """What a name given to `delete` means: a stack, else what `find_keys` finds. A volume that is named so goes with its
    data. Raises NotFound, or Failed where it may mean several things."""
    if any(stack_of(key) == text for key in records):
        return Doomed(stack=text)
    keys = find_keys(records, text)
    if not keys:
        names = {stack_of(key) for key in records} | {f"{stack_of(key)}/{split_key(key).name}" for key in records}
        raise NotFound("stack or resource", text, names)
    volumes = tuple(split_key(key).name for key in keys if kind_of(key) is Kind.VOLUME)
    return Doomed(stack=stack_of(keys[0]), keys=keys, volumes=volumes)


def doomed_volumes(root: Root, doomed: Doomed) -> dict[Key, int]:
    """The volumes whose data would go, with their bytes, for people who must agree to it."""
    with root.store.read() as tx:
        own = tx.records([doomed.stack])
    return {key: root.engine.volumes.measure(made_of(own[key])) for key in _volumes(own, doomed)}
