"""Where each action of a plan stands, and which may begin now. Pure: `run.py` moves the pieces.

A container that runs and was not seen long enough is `STARTED`: that is enough for what depends on it as `started`, not for
anything else.
"""

from enum import Enum

from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.model.plan import Action, Plan, Verb
from reconciler.model.spec import ContainerSpec

STARTING_VERBS = (Verb.CREATE, Verb.RESTART, Verb.REPLACE)


class State(Enum):
    """Where an action is."""

    WAITING = 0
    RUNNING = 1
    STARTED = 2
    DONE = 3
    FAILED = 4
    SKIPPED = 5


class Board:
    """The actions of one plan and their states."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.actions = {action.id: action for action in plan.actions}
        self.states = dict.fromkeys(self.actions, State.WAITING)
        self._making = {action.key: action for action in plan.actions if action.verb is not Verb.DELETE}

    def making(self, key: Key) -> Action | None:
        """The action that makes or changes a resource; a key that is deleted and made again has two."""
        return self._making.get(key)

    def count(self, state: State) -> int:
        """How many actions are in a state."""
        return sum(each is state for each in self.states.values())

    def keys(self, *states: State) -> tuple[Key, ...]:
        """The keys of the actions in some states, in the plan's order."""
        return tuple(action.key for action in self.actions.values() if self.states[action.id] in states)

    def waiting(self) -> list[Action]:
        """Actions that have not begun."""
        return [action for action in self.actions.values() if self.states[action.id] is State.WAITING]

    def hopeless_for(self, action: Action) -> Key | None:
        """What an action comes after and that failed or was skipped, if there is something."""
        bad = (State.FAILED, State.SKIPPED)
        return next((self.actions[number].key for number in action.after if self.states[number] in bad), None)

    def may_begin(self, action: Action) -> bool:
        """Whether everything that an action comes after is far enough."""
        return all(self._met(action, number) for number in action.after)

    def _met(self, action: Action, number: int) -> bool:
        """A replacement that was started may still be undone, and the old one holds its ports and addresses until then."""
        state, dependency = self.states[number], self.actions[number]
        if state is State.STARTED and dependency.verb is not Verb.REPLACE:
            return self.condition(action, dependency.key) == "started"
        return state is State.DONE

    def condition(self, action: Action, dependency: Key) -> str:
        """What an action asks of a container that it comes after: started, healthy, or done in full."""
        spec = self.plan.specs.get(action.key)
        parts = split_key(dependency)
        if action.verb is Verb.DELETE or parts.kind is not Kind.CONTAINER or not isinstance(spec, ContainerSpec):
            return "done"
        dependency_of = spec.depends_on.get(parts.name)
        return dependency_of.condition if dependency_of else "done"

    def dependencies(self, action: Action) -> dict[str, str]:
        """What a container that is about to start depends on and no action of the plan starts: name → condition."""
        spec = self.plan.specs.get(action.key)
        if not isinstance(spec, ContainerSpec) or action.verb not in STARTING_VERBS:
            return {}
        return {name: asked.condition for name, asked in spec.depends_on.items() if not self._starts(action, name)}

    def _starts(self, action: Action, name: str) -> bool:
        parts = split_key(action.key)
        return any(
            other.verb in STARTING_VERBS and split_key(key).name == name and split_key(key).stack == parts.stack
            for key, other in self._making.items()
            if kind_of(key) is Kind.CONTAINER
        )

    def is_awaited(self, action: Action) -> bool:
        """Whether something waits for the health of the container that an action starts."""
        name = split_key(action.key).name
        specs = (self.plan.specs.get(other.key) for other in self.actions.values() if action.id in other.after)
        asked = (spec.depends_on.get(name) for spec in specs if isinstance(spec, ContainerSpec))
        return any(dependency is not None and dependency.condition == "healthy" for dependency in asked)
