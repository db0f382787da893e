"""Turns a plan into the rules that a flag or an answer must lift before it runs: a yes, --allow-delete, --take-over.

Called by `verbs/` between plan and converge. Pure; asks nobody.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from reconciler.model.errors import NeedsAllowDelete, OriginDiffers
from reconciler.model.key import Key, Kind, kind_of, stack_of
from reconciler.model.observation import Observation, Phase
from reconciler.model.plan import Action, Plan, Reason, Verb
from reconciler.model.record import SOURCE, Desired, Record, StackRecord

FEWEST = 3
"""Containers that a stack must have for the limit on deletes to hold."""

ASKED_FOR = frozenset({Verb.REPLACE, Verb.DELETE})


def check_origins(
    desired: Desired, stacks: Mapping[str, StackRecord], *, take_over: bool = False, gone: Collection[str] = ()
) -> tuple[StackRecord, ...]:
    """Raise OriginDiffers for a stack that another manifest owns; with `take_over`, the records that are taken over.

    `gone` are the recorded origins whose file is not there any more.
    """
    taken = tuple(
        recorded
        for stack in sorted(desired.stacks, key=lambda stack: stack.name)
        if (recorded := stacks.get(stack.name)) is not None and recorded.origin not in ("", stack.origin)
    )
    if taken and not take_over:
        found = next(stack.origin for stack in desired.stacks if stack.name == taken[0].name)
        raise OriginDiffers(taken[0].name, taken[0].origin, found, gone=taken[0].origin in gone)
    return taken


def check_deletable(stack: str, recorded: StackRecord | None, *, origin: str = "", gone: Collection[str] = ()) -> None:
    """Raise OriginDiffers for a delete of what another manifest owns, or, without an `origin`, of what a source owns: by
    name anybody else's may be deleted, for that is the request."""
    if recorded is None or recorded.origin in ("", origin):
        return
    if origin or recorded.origin.startswith(SOURCE):
        raise OriginDiffers(stack, recorded.origin, origin or "who deletes it by hand", gone=recorded.origin in gone)


def check_limits(plan: Plan, *, records: Mapping[Key, Record], observation: Observation) -> None:
    """Raise NeedsAllowDelete where, net of creates, more than half of what runs in a stack of three or more would go.

    Not for what was asked for by name (`make_delete_plan`).
    """
    recorded, running = Counter[str](), Counter[str]()
    for key in records:
        if kind_of(key) is Kind.CONTAINER and stack_of(key) in plan.stacks:
            recorded[stack_of(key)] += 1
            running[stack_of(key)] += _runs(key, observation)
    gone = Counter(
        stack_of(action.key)
        for action in _containers(plan)
        if action.verb is Verb.DELETE and action.reason is Reason.NOT_WANTED and _runs(action.key, observation)
    )
    new = Counter(
        stack_of(action.key) for action in _containers(plan) if action.verb is Verb.CREATE and action.reason is Reason.NEW
    )
    for stack in plan.stacks:
        lost = gone[stack] - new[stack]
        if recorded[stack] >= FEWEST and lost > 0 and 2 * lost > running[stack]:
            raise NeedsAllowDelete(stack, gone[stack], running[stack])


def needs_yes(plan: Plan, verbs: Collection[Verb] = ASKED_FOR) -> str:
    """What of a plan must be agreed to: `replaces 2 containers, deletes 1 network`; empty when nothing.

    On a terminal a replace and a delete are asked for; without one only deletes need `--yes`: give `{Verb.DELETE}`. The
    record of an image, a config or a secret is no loss: what is in it stays with the revisions. What is deleted and made
    again counts as replaced.
    """
    counts = Counter((verb, kind_of(action.key)) for action in plan.actions if (verb := _agreed(action, plan)) in verbs)
    return ", ".join(
        f"{verb.value}s {counts[verb, kind]} {kind.value}{'s' if counts[verb, kind] > 1 else ''}"
        for verb in (Verb.REPLACE, Verb.DELETE)
        for kind in reversed(Kind)
        if counts[verb, kind]
    )


def _agreed(action: Action, plan: Plan) -> Verb | None:
    if kind_of(action.key) in (Kind.IMAGE, Kind.CONFIG, Kind.SECRET):
        return None
    if action.verb is Verb.DELETE and action.key in plan.specs:
        return Verb.REPLACE
    return action.verb


def _containers(plan: Plan) -> list[Action]:
    return [action for action in plan.actions if kind_of(action.key) is Kind.CONTAINER]


def _runs(key: Key, observation: Observation) -> bool:
    status = observation.statuses.get(key)
    return status is not None and status.phase is Phase.RUNNING
