"""Which of many stacks are as they are wanted already: by one look and one plan for all of them.

A controller that is started over a thousand stacks finds out so that nothing is to be done, instead of by a thousand looks.
Changes nothing; of what is not plain here each stack's own apply finds out more.
"""

import time
from collections.abc import Mapping, Sequence

from reconciler.controller.sources.sighting import Version
from reconciler.model.errors import ReconcileError
from reconciler.model.key import stack_of
from reconciler.model.record import DONE, Stack
from reconciler.verbs.look import Look, look
from reconciler.verbs.plan import Wish, plan_from
from reconciler.verbs.root import Root


def find_converged(root: Root, versions: Mapping[str, Version]) -> frozenset[str]:
    """The names of those. Raises ReconcileError where the machine can't be looked at."""
    looked = look(root)
    with root.store.read() as tx:
        done = {stack for stack, result in tx.last_results().items() if result == DONE}
    stacks = [
        version.stack
        for name, version in sorted(versions.items())
        if name in done
        and (recorded := looked.stacks.get(name)) is not None
        and recorded.origin == version.stack.origin
        and recorded.hold is None
    ]
    left_over = {intent.stack for intent in looked.folded.intents}
    return frozenset(_find(root, stacks, looked) - left_over)


def _find(root: Root, stacks: Sequence[Stack], looked: Look) -> set[str]:
    """Of these. One that can't be planned is found by halves: it keeps no other from being seen."""
    if not stacks:
        return set()
    try:
        plan = plan_from(root, Wish(stacks=tuple(stacks)), looked, now=time.time())
    except ReconcileError:
        half = len(stacks) // 2
        return _find(root, stacks[:half], looked) | _find(root, stacks[half:], looked) if half else set()
    touched = {action.key for action in plan.actions} | {line.key for line in plan.lines} | {*plan.awaits}
    return {stack.name for stack in stacks} - {stack_of(key) for key in touched} - {*plan.released}
