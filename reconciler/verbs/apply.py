"""Manifests or a saved plan → a machine that agrees with them."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct, structs

from reconciler.converge.resume import resume
from reconciler.converge.run import converge
from reconciler.converge.sweep import sweep
from reconciler.converge.terms import Options, Result
from reconciler.model.errors import ConvergeFailed, Interrupted, LockTimeout, NeedsYes
from reconciler.model.events import Emit, Note, PlanMade
from reconciler.model.key import RUN_STACK, Kind, kind_of
from reconciler.model.plan import Plan, Verb
from reconciler.model.record import GOING_BACK, Hold, Made, Stack
from reconciler.model.spec import ContainerSpec
from reconciler.plan.borrowing import check_borrowing
from reconciler.plan.forms import plan_json
from reconciler.plan.limits import check_limits, needs_yes
from reconciler.plan.stale import check_fresh
from reconciler.store.rows import KEPT
from reconciler.verbs.back import go_back
from reconciler.verbs.carrying import converge_plan
from reconciler.verbs.clashes import check_clashes, wanted_ports
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look, lives, look
from reconciler.verbs.plan import Wish, check_owners, plan_from
from reconciler.verbs.record import Recorder, finish_left_over, note_exits, put_seen, record_stacks
from reconciler.verbs.root import Root


class ApplyOptions(Struct, frozen=True, kw_only=True):
    """How to apply."""

    yes: bool = False
    allow_delete: bool = False
    wait: bool = True
    timeout: float = 300.0
    keep: int = KEPT
    """How many revisions of a stack stay."""
    sourced: bool = False
    """What is applied is a source's: a stack that says nothing of failures goes back, and is held there until the source
    says something else."""
    narrow: bool = False
    """Only the stacks themselves are looked at, for whoever asks looks at everything besides, and removes strays."""


class Applied(Struct, frozen=True, kw_only=True):
    """What an apply came to."""

    plan: Plan
    result: Result | None
    """None where there was nothing to do."""


def apply(root: Root, wish: Wish, options: ApplyOptions, *, face: Face) -> Applied:
    """Plan and converge. Raises Refused where a rule says no, ConvergeFailed where actions failed; what is done stays."""
    names = [stack.name for stack in wish.stacks]
    with root.lock_stacks(names, "apply"), Recorder(root, face.emit, names, "apply") as told:
        looked = recovered(root, names, ports=wanted_ports(wish.stacks), emit=told, wanted=_narrowed(wish.stacks, options))
        plan = plan_from(root, wish, looked, now=time.time())
        return carry_out(root, plan, looked, options, face=structs.replace(face, emit=told))


def apply_saved(root: Root, plan: Plan, path: str, options: ApplyOptions, *, take_over: bool, face: Face) -> Applied:
    """Run a saved plan, if it still fits. Raises StalePlan."""
    with root.lock_stacks(plan.stacks, "apply"), Recorder(root, face.emit, plan.stacks, "apply") as told:
        wanted = _narrowed(plan.wanted, options)
        looked = recovered(root, plan.stacks, ports=wanted_ports(plan.wanted), emit=told, wanted=wanted)
        check_fresh(plan, stacks=looked.stacks, records=looked.records, observation=looked.observation, path=path)
        if not take_over:
            check_owners(plan.wanted, looked.stacks)
        check_borrowing(plan, records=looked.records, observation=looked.observation)
        check_clashes(plan, root.engine, looked)
        return carry_out(root, plan, looked, options, face=structs.replace(face, emit=told))


def _narrowed(wanted: Sequence[Stack], options: ApplyOptions) -> Sequence[Stack] | None:
    return wanted if options.narrow else None


def recovered(
    root: Root, stacks: Sequence[str], *, ports: Sequence[str] = (), emit: Emit, wanted: Sequence[Stack] | None = None
) -> Look:
    """A look, after everything that an interrupted apply left was taken up and strays were removed. With `wanted` it is as
    narrow as look()'s, and strays are left to who looks at everything."""
    take_up_others(root, stacks, emit)
    looked = look(root, ports=ports, stacks=stacks, locked=True, wanted=wanted)
    unclean = bool(looked.folded.intents or looked.observation.strays)
    if looked.folded.intents:
        resume(looked.folded, root.ground(), emit)
    if looked.observation.strays:
        sweep(root.ground(), emit)
    put_seen(root, note_exits(looked, emit))
    unclean = _remove_ended(root, stacks, looked, emit) or unclean
    if not unclean:
        return looked
    again = look(root, ports=ports, stacks=stacks, locked=True, wanted=wanted)
    if again.observation.strays:  # Order: what an open intent names is nobody's stray before that intent is closed.
        sweep(root.ground(), emit)
        again = look(root, ports=ports, stacks=stacks, locked=True)
    # What was taken up keeps its reason: the plan says `unfinished` where there is something left to do.
    unfinished = {key: record.unfinished for key, record in looked.records.items() if record.unfinished}
    records = {key: structs.replace(record, unfinished=unfinished.get(key, "")) for key, record in again.records.items()}
    return structs.replace(again, records=records)


