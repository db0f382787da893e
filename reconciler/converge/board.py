"""Where each action of a plan stands, and which may begin now. Pure: `run.py` moves the pieces.

A container that runs and was not seen long enough is `STARTED`: that is enough for what depends on it as `started`, not for
anything else.
"""

from collections import Counter
from collections.abc import Iterator
from enum import Enum

from reconciler.model.key import Key, Kind, split_key
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
        self._states = dict.fromkeys(self.actions, State.WAITING)
        # Both are asked with every outcome, of plans of any size: neither is counted out of all states.
        self._waiting = dict(self.actions)
        self._counts = Counter({State.WAITING: len(self.actions)})
        self.interrupted = False
        """Nothing begins any more."""
        self.held: set[Key] = set()
        """Containers that their actions have only made: a hold keeps them from starting."""
        self._making = {action.key: action for action in plan.actions if action.verb is not Verb.DELETE}
        self._named = _name_containers(plan)
        self._awaited = {number for action in plan.actions for number in self._find_awaited(action)}

    def making(self, key: Key) -> Action | None:
        """The action that makes or changes a resource; a key that is deleted and made again has two."""
        return self._making.get(key)

    def state(self, action: Action) -> State:
        """Where an action is."""
        return self._states[action.id]

    def put(self, action: Action, state: State) -> None:
        """An action is in another state from now on; none waits again."""
        self._counts[self._states[action.id]] -= 1
        self._counts[state] += 1
        self._states[action.id] = state
        self._waiting.pop(action.id, None)

    def count(self, state: State) -> int:
        """How many actions are in a state."""
        return self._counts[state]

    def keys(self, *states: State) -> tuple[Key, ...]:
        """The keys of the actions in some states, in the plan's order."""
        return tuple(action.key for action in self.actions.values() if self._states[action.id] in states)

    def waiting(self) -> list[Action]:
        """Actions that have not begun, in the plan's order."""
        return list(self._waiting.values())

    def hopeless_for(self, action: Action) -> Key | None:
        """What an action comes after and that failed or was skipped, if there is something."""
        bad = (State.FAILED, State.SKIPPED)
        return next((self.actions[number].key for number in action.after if self._states[number] in bad), None)

    def may_begin(self, action: Action) -> bool:
        """Whether everything that an action comes after is far enough."""
        return all(self._met(action, number) for number in action.after)

    def _met(self, action: Action, number: int) -> bool:
        """A replacement that was started may still be undone, and the old one holds its ports and addresses until then."""
        state, dependency = self._states[number], self.actions[number]
        if state is State.STARTED and dependency.verb is not Verb.REPLACE:
            return self.condition(action, dependency.key) == "started"
        return state is State.DONE

    def condition(self, action: Action, dependency: Key) -> str:
        """What an action asks of a container that it comes after: started, healthy, completed, or done in full."""
        spec = self.plan.specs.get(action.key)
        parts = split_key(dependency)
        if action.verb is Verb.DELETE or parts.kind is not Kind.CONTAINER or not isinstance(spec, ContainerSpec):
            return "done"
        dependency_of = spec.depends_on.get(parts.name)
        return dependency_of.condition if dependency_of else "done"

    def dependencies(self, action: Action) -> dict[Key, str]:
        """What a container that is about to start depends on and no action of the plan starts: key → condition. Of a name,
        every replica that is wanted."""
        spec = self.plan.specs.get(action.key)
        if not isinstance(spec, ContainerSpec) or action.verb not in STARTING_VERBS:
            return {}
        stack = split_key(action.key).stack
        return {
            key: asked.condition
            for name, asked in spec.depends_on.items()
            for key in self._named.get((stack, name), ())
            if not self._starts(key)
        }

    def _starts(self, key: Key) -> bool:
        action = self._making.get(key)
        return action is not None and action.verb in STARTING_VERBS and key not in self.held

    def is_awaited(self, action: Action) -> bool:
        """Whether something waits until the container that an action starts is seen: for its health, or to be replaced
        after it."""
        return action.id in self._awaited

    def _find_awaited(self, action: Action) -> Iterator[int]:
        """What an action waits for until it is seen, whatever the options say."""
        parts = split_key(action.key)
        for number in action.after:
            dependency = self.actions[number]
            other = split_key(dependency.key)
            replicas = (other.kind, other.stack, other.name) == (Kind.CONTAINER, parts.stack, parts.name)
            if replicas or self.condition(action, dependency.key) in ("healthy", "completed"):
                yield number


def _name_containers(plan: Plan) -> dict[tuple[str, str], list[Key]]:
    """The containers that are wanted, by stack and name."""
    named: dict[tuple[str, str], list[Key]] = {}
    for key in plan.specs:
        parts = split_key(key)
        if parts.kind is Kind.CONTAINER:
            named.setdefault((parts.stack, parts.name), []).append(key)
    return named
