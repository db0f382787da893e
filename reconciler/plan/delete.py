"""Turns a request to delete into a plan: containers, networks, images' records; volumes stay unless they are named.

The other entry of the planner beside `make.py`. Pure; what to delete was made out by the caller.
"""

from collections.abc import Collection, Mapping

from reconciler.model.errors import Refused
from reconciler.model.key import Key, Kind, kind_of, sort_key, split_key
from reconciler.model.observation import Observation
from reconciler.model.plan import Line, Plan, Reason, Verb
from reconciler.model.record import Record, StackRecord
from reconciler.plan.borrowing import check_borrowing
from reconciler.plan.decide import Decision
from reconciler.plan.graph import order_steps
from reconciler.plan.make import make_actions, make_bases
from reconciler.plan.scene import Scene, image_key, needed_keys, network_keys
from reconciler.plan.stale import collect_phases


def make_delete_plan(
    keys: Collection[Key],
    *,
    volumes: Collection[Key] = (),
    wanted: Collection[Key] = (),
    reason: Reason = Reason.REQUESTED,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
) -> Plan:
    """Delete the recorded resources among `keys` (all of a stack, or some), and of their volumes those in `volumes`.

    A volume in `keys` that is not in `volumes` is kept, as a line. `wanted` are
    the keys that the manifest had when it was applied last: what of them goes comes again, as a line says. `records` are
    those of all stacks. Raises Refused where
    something that stays uses what would go, Borrowed where that is in another stack.
    """
    names = tuple(sorted({split_key(key).stack for key in (*keys, *volumes)}))
    ours = {key: record for key, record in records.items() if split_key(key).stack in names}
    asked = {key for key in keys if key in ours and kind_of(key) is not Kind.VOLUME} | {*volumes} & ours.keys()
    _check_users(asked, ours)
    scene = Scene(specs={}, pins={}, records=ours, observation=observation)
    steps = order_steps({key: Decision(key=key, verb=Verb.DELETE, reason=reason) for key in asked}, scene)
    again = sorted(asked & {*wanted}, key=sort_key)
    kept = sorted((key for key in keys if key in ours and key not in asked), key=sort_key)
    plan = Plan(
        stacks=names,
        actions=make_actions(steps, scene),
        lines=(
            *(Line(key=key, text=_say_again(key)) for key in again),
            *(Line(key=key, text=f"kept: --volume {split_key(key).name} takes it too") for key in kept),
        ),
        bases=make_bases(names, stacks),
        phases=collect_phases(steps, scene),
    )
    check_borrowing(plan, records=records, observation=observation)
    return plan


def find_unused(gone: Collection[Key], records: Mapping[Key, Record]) -> tuple[Key, ...]:
    """The images and networks of the same stacks that no container uses once those of `gone` are gone: what `run` made for
    one container goes with it. Those that are borrowed by others stay."""
    scene = Scene(specs={}, pins={}, records=records, observation=Observation(statuses={}))
    used: set[Key] = set()
    for key in records.keys() - {*gone}:
        spec = scene.recorded(key)
        if spec is not None:
            used |= {image_key(key, spec), *network_keys(key, spec)}
    stacks = {split_key(key).stack for key in gone}
    ours = (key for key in records if split_key(key).stack in stacks and kind_of(key) in (Kind.IMAGE, Kind.NETWORK))
    return tuple(sorted((key for key in ours if key not in used), key=sort_key))


def _say_again(key: Key) -> str:
    return f"the manifest wants it: the next apply of {split_key(key).stack} makes it again, unless it is taken out there"


def _check_users(asked: set[Key], records: Mapping[Key, Record]) -> None:
    scene = Scene(specs={}, pins={}, records=records, observation=Observation(statuses={}))
    for key in sorted(records.keys() - asked):
        spec = scene.recorded(key)
        if spec is None:
            continue
        for used in sorted({*needed_keys(key, spec)} & asked):
            raise Refused(
                f"delete {used}: {key} uses it",
                hint=f"delete {key} too, or take it out of the manifest and apply",
            )
