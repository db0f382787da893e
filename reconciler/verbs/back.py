"""Stacks that failed and say `on_failure: rollback` → back at the last revision that was reached.

Called by `apply.py` when an apply has failed, under the locks that it holds. It is a plan like any other, told as an event
and recorded as a revision; nobody is asked, for the manifest has said so. Volumes never go back.
"""

import time
from collections.abc import Mapping

from msgspec import Struct

from reconciler.converge.terms import Options, Result
from reconciler.model.errors import Failed, ReconcileError, RolledBack
from reconciler.model.events import Note, PlanMade
from reconciler.model.key import stack_of
from reconciler.model.plan import Plan
from reconciler.model.record import Hold
from reconciler.plan.decide import PlanOptions
from reconciler.plan.forms import plan_json
from reconciler.plan.make import make_plan
from reconciler.plan.past import choose_last_good, choose_taken_back, wants_the_same
from reconciler.verbs.carrying import converge_plan
from reconciler.verbs.face import Face
from reconciler.verbs.look import look
from reconciler.verbs.pasts import desire_past, read_pasts
from reconciler.verbs.record import who
from reconciler.verbs.root import Root


class Attempt(Struct, frozen=True, kw_only=True):
    """What became of one stack: the revision that it is back at, or why it is not."""

    number: int = 0
    why: str = ""


def go_back(
    root: Root, plan: Plan, result: Result, failed: ReconcileError, *, numbers: Mapping[str, int], options: Options,
    keep: int, face: Face, sourced: bool = False,
) -> None:  # fmt: skip
    """Take back the stacks that say so, of a source's those that do not say otherwise. Returns where none does; raises
    RolledBack where all that failed are back, Failed where some are not. `numbers` are the failed revisions by stack."""
    default = "rollback" if sourced else "stop"
    # A delete began no revision: there is nothing to go back from.
    stacks = [
        stack for stack in choose_taken_back(plan, result.failed, result.skipped, default=default) if stack in numbers
    ]
    if not stacks:
        return
    attempts = {
        stack: _take_back(
            root, stack, _cause(stack, result, failed), numbers[stack], options, keep=keep, held=sourced, face=face
        )
        for stack in stacks
    }
    back = {stack: attempt.number for stack, attempt in attempts.items() if not attempt.why}
    left = {stack_of(key) for key in (*result.failed, *result.skipped)} - back.keys()
    if not left:
        raise RolledBack(back, failed)
    lines = [failed.brief, *(f"stack {stack} is back at revision {number}" for stack, number in sorted(back.items()))]
    lines += [f"stack {stack}: {attempts[stack].why}" for stack in stacks if attempts[stack].why]
    raise Failed(
        f"the apply failed, and not all of it could go back ({', '.join(sorted(left))})"
        if back
        else f"the apply failed, and stack {', '.join(sorted(left))} could not go back",
        detail="\n".join(lines),
        hint="mend the cause and apply again",
    ) from failed


def _cause(stack: str, result: Result, failed: ReconcileError) -> str:
    """What went wrong with a stack, in one line."""
    errors = [result.errors[key].brief for key in result.failed if stack_of(key) == stack and key in result.errors]
    return errors[0] if errors else failed.brief


def _take_back(
    root: Root, stack: str, cause: str, number: int, options: Options, *, keep: int, held: bool, face: Face
) -> Attempt:  # fmt: skip
    pasts = read_pasts(root, stack)
    target = choose_last_good(pasts, before=number)
    if target is None:
        return Attempt(why="there is no revision to go back to: none was ever reached")
    if wants_the_same(target, next(past for past in pasts if past.number == number)):
        return Attempt(
            why=f"there is nothing to go back to: the last revision that was reached, {target.number}, is the same"
        )
    face.emit(Note(text=f"stack {stack} goes back to revision {target.number}: {cause}", level="warning"))
    # A source wants it again with the next look; by hand nobody does unless he says so.
    hold = Hold(kind="rollback", who=who(), when=time.time(), why=cause) if held else None
    try:
        done = _converge_back(root, stack, target.number, options, keep=keep, hold=hold, face=face)
    except ReconcileError as error:
        return Attempt(why=f"going back to revision {target.number} failed too: {error.brief} {error.detail}".strip())
    if done.failed or done.skipped:
        why = ", ".join(done.errors[key].brief for key in done.failed if key in done.errors)
        return Attempt(why=f"going back to revision {target.number} failed too: {why}")
    with root.lock_root("record"), root.store.write() as tx:
        tx.finish_revision(stack, number, result=f"rolled back to {target.number}: {cause}")
    return Attempt(number=target.number)


def _converge_back(
    root: Root, stack: str, number: int, options: Options, *, keep: int, hold: Hold | None, face: Face
) -> Result:
    looked = look(root, stacks=[stack], locked=True)
    target = next(past for past in read_pasts(root, stack) if past.number == number)
    plan = make_plan(
        desire_past(root, target, looked),
        stacks=looked.stacks,
        records=looked.records,
        observation=looked.observation,
        options=PlanOptions(),
        now=time.time(),
    )
    face.emit(PlanMade(plan=plan_json(plan)))
    face.show(plan)
    _, result = converge_plan(root, plan, looked, options, emit=face.emit, keep=keep, hold=hold)
    return result
