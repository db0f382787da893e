"""What stacks borrow of each other: refuses a plan whose borrower would find nothing, or whose owner takes what is lent.

`make.py` and `delete.py` call it with the finished plan, `verbs/` again for a saved one; the transaction that grants asks
`find_borrowers` once more. Records are those of all stacks. Pure.
"""

import ipaddress
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from reconciler.model.errors import Borrowed, NotLent
from reconciler.model.key import Key, Kind, kind_of, named_key, split_key, stack_of
from reconciler.model.observation import MISSING, Observation, Phase
from reconciler.model.plan import Line, Plan, Reason, Verb
from reconciler.model.record import Record
from reconciler.model.spec import Attachment, ContainerSpec, NetworkSpec, Spec, VolumeSpec
from reconciler.plan.scene import find_moved, network_keys, volume_keys

_TAKES = {Verb.DELETE: "deleted", Verb.REPLACE: "replaced"}
_LENT = (Kind.NETWORK, Kind.VOLUME)


def borrowed_keys(key: Key, spec: Spec) -> Iterator[Key]:
    """The networks and volumes of other stacks that a container uses."""
    if isinstance(spec, ContainerSpec) and _may_borrow(spec):
        own = stack_of(key)
        yield from (used for used in (*network_keys(key, spec), *volume_keys(key, spec)) if stack_of(used) != own)


def _may_borrow(spec: ContainerSpec) -> bool:
    """Asked of every container of every plan: no key is made for those that name only what is their own."""
    for name in spec.networks:
        if "/" in name:
            return True
    return any(mount.type == "volume" and "/" in mount.source for mount in spec.mounts.values())


def find_borrowers(specs: Iterable[tuple[Key, Spec]], *, but: Collection[str] = ()) -> dict[Key, tuple[Key, ...]]:
    """What is lent, by key, with the containers that borrow it, sorted; those of the stacks in `but` are left out."""
    found: dict[Key, set[Key]] = defaultdict(set)
    for key, spec in specs:
        if stack_of(key) not in but:
            for used in borrowed_keys(key, spec):
                found[used].add(key)
    return {used: tuple(sorted(keys)) for used, keys in found.items()}


def check_borrowing(plan: Plan, *, records: Mapping[Key, Record], observation: Observation) -> None:
    """Raise NotLent where a container of the plan borrows what is not there, Borrowed where the plan takes away what a
    container outside of it borrows."""
    _check_found(plan, records, observation)
    lent = find_borrowers(((key, record.spec) for key, record in records.items()), but=plan.stacks)
    for action in plan.actions:
        if action.key in lent and action.verb in _TAKES:
            raise Borrowed(action.key, _TAKES[action.verb], lent[action.key])
        spec = plan.specs.get(action.key)
        if action.reason is Reason.MOVED and isinstance(spec, VolumeSpec):
            old = find_moved(action.key, spec, records)
            if old is not None and old in lent:
                raise Borrowed(old, "moved", lent[old])


def render_lent(plan: Plan, records: Mapping[Key, Record]) -> list[Line]:
    """A line for each lent network that is made anew because others removed it: its borrowers' links went with it."""
    anew = [action.key for action in plan.actions if action.verb is Verb.CREATE and action.reason is Reason.GONE]
    if not any(kind_of(key) is Kind.NETWORK for key in anew):
        return []
    lent = find_borrowers(((key, record.spec) for key, record in records.items()), but=plan.stacks)
    return [
        Line(key=key, text=f"lent to {', '.join(lent[key])}: apply {_stacks(lent[key])} too, for the links are cut")
        for key in anew
        if key in lent and kind_of(key) is Kind.NETWORK
    ]


def _stacks(keys: Iterable[Key]) -> str:
    return " and ".join(sorted({stack_of(key) for key in keys}))


