"""Turns decisions into edges: which step waits for which, and how much that matters.

Feeds `graph.py`. Five rules: what is wanted is made before who uses it; who used it goes before it is removed; a port, an
address, a subnet, a volume is let go before another takes it; as a courtesy, what is removed outlives who depended on
it; and replicas that run are replaced one after the other. Never orders anything.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import pairwise

from msgspec import Struct

from reconciler.model.key import Key, Kind, kind_of, named_key, sort_key, split_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Verb
from reconciler.model.record import Record
from reconciler.model.spec import ContainerSpec, NetworkSpec
from reconciler.plan.decide import Decision
from reconciler.plan.scene import Scene, needed_keys, network_keys

Node = tuple[Key, Verb]
"""A step before it has its number: a split decision has two, DELETE and CREATE."""


class Strength(IntEnum):
    """What it costs to go without an edge."""

    COURTESY = 0
    """Somebody of the old order may miss what he needs for a moment."""
    TURN = 1
    """Replicas that run would be replaced all at once, a bad version of them too."""
    HANDOVER = 2
    """What is to be taken may be taken still."""
    DEPENDS = 3
    """A container would start before one that it depends on. Manifests have no circle, records of two applies may."""
    NEED = 4
    """It can't be done."""


class Edge(Struct, frozen=True, order=True):
    """`node` begins when `after` is done."""

    node: Node
    after: Node
    strength: Strength


def find_edges(decisions: Mapping[Key, Decision], scene: Scene, *, split: frozenset[Key]) -> frozenset[Edge]:
    """All edges between the steps of these decisions; `split` has those that delete and create in two steps."""
    steps = _Steps(decisions, split, scene.records)
    return frozenset(
        edge
        for rule in (_needs, _removals, _handovers, _courtesies, _turns)
        for edge in rule(steps, scene)
        if edge.node != edge.after
    )


class _Steps:
    """The steps of each decision: the one that brings a resource, the one that takes it away."""

    def __init__(self, decisions: Mapping[Key, Decision], split: frozenset[Key], records: Mapping[Key, Record]) -> None:
        self.keys = sorted(decisions)
        self.decisions = decisions
        self.split = split
        self.records = records

    def brings(self, key: Key) -> Node | None:
        """The step after which it is as wanted."""
        decision = self.decisions.get(key)
        if decision is None or decision.verb is Verb.DELETE:
            return None
        return (key, Verb.CREATE if key in self.split else decision.verb)

    def takes(self, key: Key) -> Node | None:
        """The step after which nothing of what was recorded is left, or what was given up is free."""
        decision = self.decisions.get(key)
        # What is made again lets go too, of what its record still claims; what is new has nothing.
        if decision is None or key not in self.records:
            return None
        return (key, Verb.DELETE if key in self.split else decision.verb)

    def removes(self, key: Key) -> Node | None:
        """The step that takes it off the machine, if one does so."""
        node = self.takes(key)
        return node if node is not None and node[1] in (Verb.DELETE, Verb.REPLACE) else None


def _needs(steps: _Steps, scene: Scene) -> Iterator[Edge]:
    """What a container is made of, and what it depends on, comes first."""
    for key in steps.keys:
        node, spec = steps.brings(key), scene.wanted(key)
        if node is None or spec is None:
            continue
        for need in needed_keys(key, spec):
            if (made := steps.brings(need)) is not None:
                yield Edge(node, made, Strength.NEED)
        for dependency in _dependencies(key, spec, scene):
            if (made := steps.brings(dependency)) is not None:
                yield Edge(node, made, Strength.DEPENDS)
        # A network that is replaced stops and detaches its containers itself; they follow.
        recorded = scene.recorded(key)
        for network in network_keys(key, recorded) if recorded is not None else ():
            made = steps.brings(network)
            if made is not None and made[1] is Verb.REPLACE:
                yield Edge(node, made, Strength.NEED)
        if key in steps.split:
            yield Edge(node, (key, Verb.DELETE), Strength.NEED)
    for key in steps.keys:
        if key in steps.split and kind_of(key) is Kind.NETWORK:
            yield Edge((key, Verb.CREATE), (key, Verb.DELETE), Strength.NEED)


def _removals(steps: _Steps, scene: Scene) -> Iterator[Edge]:
    """Who uses something goes, or moves, before it is removed; who depends on a container goes before it."""
    for key in steps.keys:
        user, recorded = steps.takes(key), scene.recorded(key)
        if user is None or recorded is None:
            continue
        used = needed_keys(key, recorded)
        for each in used:
            gone = steps.removes(each)
            # A whole replace of a network takes its containers with it, but for those that are deleted.
            if gone is not None and (gone[1] is Verb.DELETE or user[1] is Verb.DELETE):
                yield Edge(gone, user, Strength.NEED)
        if user[1] is Verb.DELETE:
            for dependency in _dependencies(key, recorded, scene):
                gone = steps.removes(dependency)
                if gone is not None and gone[1] is Verb.DELETE:
                    yield Edge(gone, user, Strength.COURTESY)


def _courtesies(steps: _Steps, scene: Scene) -> Iterator[Edge]:
    """What depended on a container that is removed has moved on before it goes."""
    for key in steps.keys:
        user, recorded = steps.takes(key), scene.recorded(key)
        if user is None or recorded is None or user[1] is Verb.DELETE:
            continue
        for dependency in _dependencies(key, recorded, scene):
            gone = steps.removes(dependency)
            # One that is split comes back: who depends on it waits for that, not the other way round.
            if gone is not None and gone[1] is Verb.DELETE and dependency not in steps.split:
                yield Edge(gone, user, Strength.COURTESY)