def _remove_ended(root: Root, stacks: Sequence[str], looked: Look, emit: Emit) -> bool:
    """What `run --rm` left to whoever comes next."""
    if not any(isinstance(record.spec, ContainerSpec) and record.spec.remove for record in looked.records.values()):
        return False
    from reconciler.verbs.end import remove_ended  # it carries out plans, as this module does

    return remove_ended(root, looked, held=RUN_STACK in stacks, emit=emit)


def take_up_others(root: Root, stacks: Sequence[str], emit: Emit) -> None:
    """Take up what dead applies left of other stacks, where nobody else does: whoever settles lays every open intent over
    the records, and those would open ports for what is not there."""
    with root.store.read() as tx:
        left = {intent.stack for intent in tx.intents() if intent.stack not in stacks and not lives(intent.apply)}
    for stack in sorted(left):
        # Order: with no wait, for a lock of ours is held; who holds that one takes its stack up himself.
        with suppress(LockTimeout), root.lock_stacks([stack], "resume", timeout=0):
            resume(look(root, stacks=[stack], locked=True).folded, root.ground(), emit)


def carry_out(
    root: Root,
    plan: Plan,
    looked: Look,
    options: ApplyOptions,
    *,
    face: Face,
    tried: str = "apply",
    created: Callable[[Made], None] | None = None,
    hold: Hold | None = None,
) -> Applied:
    """Show, ask, converge, record the revision, sweep. `created` is called with each new container before it begins;
    `hold` is put on the plan's stacks, for a rollback. Raises RolledBack where what failed was taken back."""
    face.emit(PlanMade(plan=plan_json(plan)))
    face.show(plan)
    if not options.allow_delete:
        check_limits(plan, records=looked.records, observation=looked.observation)
    if not plan.actions:
        record_stacks(root, plan, looked.stacks, hold)
        awaited = _await_jobs(root, plan, options, face)
        finish_left_over(root, plan)
        return Applied(plan=plan, result=awaited)
    if not options.yes:
        ask(plan, face=face, tried=tried)
    warn(root, plan, face)
    how = Options(wait=options.wait, timeout=options.timeout, gone=face.gone)
    revisions, result = converge_plan(
        root, plan, looked, how, emit=face.emit, keep=options.keep, hold=hold, created=created
    )
    try:
        raise_for(result)
    except ConvergeFailed as error:
        if not any(stack.source.startswith(GOING_BACK) for stack in plan.wanted):
            go_back(
                root, plan, result, error, numbers=revisions.numbers, options=how, keep=options.keep,
                sourced=options.sourced, face=face,
            )  # fmt: skip
        raise
    return Applied(plan=plan, result=result)


def _await_jobs(root: Root, plan: Plan, options: ApplyOptions, face: Face) -> Result | None:
    """Nothing is to be done, but jobs that an earlier apply started are still at it. Raises ConvergeFailed."""
    if not plan.awaits or not options.wait:
        return None
    result = converge(plan, root.ground(), Options(timeout=options.timeout, gone=face.gone), face.emit)
    raise_for(result)
    return result


def warn(root: Root, plan: Plan, face: Face) -> None:
    """Say what on this machine would keep what is new from being reached."""
    if any(action.verb is Verb.CREATE and kind_of(action.key) in (Kind.NETWORK, Kind.CONTAINER) for action in plan.actions):
        for text in root.engine.read_warnings():
            face.emit(Note(text=text, level="warning"))


def ask(plan: Plan, *, face: Face, tried: str) -> None:
    """Have a plan confirmed. Raises NeedsYes where the answer is no, or where one is needed and nobody can be asked."""
    why = needs_yes(plan)
    answer = face.confirm(why) if why else True
    if answer is False:
        raise NeedsYes(tried, "not confirmed; nothing was changed")
    deletes = needs_yes(plan, {Verb.DELETE})
    if answer is None and deletes:
        raise NeedsYes(tried, f"the plan {deletes}, and nobody can be asked")


def raise_for(result: Result) -> None:
    """Raise for what did not work."""
    if result.interrupted:
        raise Interrupted(
            "interrupted", f"{len(result.done)} done, {len(result.skipped)} not begun", "apply again to go on"
        )
    if result.failed:
        causes = [result.errors[key] for key in result.failed if key in result.errors]
        raise ConvergeFailed(result.failed, len(result.done), len(result.skipped), causes=causes)