def _check_found(plan: Plan, records: Mapping[Key, Record], observation: Observation) -> None:
    gone = {action.key for action in plan.actions if action.verb is Verb.DELETE and action.key not in plan.specs}
    problems: dict[str, str] = {}
    for key, spec in plan.specs.items():
        if not isinstance(spec, ContainerSpec) or not _may_borrow(spec):
            continue
        for used in borrowed_keys(key, spec):
            why, hint = _why_missing(used, plan, gone, records, observation)
            if why:
                problems.setdefault(f"{key}: borrow {used}: {why}", hint)
        if not problems:
            problems |= {f"{key}: {why}": hint for why, hint in _misfits(key, spec, plan, records)}
    if problems:
        raise NotLent(list(problems), list(dict.fromkeys(problems.values())))


def _why_missing(
    used: Key, plan: Plan, gone: Collection[Key], records: Mapping[Key, Record], observation: Observation
) -> tuple[str, str]:
    """Why something can't be borrowed, and what to do; empty where it can."""
    owner, kind, name = split_key(used).stack, kind_of(used).value, split_key(used).name
    record = records.get(used)
    if used in plan.specs:
        return "", ""
    if used in gone:
        return f"it leaves the manifest of {owner} in this apply", f"keep it there, or let no container name it ({kind}s)"
    if record is not None and owner in plan.stacks:
        return "", ""
    if owner in plan.stacks:
        return f"the manifest of {owner} has no {kind} named {name}", f"declare it there: {kind}s: {{{name}: {{}}}}"
    first = f"apply the stack {owner} first, or both manifests in one command"
    if record is None:
        known = any(stack_of(key) == owner for key in records)
        why = f"the stack {owner} has no {kind} named {name}" if known else f"there is no stack {owner}"
        return why, first
    if record.unfinished == Verb.DELETE or observation.statuses.get(used, MISSING).phase is Phase.MISSING:
        return "it is on record and not on the machine", first
    return "", ""


def _misfits(key: Key, spec: ContainerSpec, plan: Plan, records: Mapping[Key, Record]) -> Iterator[tuple[str, str]]:
    """What `validate` looks at for a stack's own networks and can't know of a borrowed one."""
    borrowed = set(borrowed_keys(key, spec))
    found = {used: _network(used, plan, records) for used in network_keys(key, spec)}
    for used, (name, attachment) in zip(found, spec.networks.items(), strict=True):
        network = found[used]
        if used not in borrowed or network is None:
            continue
        if network.driver != "bridge":
            yield f"{used} is a {network.driver} network, which nobody needs to borrow", f"networks: [{network.driver}]"
        elif attachment.ipv4 and (why := _misplaced(attachment, network)):
            yield f"address {attachment.ipv4} on {name}: {why}", f"choose an address of {name}, or leave it out"
    shut_in = all(network is not None and network.internal for network in found.values())
    for mount in spec.mounts.values():
        if mount.type != "volume" or mount.read_only or split_key(key).index < 2:
            continue
        volume = named_key(Kind.VOLUME, stack_of(key), mount.source)
        if volume in borrowed and not _is_shared(volume, plan, records):
            hint = f"mount it read_only, or let {stack_of(volume)} give it access: shared"
            yield f"replicas would write {volume} together", hint
    if spec.ports and borrowed & found.keys() and shut_in:
        yield "ports can't be published from internal networks alone", "join a network that is not"


def _misplaced(attachment: Attachment, network: NetworkSpec) -> str:
    if not network.subnet:
        return "its owner gives that network no subnet, so that it takes one of the pool"
    inside = ipaddress.ip_address(attachment.ipv4) in ipaddress.ip_network(network.subnet, strict=False)
    return "" if inside else f"it is outside {network.subnet}"


def _is_shared(key: Key, plan: Plan, records: Mapping[Key, Record]) -> bool:
    record = records.get(key)
    spec = plan.specs.get(key) or (record.spec if record is not None else None)
    return isinstance(spec, VolumeSpec) and spec.access == "shared"


def _network(key: Key, plan: Plan, records: Mapping[Key, Record]) -> NetworkSpec | None:
    record = records.get(key)
    spec = plan.specs.get(key) or (record.spec if record is not None else None)
    return spec if isinstance(spec, NetworkSpec) else None
