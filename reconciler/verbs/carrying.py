"""A plan that was agreed to → converged, with its revisions begun and ended, and what is left over swept."""

from collections.abc import Callable

from reconciler.converge.run import converge
from reconciler.converge.sweep import sweep
from reconciler.converge.terms import Options, Result
from reconciler.model.events import Emit
from reconciler.model.plan import Plan, Verb
from reconciler.model.record import Hold, Made
from reconciler.verbs.look import Look
from reconciler.verbs.record import Revisions, begin_revisions, follow
from reconciler.verbs.root import Root

Created = Callable[[Made], None]


def converge_plan(
    root: Root,
    plan: Plan,
    looked: Look,
    options: Options,
    *,
    emit: Emit,
    keep: int,
    hold: Hold | None = None,
    created: Created | None = None,
) -> tuple[Revisions, Result]:
    """Converge and record. `hold` is put on the stacks of the plan, `keep` is how many revisions of each stay; `created` is
    called with each new container before it begins. Raises nothing for actions that failed."""
    revisions = begin_revisions(root, plan, keep=keep, hold=hold)
    ground = root.ground(created)
    result = converge(plan, ground, options, emit)
    if result.failed or any(action.verb in (Verb.DELETE, Verb.REPLACE) for action in plan.actions):
        sweep(ground, emit)
    follow(root, plan, looked)
    revisions.finish(result)
    return revisions, result
