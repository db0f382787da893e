"""Turns (desired, records, observation) into the plan. The one entry of the planner for apply, plan and drift.

The way: `complete.py` folds facts into specs, `decide.py` chooses for each resource, `graph.py` orders, `notes.py` says
what people must know. Pure: the same inputs give the same bytes. Never asks a registry, never looks at the machine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from reconciler.model.key import Key, Kind, forms_of, kind_of, sort_key, split_key
from reconciler.model.observation import Observation, Phase
from reconciler.model.plan import Action, Base, Change, Effect, Line, Plan, Reason, Verb
from reconciler.model.record import UNKNOWN, Desired, ImageFact, Record, Stack, StackRecord
from reconciler.model.spec import ContainerSpec, Spec
from reconciler.plan.borrowing import check_borrowing, render_lent
from reconciler.plan.complete import complete_specs
from reconciler.plan.decide import (
    Decision,
    Lost,
    PlanOptions,
    RefusedChange,
    Situation,
    choose_outcome,
    is_settled,
)
from reconciler.plan.diff import EffectOf
from reconciler.plan.former import find_former, render_former
from reconciler.plan.graph import Step, force_dependents, order_steps
from reconciler.plan.locks import render_locks
from reconciler.plan.losses import Loss, find_doubles, find_losses, find_moves
from reconciler.plan.notes import render_notes
from reconciler.plan.refusal import refusal_error
from reconciler.plan.scene import Scene, image_key
from reconciler.plan.stale import collect_phases
from reconciler.plan.updates import check_start_first, choose_order
from reconciler.schema.load import change_effect


def make_plan(
    desired: Desired,
    *,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
    options: PlanOptions,
    now: float,
    effect_of: EffectOf = change_effect,
) -> Plan:
    """What must be done so that the desired stacks are as they say. `records` are those of all stacks: of others it
    matters only what is borrowed of them, and what they borrow.

    `now` in seconds since the epoch. Raises Refused for changes whose effect is `refuse`, with all of them and the steps
    to take; NotLent, Borrowed.
    """
    plan = _compare(
        desired, stacks=stacks, records=records, observation=observation, options=options, now=now, effect_of=effect_of
    )
    check_borrowing(plan, records=records, observation=observation)
    check_start_first(plan.specs, records)
    more = render_lent(plan, records)
    more += render_locks(desired.stacks)
    more += render_former(find_former(desired.stacks, stacks), records=records, observation=observation)
    return replace(plan, lines=_sorted_lines([*plan.lines, *more])) if more else plan


def _sorted_lines(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: (sort_key(line.key), line.text)))


def _compare(
    desired: Desired,
    *,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
    options: PlanOptions,
    now: float,
    effect_of: EffectOf = change_effect,
) -> Plan:
    """The plan of the desired stacks by themselves."""
    names = tuple(sorted({stack.name for stack in desired.stacks}))
    planned = frozenset(names)
    ours = {key: record for key, record in records.items() if split_key(key).stack in planned}
    completed = complete_specs(desired, ours)
    moves = find_moves(completed.specs, ours)
    scene = Scene(specs=completed.specs, pins=completed.pins, records=ours, observation=observation, moves=moves)
    decided = _decide_all(scene, options=options, now=now, effect_of=effect_of)
    accepted = _check_losses(scene, decided, options=options)
    decisions, lines = decided.decisions, decided.lines
    lines += [Line(key=key, text=fact.warning) for key, fact in completed.pins.items() if fact.warning]
    lacking = (key for key, spec in completed.specs.items() if _lacks_check(key, spec, completed.pins))
    lines += [Line(key=key, text=NO_CHECK) for key in lacking]
    lines += [Line(key=key, text=text) for key, texts in desired.live.items() if key in decisions for text in texts]
    awaits = () if options.drift else tuple(_running_jobs(scene, decisions))
    lines += [Line(key=key, text="waits: the job runs, and an apply waits until it has completed") for key in awaits]
    steps = order_steps(force_dependents(decisions, scene), scene)
    return Plan(
        stacks=names,
        actions=make_actions(steps, scene, losses=accepted),
        lines=_sorted_lines(lines),
        awaits=awaits,
        lost=tuple(decided.lost) if options.drift else (),
        specs=completed.specs,
        images=completed.pins,
        bases=make_bases(names, stacks),
        phases=collect_phases(steps, scene),
        wanted=tuple(sorted(desired.stacks, key=lambda stack: stack.name)),
        contents=desired.contents,
    )


NO_CHECK = "no health check: `healthcheck` changes its image's own, and that has none; give it test, http or tcp"


def _lacks_check(key: Key, spec: Spec, pins: Mapping[Key, ImageFact]) -> bool:
    """Whether a container changes a check that its image does not have."""
    if not isinstance(spec, ContainerSpec) or spec.healthcheck is None or spec.healthcheck.test:
        return False
    fact = pins.get(image_key(key, spec))
    return fact is not None and fact.digest != UNKNOWN


def make_drift_plan(
    *,
    stacks: Mapping[str, StackRecord],
    records: Mapping[Key, Record],
    observation: Observation,
    now: float,
    accept_loss: frozenset[str] = frozenset(),
) -> Plan:
    """What must be done so that the machine is as recorded, of all the records given: nothing that a manifest changed.

    Volumes whose folder is gone are the plan's `lost`; those that `accept_loss` names are made anew, and empty.
    """
    desired = recorded_desired(records, stacks)
    # A container whose replacement failed is recorded with an older digest than its image: that is no drift.
    level = {key: _level(key, record, desired) for key, record in records.items()}
    options = PlanOptions(prune=False, drift=True, accept_loss=accept_loss)
    return _compare(desired, stacks=stacks, records=level, observation=observation, options=options, now=now)


def recorded_desired(records: Mapping[Key, Record], stacks: Mapping[str, StackRecord]) -> Desired:
    """The recorded state as a wish: a plan of it mends drift and changes nothing else."""
    specs: dict[str, dict[Key, Spec]] = {name: {} for name in sorted(stacks)}
    images: dict[Key, ImageFact] = {}
    for key in sorted(records):
        record = records[key]
        stack = split_key(key).stack
        specs.setdefault(stack, {})[key] = record.spec
        if kind_of(key) is Kind.IMAGE:
            images[key] = ImageFact(digest=record.image or UNKNOWN, local=True)
        elif isinstance(record.spec, ContainerSpec):
            # Where the image left the records before it.
            images.setdefault(image_key(key, record.spec), ImageFact(digest=record.image or UNKNOWN, local=True))
    wanted = tuple(
        Stack(
            name=name,
            origin=stacks[name].origin if name in stacks else "",
            source=stacks[name].source if name in stacks else "",
            specs=found,
        )
        for name, found in sorted(specs.items())
    )
    return Desired(stacks=wanted, images=images)


def _level(key: Key, record: Record, desired: Desired) -> Record:
    if not isinstance(record.spec, ContainerSpec):
        return record
    return replace(record, image=desired.images[image_key(key, record.spec)].digest)


def make_actions(steps: tuple[Step, ...], scene: Scene, *, losses: Sequence[Loss] = ()) -> tuple[Action, ...]:
    """Steps as the plan shows them."""
    replaced = frozenset(
        step.decision.key
        for step in steps
        if kind_of(step.decision.key) is Kind.NETWORK and step.decision.verb is Verb.REPLACE
    )
    return tuple(
        Action(
            id=step.id,
            verb=step.verb,
            key=step.decision.key,
            after=step.after,
            reason=step.decision.reason,
            changes=step.decision.changes,
            notes=(
                *render_notes(step, scene, replaced=replaced),
                *(loss.note for loss in losses if loss.key == step.decision.key and step.verb is not Verb.DELETE),
            ),
            order=choose_order(step, scene, replaced=replaced),
        )
        for step in steps
    )


def make_bases(names: tuple[str, ...], stacks: Mapping[str, StackRecord]) -> tuple[Base, ...]:
    """What is recorded of the planned stacks now; serial 0 and no origin for a stack that is not."""
    unknown = StackRecord(name="", origin="")
    return tuple(
        Base(stack=name, serial=stacks.get(name, unknown).serial, origin=stacks.get(name, unknown).origin) for name in names
    )


def _running_jobs(scene: Scene, decisions: Mapping[Key, Decision]) -> Iterator[Key]:
    for key, spec in scene.specs.items():
        if (
            isinstance(spec, ContainerSpec)
            and spec.job
            and scene.status(key).phase is Phase.RUNNING
            and key in scene.records
        ):
            record, decision = scene.records[key], decisions.get(key)
            if record.hold is None and (decision is None or decision.verb is Verb.UPDATE):
                yield key


class _Decided(Struct, frozen=True):
    """What `decide.py` said of each resource."""

    decisions: dict[Key, Decision]
    lines: list[Line]
    refused: list[RefusedChange]
    lost: list[Key]
    """Volumes whose folder is gone."""


def _decide_all(scene: Scene, *, options: PlanOptions, now: float, effect_of: EffectOf) -> _Decided:
    decided = _Decided({}, [], [], [])
    statuses = scene.observation.statuses
    moved = frozenset(scene.moves.values())
    for key in sorted({*scene.specs, *scene.records}):
        want, record = scene.specs.get(key), scene.records.get(key)
        digest = _digest(key, want, scene)
        if want is not None and record is not None:  # noqa: SIM102 the cheap question is asked of every resource
            if is_settled(want, digest, record=record, status=statuses.get(key)):
                continue
        if key in moved:
            continue
        situation = Situation(key=key, want=want, digest=digest, record=record, status=scene.status(key))
        outcome = choose_outcome(situation, options=options, now=now, effect_of=effect_of)
        if isinstance(outcome, Decision):
            decided.decisions[key] = outcome
        elif isinstance(outcome, Line):
            decided.lines.append(outcome)
        elif isinstance(outcome, RefusedChange):
            decided.refused.append(outcome)
        elif isinstance(outcome, Lost):
            decided.lost.append(key)
    for new, old in scene.moves.items():
        change = Change(path="/name", old=split_key(old).name, new=split_key(new).name, effect=Effect.IN_PLACE)
        decided.decisions[new] = Decision(key=new, verb=Verb.UPDATE, reason=Reason.MOVED, changes=(change,))
        if scene.status(old).phase is Phase.MISSING and forms_of(new).isdisjoint(options.accept_loss):
            decided.lost.append(new)
    return decided


def _check_losses(scene: Scene, decided: _Decided, *, options: PlanOptions) -> list[Loss]:
    """Raise Refused for everything that would be lost unasked, all of it at once; the losses that were accepted."""
    if options.drift:
        return []
    losses = find_losses(scene, prune=options.prune)
    accepted = [loss for loss in losses if not forms_of(loss.key).isdisjoint(options.accept_loss)]
    refused = [loss for loss in losses if loss not in accepted] + find_doubles(scene)
    if refused or decided.refused or decided.lost:
        raise refusal_error(decided.refused, losses=refused, lost=decided.lost)
    return accepted


def _digest(key: Key, want: Spec | None, scene: Scene) -> str:
    """What the manifest's reference means now: of the image itself, or of the image that a container names."""
    if isinstance(want, ContainerSpec):
        key = image_key(key, want)
    elif kind_of(key) is not Kind.IMAGE:
        return ""
    fact = scene.pins.get(key)
    return fact.digest if fact is not None else UNKNOWN
