"""What waits for a person: versions of sources with `approve: true`, each with the plan that would be carried out.

The plans lie in the root (`verbs/approval.py`), so that whoever approves needs no controller, and a controller that is
started anew finds them.
"""

import threading
from collections.abc import Callable

from reconciler.controller.sources.sighting import Version
from reconciler.controller.standings import Standing, Standings
from reconciler.model.plan import Plan
from reconciler.verbs.approval import drop_waiting, put_waiting, read_waiting
from reconciler.verbs.root import Root

APPROVALS = "approvals"
"""The key that looks at them."""


class Approvals:
    """Those of one root."""

    def __init__(self, root: Root, standings: Standings, *, say: Callable[..., None], renew: Callable[[str], None]) -> None:
        self._root = root
        self._standings = standings
        self._say = say
        self._renew = renew
        self._lock = threading.Lock()

    def hold_back(self, held: Standing, version: Version, plan: Plan, *, take_over: bool) -> None:
        """Have a version wait, with its plan."""
        name = version.stack.name
        with self._lock:
            waiting = put_waiting(
                self._root, plan, stack=name, source=held.source, token=version.token, take_over=take_over
            )
            words = f"waits for approval: {waiting.words}: `reconcile approve {held.source} --stack {name}`"
            self._standings.wait(held, version, words)
        self._say(f"approval {name}", f"stack {name} {words}", name)

    def let_go(self, stack: str) -> None:
        """Nothing of a stack waits: it is as its source wants it."""
        drop_waiting(self._root, stack)
        self._say(f"approval {stack}", "", stack, over=f"stack {stack} waits for no approval any more")

    def look(self, asks: Callable[[str], bool]) -> None:
        """Have stacks looked at whose plan was carried out or found stale, or whose source asks for no approval any more;
        drop plans that nobody waits for."""
        with self._lock:
            waiting = {one.stack: one for one in read_waiting(self._root)}
            for name, held in self._standings:
                if held.waiting and (name not in waiting or not asks(held.source)):
                    self._standings.wait(held, None, "")
                    self._renew(f"stack {name}")
                elif name in waiting and (held.version is None or held.version.token == held.reached):
                    drop_waiting(self._root, name)
            for one in waiting.values():
                if not asks(one.source):
                    drop_waiting(self._root, one.stack)
