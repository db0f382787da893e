"""Turns decisions about single resources into one ordered, acyclic graph of steps.

Fed by `decide.py`, read by `make.py`. It knows what one resource's change forces on another (a replaced network replaces
its containers, a container started anew restarts who asked for it) and what must precede what: `needs.py` says which edges
there are, this orders them and opens cycles. Never reads a clock, a file or an engine; the same decisions in any order give
the same graph.
"""

import heapq
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from msgspec import Struct
from msgspec.structs import replace

from reconciler.model.key import Key, Kind, kind_of, sort_key, split_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Reason, Verb
from reconciler.plan.decide import Decision
from reconciler.plan.needs import Edge, Node, Strength, find_edges
from reconciler.plan.scene import Scene


class Step(Struct, frozen=True, kw_only=True):
    """A decision in its place. A split replacement has two steps: one deletes, one creates."""

    id: int
    decision: Decision
    verb: Verb
    after: tuple[int, ...]


def force_dependents(decisions: Mapping[Key, Decision], scene: Scene) -> dict[Key, Decision]:
    """Replace the containers that sit on a network that is replaced: the link and the address that they have go with it.
    Restart those that run on a volume that is made anew: what they have mounted is the folder that is gone."""
    forced = dict(decisions)
    for network, decision in decisions.items():
        if kind_of(network) is Kind.VOLUME and decision.reason is Reason.GONE:
            for container in scene.mounting(network):
                if container in scene.specs and scene.status(container).phase is Phase.RUNNING:
                    forced[container] = _force_restart(container, forced.get(container))
        if kind_of(network) is not Kind.NETWORK or not _is_made_anew(decision, scene):
            continue
        for container in scene.sitting_on(network):
            if container in scene.specs and scene.is_there(container):
                forced[container] = _force(container, forced.get(container))
    return _restart_dependents(forced, scene)


def _restart_dependents(decisions: Mapping[Key, Decision], scene: Scene) -> dict[Key, Decision]:
    """Restart who runs and says so of a container that is restarted or replaced, and in turn who says so of him."""
    found = dict(decisions)
    waiting = sorted(scene.specs)
    while True:
        new = {key: _restart(key, found.get(key)) for key in waiting if _follows_restart(key, found, scene)}
        if not new:
            return found
        found |= new
        waiting = [key for key in waiting if key not in new]


def _follows_restart(key: Key, decisions: Mapping[Key, Decision], scene: Scene) -> bool:
    """Whether a container runs, is left running so far, and depends with `restart` on one that does not stay."""
    wanted, decision = scene.wanted(key), decisions.get(key)
    if wanted is None or key not in scene.records or scene.status(key).phase is not Phase.RUNNING:
        return False
    if scene.records[key].hold is not None or (decision is not None and decision.verb is not Verb.UPDATE):
        return False
    return any(
        other in decisions and _is_started_anew(decisions[other], scene)
        for name, dependency in wanted.depends_on.items()
        if dependency.restart
        for other in scene.named(split_key(key).stack, name)
    )


def _is_started_anew(decision: Decision, scene: Scene) -> bool:
    """A container that was there and is another process afterwards."""
    anew = (Verb.CREATE, Verb.RESTART, Verb.REPLACE)
    return decision.verb in anew and decision.key in scene.specs and decision.key in scene.records


def _restart(container: Key, decision: Decision | None) -> Decision:
    if decision is None:
        return Decision(key=container, verb=Verb.RESTART, reason=Reason.DEPENDENCY_RESTARTED)
    kept = decision.reason in (Reason.RESUMED, Reason.UNFINISHED)
    reason = decision.reason if kept else Reason.DEPENDENCY_RESTARTED
    return replace(decision, verb=Verb.RESTART, reason=reason)


def order_steps(decisions: Mapping[Key, Decision], scene: Scene) -> tuple[Step, ...]:
    """Put the steps in order: what must precede comes first, then kinds in order of need, then names; deletes last."""
    split: frozenset[Key] = frozenset()
    dropped: frozenset[Edge] = frozenset()
    while True:
        edges = find_edges(decisions, scene, split=split) - dropped
        cycle = _find_cycle(decisions, edges, split)
        if cycle is None:
            return _number(decisions, edges, split)
        able = frozenset(key for key, _ in cycle if key in scene.records and key not in split)
        split, dropped = _open_cycle(cycle, edges, decisions, able=able, split=split, dropped=dropped)


def _is_made_anew(decision: Decision, scene: Scene) -> bool:
    record = scene.records.get(decision.key)
    begun = decision.reason is Reason.UNFINISHED and record is not None and record.unfinished == Verb.REPLACE
    return decision.verb is Verb.REPLACE or begun