def _turns(steps: _Steps, scene: Scene) -> Iterator[Edge]:
    """Of the replicas of one name, those that run are replaced or restarted in turn, `update.parallel` at a time, after
    those that do not run; what is scaled away goes when they are done. So a bad version stops at the first."""
    for keys in _replicas(steps.keys):
        turned = [node for key in keys if (node := steps.brings(key)) and node[1] in (Verb.REPLACE, Verb.RESTART)]
        # A network that is replaced has stopped them all: they come back together.
        turned = [node for node in turned if node[0] not in steps.split and not _loses_network(node[0], steps, scene)]
        down = [node for node in turned if scene.status(node[0]).phase is not Phase.RUNNING]
        runs = [node for node in turned if scene.status(node[0]).phase is Phase.RUNNING]
        wanted = scene.wanted(turned[0][0]) if turned else None
        width = wanted.update.parallel if wanted is not None else 1
        gone = [node for key in keys if (node := steps.removes(key)) and node[1] is Verb.DELETE and key not in steps.split]
        batches = [down, *(runs[at : at + width] for at in range(0, len(runs), width)), gone]
        for before, after in pairwise(batch for batch in batches if batch):
            yield from (Edge(node, each, Strength.TURN) for node in after for each in before)


def _replicas(keys: Sequence[Key]) -> Iterator[list[Key]]:
    """The containers of each name that has several, by index."""
    named: dict[tuple[str, str], list[Key]] = defaultdict(list)
    for key in keys:
        parts = split_key(key)
        if parts.kind is Kind.CONTAINER:
            named[parts.stack, parts.name].append(key)
    return (sorted(found, key=sort_key) for found in named.values() if len(found) > 1)


def _loses_network(key: Key, steps: _Steps, scene: Scene) -> bool:
    recorded = scene.recorded(key)
    return recorded is not None and any(steps.removes(network) is not None for network in network_keys(key, recorded))


def _handovers(steps: _Steps, scene: Scene) -> Iterator[Edge]:
    """What is there once is let go before it is taken."""
    let_go: dict[str, list[tuple[str, Node]]] = defaultdict(list)
    for key in steps.keys:
        node = steps.takes(key)
        if node is not None:
            for what, which in _released(key, node, scene):
                let_go[what].append((which, node))
    for key in steps.keys:
        node = steps.brings(key)
        if node is None:
            continue
        for what, which in _taken(key, scene, anew=node[1] is Verb.CREATE):
            for other, holder in let_go.get(what, ()):
                if holder[0] != key and _clash(what, which, other):
                    yield Edge(node, holder, Strength.HANDOVER)


def _released(key: Key, node: Node, scene: Scene) -> Iterator[tuple[str, str]]:
    """What a step sets free: everything when it deletes, else what is no longer wanted."""
    record = scene.records.get(key)
    if record is None:
        return
    keeps = set() if node[1] is Verb.DELETE else set(_claims(key, scene.specs.get(key), scene))
    for claim in _claims(key, record.spec, scene):
        if claim not in keeps:
            yield claim
    if isinstance(record.spec, NetworkSpec) and not record.spec.subnet and node[1] is Verb.DELETE and record.grants.subnet:
        yield "subnet", record.grants.subnet
    for name, endpoint in record.grants.endpoints.items():
        claim = (f"address {named_key(Kind.NETWORK, split_key(key).stack, name)}", endpoint.address)
        if node[1] is Verb.DELETE and claim not in keeps:
            yield claim


def _taken(key: Key, scene: Scene, *, anew: bool) -> Iterator[tuple[str, str]]:
    """What a step takes that its key did not hold before."""
    record = scene.records.get(key)
    held = set() if anew or record is None else set(_claims(key, record.spec, scene))
    return (claim for claim in _claims(key, scene.specs.get(key), scene) if claim not in held)


def _claims(key: Key, spec: object, scene: Scene) -> Iterator[tuple[str, str]]:
    """What a spec asks for that only one can have."""
    if isinstance(spec, NetworkSpec) and spec.subnet:
        yield "subnet", spec.subnet
    if not isinstance(spec, ContainerSpec):
        return
    stack = split_key(key).stack
    for port in spec.ports:
        address, _, rest = port.rpartition(":")
        yield f"port {rest}", address
    for name, attachment in spec.networks.items():
        if attachment.ipv4:
            yield f"address {named_key(Kind.NETWORK, stack, name)}", attachment.ipv4
    for mount in spec.mounts.values():
        # Whoever writes a volume and leaves goes before another takes it, unless it may be written together.
        if mount.type == "volume" and not mount.read_only:
            volume = named_key(Kind.VOLUME, stack, mount.source)
            if not scene.is_shared(volume):
                yield f"volume {scene.moves.get(volume, volume)}", ""


def _clash(what: str, one: str, other: str) -> bool:
    if what == "subnet":
        return ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other, strict=False))
    return one == other or (what.startswith("port ") and "0.0.0.0" in (one, other))


def _dependencies(key: Key, spec: ContainerSpec, scene: Scene) -> Iterator[Key]:
    stack = split_key(key).stack
    for name in spec.depends_on:
        yield from (other for other in scene.named(stack, name) if other != key)
