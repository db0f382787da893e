"""Which drift is mended and which is told only, by the rule of its stack. Pure.

`drift` shows all of it; the controller has only what a rule lets it carried out.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct, structs

from reconciler.model.key import stack_of
from reconciler.model.plan import Action, Plan
from reconciler.plan.diff import pointer_names
from reconciler.plan.drift import is_part


class DriftRule(Struct, frozen=True, kw_only=True):
    """What is done about the drift of one stack."""

    heal: bool = True
    """Whether it is mended where no part of it is named, and where a thing is gone as a whole."""
    parts: Mapping[str, bool] = {}
    """By the name of a part, up to its first `/`: whether that is mended."""

    @property
    def mends_some(self) -> bool:
        """Whether it mends anything."""
        return self.heal or any(self.parts.values())

    def mends(self, action: Action) -> bool:
        """Whether an action of a plan of drift is to be carried out. It mends all parts of its resource, or none."""
        parts = [pointer_names(change.path)[1].partition("/")[0] for change in action.changes if is_part(change)]
        return any(self.parts.get(part, self.heal) for part in parts) if parts else self.heal


def keep_mended(plan: Plan, rule_of: Callable[[str], DriftRule]) -> Plan:
    """The plan without what the rules of its stacks leave as it is, and without what would come after that."""
    left: set[int] = set()
    for action in plan.actions:  # Order: a plan's actions come after those that they wait for.
        if not rule_of(stack_of(action.key)).mends(action) or left & set(action.after):
            left.add(action.id)
    return structs.replace(plan, actions=tuple(action for action in plan.actions if action.id not in left))
