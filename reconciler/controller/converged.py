"""Which of many stacks are as they are wanted already: by one look and one plan for all of them.

A controller that is started over a thousand stacks finds out so that nothing is to be done, instead of by a thousand looks.
Changes nothing; of what is not plain here each stack's own apply finds out more.
"""

import time
from collections.abc import Mapping

from reconciler.controller.sources.sighting import Version
from reconciler.model.errors import ReconcileError
from reconciler.model.key import stack_of
from reconciler.model.record import DONE
from reconciler.verbs.look import look
from reconciler.verbs.plan import Wish, plan_from
from reconciler.verbs.root import Root


def find_converged(root: Root, versions: Mapping[str, Version]) -> frozenset[str]:
    """The names of those; none where one of them can't be planned: then each is asked for itself."""
    try:
        looked = look(root)
        known = {
            name: version
            for name, version in versions.items()
            if (recorded := looked.stacks.get(name)) is not None
            and recorded.origin == version.stack.origin
            and recorded.hold is None
        }
        wish = Wish(stacks=tuple(version.stack for version in known.values()))
        plan = plan_from(root, wish, looked, now=time.time())
    except ReconcileError:
        return frozenset()
    with root.store.read() as tx:
        done = {stack for stack, result in tx.last_results().items() if result == DONE}
    touched = {action.key for action in plan.actions} | {line.key for line in plan.lines}
    touched |= {*plan.awaits, *(intent.key for intent in looked.folded.intents)}
    return frozenset(known.keys() & done - {stack_of(key) for key in touched} - {*plan.released})