def _force(container: Key, decision: Decision | None) -> Decision:
    if decision is None:
        return Decision(key=container, verb=Verb.REPLACE, reason=Reason.DEPENDENCY_REPLACED)
    if decision.verb in (Verb.REPLACE, Verb.DELETE):
        return decision
    # The reason that ends a hold or an intent stays: converge reads it.
    kept = decision.reason in (Reason.RESUMED, Reason.UNFINISHED)
    reason = decision.reason if kept else Reason.DEPENDENCY_REPLACED
    return replace(decision, verb=Verb.REPLACE, reason=reason)


def _force_restart(container: Key, decision: Decision | None) -> Decision:
    if decision is None:
        return Decision(key=container, verb=Verb.RESTART, reason=Reason.DEPENDENCY_REPLACED)
    return replace(decision, verb=Verb.RESTART) if decision.verb is Verb.UPDATE else decision


# --- order ---


def _nodes(decisions: Mapping[Key, Decision], split: frozenset[Key]) -> list[Node]:
    found: list[Node] = []
    for key in sorted(decisions):
        found += [(key, Verb.DELETE), (key, Verb.CREATE)] if key in split else [(key, decisions[key].verb)]
    return found


def _find_cycle(decisions: Mapping[Key, Decision], edges: Iterable[Edge], split: frozenset[Key]) -> tuple[Node, ...] | None:
    sorter: TopologicalSorter[Node] = TopologicalSorter({node: () for node in _nodes(decisions, split)})
    for edge in sorted(edges):
        sorter.add(edge.node, edge.after)
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[Node] = error.args[1]
        return tuple(cycle)
    return None


def _open_cycle(
    cycle: tuple[Node, ...],
    edges: frozenset[Edge],
    decisions: Mapping[Key, Decision],
    *,
    able: frozenset[Key],
    split: frozenset[Key],
    dropped: frozenset[Edge],
) -> tuple[frozenset[Key], frozenset[Edge]]:
    """Open one cycle by what costs least; `able` are those of it that can be split.

    That an image comes before its container is never part of one.
    """
    steps = set(zip(cycle[1:], cycle, strict=False))
    inside = sorted(edge for edge in edges if (edge.node, edge.after) in steps)
    # 1. A courtesy is given up: that what went before ends only when nobody of the old order needs it; then that replicas
    # are replaced in turn.
    for weak in (Strength.COURTESY, Strength.TURN):
        if given_up := frozenset(edge for edge in inside if edge.strength is weak):
            return split, dropped | given_up
    # 2. Two that hand something over to each other: one lets go first, and is made again when the other has moved.
    if (key := _choose_split(able, decisions)) is not None:
        return split | {key}, dropped
    # 3. Nothing can let go first: what is handed over may be found taken, and converge says so.
    weakest = min(edge.strength for edge in inside)
    return split, dropped | frozenset(edge for edge in inside if edge.strength is weakest)


def _choose_split(able: frozenset[Key], decisions: Mapping[Key, Decision]) -> Key | None:
    """Who is made anyway before who is replaced, him before who would keep its pid; containers before their networks."""
    cost = {Verb.CREATE: 0, Verb.REPLACE: 1, Verb.RESTART: 2, Verb.UPDATE: 3}
    return min(
        (key for key in able if decisions[key].verb in cost and kind_of(key) in (Kind.CONTAINER, Kind.NETWORK)),
        key=lambda key: (cost[decisions[key].verb], kind_of(key) is not Kind.CONTAINER, sort_key(key)),
        default=None,
    )


def _number(decisions: Mapping[Key, Decision], edges: Iterable[Edge], split: frozenset[Key]) -> tuple[Step, ...]:
    after: dict[Node, set[Node]] = {node: set() for node in _nodes(decisions, split)}
    before: dict[Node, list[Node]] = {node: [] for node in after}
    for edge in edges:
        if edge.after not in after[edge.node]:
            after[edge.node].add(edge.after)
            before[edge.after].append(edge.node)
    waits = {node: len(needed) for node, needed in after.items()}
    ready = [(_place(node), node) for node, count in waits.items() if not count]
    heapq.heapify(ready)
    ids: dict[Node, int] = {}
    while ready:
        _, node = heapq.heappop(ready)
        ids[node] = len(ids) + 1
        for follower in before[node]:
            waits[follower] -= 1
            if not waits[follower]:
                heapq.heappush(ready, (_place(follower), follower))
    return tuple(
        Step(id=number, decision=decisions[node[0]], verb=node[1], after=tuple(sorted(ids[each] for each in after[node])))
        for node, number in ids.items()
    )


def _place(node: Node) -> tuple[bool, int, str, str, int]:
    key, verb = node
    kind, stack, name, index = sort_key(key)
    gone = verb is Verb.DELETE
    return gone, -kind if gone else kind, stack, name, index
