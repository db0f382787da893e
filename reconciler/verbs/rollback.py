"""A stack → one of its revisions, by hand: a plan like any other, and a hold that lasts until the manifest changes."""

import time

from msgspec import Struct, structs

from reconciler.model.errors import Failed, NotFound
from reconciler.model.observation import Observation
from reconciler.model.plan import Plan
from reconciler.model.record import Hold
from reconciler.plan.decide import PlanOptions
from reconciler.plan.make import make_plan
from reconciler.plan.past import Past, choose_target
from reconciler.verbs.apply import Applied, ApplyOptions, carry_out, recovered
from reconciler.verbs.clashes import check_clashes, wanted_ports
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look, look
from reconciler.verbs.pasts import desire_past, read_pasts
from reconciler.verbs.plan import check_accepted
from reconciler.verbs.record import Recorder, who
from reconciler.verbs.root import Root
from reconciler.verbs.sizes import plan_with_sizes


class Return(Struct, frozen=True, kw_only=True):
    """Where to go back to."""

    stack: str
    number: int = 0
    """0: the newest revision before this one that was reached and wants something else."""
    note: str = ""
    """Why, for whoever finds the stack held."""
    offline: bool = False
    accept_loss: frozenset[str] = frozenset()


def plan_rollback(root: Root, wish: Return, *, now: float) -> tuple[Plan, Past]:
    """The plan that a rollback would run now. Changes nothing. Raises what `rollback` raises before it changes anything."""
    past = _choose(root, wish)
    looked = look(root, ports=wanted_ports([past.stack]), stacks=[wish.stack])
    return _plan(root, wish, past, looked, now=now), past


def rollback(root: Root, wish: Return, options: ApplyOptions, *, face: Face) -> Applied:
    """Take a stack back and hold it there. Raises NotFound, Failed naming what is gone, and what apply raises."""
    with root.lock_stacks([wish.stack], "rollback"), Recorder(root, face.emit, [wish.stack], "rollback") as told:
        past = _choose(root, wish)
        looked = recovered(root, [wish.stack], ports=wanted_ports([past.stack]), emit=told)
        now = time.time()
        plan = _plan(root, wish, past, looked, now=now)
        hold = Hold(kind="rollback", who=who(), when=now, why=wish.note)
        return carry_out(
            root, plan, looked, options, face=structs.replace(face, emit=told), tried=f"rollback {wish.stack}", hold=hold
        )


def _choose(root: Root, wish: Return) -> Past:
    with root.store.read() as tx:
        stacks = tx.stacks()
    pasts = read_pasts(root, wish.stack)
    if wish.stack not in stacks or not pasts:
        raise NotFound("stack with a revision", wish.stack, stacks.keys() - {wish.stack})
    kept = ", ".join(str(past.number) for past in pasts)
    if wish.number:
        found = next((past for past in pasts if past.number == wish.number), None)
        if found is None:
            raise Failed(
                f"stack {wish.stack} has no revision {wish.number}",
                f"kept are {kept}",
                f"`reconcile history {wish.stack}` tells what each of them is",
            )
        return found
    target = choose_target(pasts, before=pasts[-1].number)
    if target is None:
        raise Failed(
            f"stack {wish.stack} has no revision to go back to: none before {pasts[-1].number} was reached and differs",
            f"kept are {kept}",
            f"`reconcile history {wish.stack}` tells what each of them is",
        )
    return target


def _plan(root: Root, wish: Return, past: Past, looked: Look, *, now: float) -> Plan:
    desired = desire_past(root, past, looked, offline=wish.offline)
    check_accepted(wish.accept_loss, [*looked.records, *(key for stack in desired.stacks for key in stack.specs)])
    options = PlanOptions(accept_loss=wish.accept_loss)

    def make(observation: Observation) -> Plan:
        return make_plan(
            desired, stacks=looked.stacks, records=looked.records, observation=observation, options=options, now=now
        )  # fmt: skip

    plan = plan_with_sizes(make, root.engine, looked)
    check_clashes(plan, root.engine, looked)
    remark = f"stack {wish.stack} goes back to revision {past.number} and is held there until its manifest changes"
    return structs.replace(plan, remarks=(remark,))
