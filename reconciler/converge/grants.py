"""An action → a job: what it needs is granted in the wave's transaction, and its intent is written.

Grants belong to the key: a container that is replaced keeps its address, its MAC and its ports, and gets links of its own
incarnation; only one that starts first takes a fresh address and MAC. Called by run.py under the root's lock; nothing
here touches the machine.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from reconciler.converge.ground import Ground
from reconciler.converge.view import made_of, rests
from reconciler.engine.protocol import Uses
from reconciler.model.errors import Borrowed, Failed, NameTaken
from reconciler.model.key import Key, Kind, named_key, split_key, split_replica_volume
from reconciler.model.plan import Action, Plan, Reason, Verb
from reconciler.model.record import Endpoint, Grants, Intent, Made, Record
from reconciler.model.spec import START_FIRST, ContainerSpec, NetworkSpec, VolumeSpec
from reconciler.plan.borrowing import borrowed_keys, find_borrowers
from reconciler.plan.scene import find_moved, image_key, moved_from, network_keys, volume_keys

if TYPE_CHECKING:
    from reconciler.store.writing import Writing

_LENT = (Kind.NETWORK, Kind.VOLUME)

_A_MOMENT = 1e-3
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


Records = Mapping[Key, Record]


class Job(Struct, frozen=True, kw_only=True):
    """An action with all that its drivers need."""

    action: Action
    intent: Intent
    old: Made | None
    new: Made | None
    uses: Uses
    """What the new and the old one are made of."""
    rested: bool = False
    """The old one had ended and its policy let it rest: bringing it back does not start it."""
    members: tuple[Made, ...] = ()
    """A network that is replaced: the containers that sit on it; `uses` is then theirs."""
    created_at: float = 0.0


def take_job(tx: "Writing", action: Action, plan: Plan, records: Records, ground: Ground) -> Job:
    """Grant what an action needs. The caller writes the job's intent in the same transaction.

    Raises what the pools say: PortTaken, SubnetTaken, AddressTaken, …
    """
    check_borrowing(tx, action, plan, records)
    if action.reason is Reason.MOVED:
        records = {**records, action.key: _take_over(tx, action, plan, records)}
    record = records.get(action.key)
    old = made_of(record) if record else None
    new = None if action.verb is Verb.DELETE else _make_new(tx, action, plan, records, ground)
    if action.reason is Reason.RESUMED:
        tx.set_hold(action.key, None)
    members = _members(records, action)
    return Job(
        action=action,
        intent=Intent(
            key=action.key,
            stack=split_key(action.key).stack,
            verb=action.verb.value,
            apply=ground.apply,
            begun_at=ground.now(),
            old=old,
            new=new,
            stage=action.order,
        ),
        old=old,
        new=new,
        uses={key: used for made in (old, new, *members) if made for key, used in find_uses(records, made).items()},
        rested=record is not None and rests(record),
        members=members,
        created_at=record.created_at if record else ground.now(),
    )


def check_borrowing(tx: "Writing", action: Action, plan: Plan, records: Records) -> None:
    """Ask again, now that nobody else writes, whether what an action borrows is there, and whether what it takes is lent.

    Race: stacks are locked one by one, so that a borrower's apply and its owner's delete may run at once; whoever writes
    his intent first wins. Raises Failed, Borrowed.
    """
    spec = plan.specs.get(action.key)
    borrowed = list(borrowed_keys(action.key, spec)) if spec is not None and action.verb is not Verb.DELETE else []
    moved = None
    if action.reason is Reason.MOVED and isinstance(spec, VolumeSpec):
        moved = find_moved(action.key, spec, records)
    takes = split_key(action.key).kind in _LENT and (action.verb in (Verb.DELETE, Verb.REPLACE) or moved is not None)
    if not borrowed and not takes:
        return
    intents = [intent for intent in tx.intents() if intent.stack not in plan.stacks]
    for used in borrowed:
        going = any(intent.key == used and intent.verb in ("delete", "replace") for intent in intents)
        if used not in records or going:
            owner = split_key(used).stack
            raise Failed(
                f"{action.key}: borrow {used}: {f'an apply of {owner} is taking it away' if going else 'it is gone'}",
                hint=f"apply the stack {owner}, then apply again",
            )
    if takes:
        users = [(key, record.spec) for key, record in records.items()]
        users += [(intent.key, intent.new.spec) for intent in intents if intent.new is not None]
        if borrowers := find_borrowers(users, but=plan.stacks).get(moved or action.key):
            done = "moved" if moved else "deleted" if action.verb is Verb.DELETE else "replaced"
            raise Borrowed(moved or action.key, done, borrowers)


def _take_over(tx: "Writing", action: Action, plan: Plan, records: Records) -> Record:
    """Let a volume's record and its folder's id go over to its new name, which is all that a move is: what is left for the
    driver is the small file in the folder, and that it still says the old name is drift. Raises Failed.

    Who mounts it mounts it by the new name from now on, whether he is replaced or not: the old name may mean a new volume
    in the next plan, and a container that stayed would be taken for one that has it.
    """
    spec = plan.specs[action.key]
    assert isinstance(spec, VolumeSpec)
    old = find_moved(action.key, spec, records)
    if old is None:
        raise Failed(f"{action.key}: {spec.moved}, which it is to be moved from, is gone", hint="apply again")
    record = records[old]
    taken = structs.replace(record, key=action.key, spec=spec)
    tx.pass_grants(record.key, to=action.key)
    tx.put_record(taken)
    tx.delete_record(record.key)
    tx.put_records(list(_renamed(records, old, action.key)))
    return taken


def _renamed(records: Records, old: Key, new: Key) -> Iterator[Record]:
    """The containers that mount a volume, with its new name."""
    stack, was, now = split_key(old).stack, split_key(old).name, split_key(new).name
    for key, record in records.items():
        spec = record.spec
        if split_key(key).stack != stack or not isinstance(spec, ContainerSpec):
            continue
        mounts = {
            target: structs.replace(mount, source=now) if (mount.type, mount.source) == ("volume", was) else mount
            for target, mount in spec.mounts.items()
        }
        if mounts != spec.mounts:
            yield structs.replace(record, spec=structs.replace(spec, mounts=mounts))


def give_back(tx: "Writing", key: Key, made: Made | None) -> None:
    """Take back all that a key holds beyond what it is made with: of the other incarnation, or of one that never was."""
    if made is None:
        tx.withdraw_grants(key)
    else:
        ports = made.spec.ports if isinstance(made.spec, ContainerSpec) else ()
        tx.free_grants(key, keep=made.grants, ports=ports)


def drop_record(tx: "Writing", key: Key, made: Made | None) -> None:
    """Remove the record of what is gone. A replica whose own volume stays keeps its addresses for when it is back."""
    spec = made.spec if made is not None else None
    if made is None or not isinstance(spec, ContainerSpec):
        tx.delete_record(key)
        return
    stack = split_key(key).stack
    named = {mount.source for mount in spec.mounts.values() if mount.type == "volume"}
    own = [named_key(Kind.VOLUME, stack, name) for name in sorted(named) if split_replica_volume(name)[1]]
    endpoints = {named_key(Kind.NETWORK, stack, name): place for name, place in made.grants.endpoints.items()}
    if volumes := [volume for volume in own if tx.record(volume) is not None]:
        tx.scale_away(key, endpoints, volumes)
    else:
        tx.delete_record(key)


def _make_new(tx: "Writing", action: Action, plan: Plan, records: Records, ground: Ground) -> Made:
    record = records.get(action.key)
    spec = plan.specs.get(action.key) or (record.spec if record else None)
    assert spec is not None, f"{action.key} is in the plan without a spec"
    fact = plan.images.get(image_key(action.key, spec) if isinstance(spec, ContainerSpec) else action.key)
    old, resumed = made_of(record or Record(key=action.key, spec=spec)), action.reason is Reason.RESUMED
    made = Made(
        key=action.key,
        spec=spec,
        image=fact.digest if fact else (record.image if record else ""),
        grants=record.grants if record else Grants(),
        incarnation=record.incarnation if record else "",
        held=old.held and not resumed,
        paused=old.paused and not resumed,
        # What replaces a thing is younger than it also where the clock was set back: names and ports go by that.
        created_at=max(ground.now(), record.created_at + _A_MOMENT if record else 0.0),
    )
    fresh = action.verb is Verb.REPLACE
    if isinstance(spec, ContainerSpec):
        if fresh:
            made = structs.replace(made, incarnation=ground.token(12))
        return _grant_container(tx, made, spec, records, ground, beside=action.order == START_FIRST)
    if isinstance(spec, NetworkSpec):
        if action.verb is Verb.CREATE and made.grants.subnet:
            # It was off the machine: what it holds on record may have come to be somebody else's there.
            ground.engine.check_subnet(made.key, made.grants.subnet)
        return _grant_network(tx, made, spec, record, ground, fresh=fresh)
    return _grant_volume(tx, made, ground) if isinstance(spec, VolumeSpec) else made


def _grant_volume(tx: "Writing", made: Made, ground: Ground) -> Made:
    if made.grants.volume_id:
        return made
    volume_id = _fresh(lambda: ground.token(16), lambda name: tx.grant_volume_id(name, made.key))
    return structs.replace(made, grants=Grants(volume_id=volume_id))


def _grant_network(
    tx: "Writing", made: Made, spec: NetworkSpec, record: Record | None, ground: Ground, *, fresh: bool
) -> Made:
    if spec.driver != "bridge":
        return structs.replace(made, grants=Grants())
    if made.grants.link and not fresh:
        return made
    letters = "".join
    link = _fresh(
        lambda: "b" + ground.root_id + letters(BASE32[int(digit, 16) * 2] for digit in ground.token(8)),
        lambda name: tx.grant_link(name, made.key),
    )
    pooled = record is not None and isinstance(record.spec, NetworkSpec) and not record.spec.subnet
    subnet = spec.subnet or (made.grants.subnet if pooled else "")
    if not subnet:
        subnet = ground.engine.choose_subnets(1, list(tx.taken_subnets()))[0]
    elif subnet != made.grants.subnet:
        ground.engine.check_subnet(made.key, subnet)
    tx.grant_subnet(made.key, subnet)
    gateway = spec.gateway or str(next(ipaddress.ip_network(subnet).hosts()))
    return structs.replace(made, grants=Grants(link=link, subnet=subnet, gateway=gateway))


def _grant_container(
    tx: "Writing", made: Made, spec: ContainerSpec, records: Records, ground: Ground, *, beside: bool
) -> Made:
    """With `beside` addresses and MACs are other ones than the key holds: two incarnations run side by side."""
    stack = split_key(made.key).stack
    incarnation = made.incarnation or ground.token(12)
    endpoints: dict[str, Endpoint] = {}
    for place, (name, attachment) in enumerate(sorted(spec.networks.items())):
        network = records.get(named_key(Kind.NETWORK, stack, name))
        if network is None or not network.grants.link:
            continue  # host and none have no bridge
        address = tx.grant_address(
            network.key,
            made.key,
            subnet=network.grants.subnet,
            gateway=network.grants.gateway,
            wanted=attachment.ipv4,
            fresh=beside,
        )
        held = made.grants.endpoints.get(name)
        mac = "" if beside else held.mac if held else tx.reserved_mac(network.key, made.key)
        mac = mac or _grant_mac(tx, made.key, address, ground, taken=held.mac if held else "")
        link = f"v{ground.root_id}{incarnation[:8]}{BASE32[place]}"
        tx.grant_link(link, made.key)
        endpoints[name] = Endpoint(address=address, mac=mac, link=link)
    tx.grant_ports(made.key, spec.ports)
    return structs.replace(made, incarnation=incarnation, grants=Grants(endpoints=endpoints))


def _fresh(generate: Callable[[], str], take: Callable[[str], None]) -> str:
    """A generated name that nobody holds: chance makes them, the pool says whether they are free."""
    while True:
        name = generate()
        try:
            take(name)
        except NameTaken:
            continue
        return name


def _grant_mac(tx: "Writing", key: Key, address: str, ground: Ground, *, taken: str) -> str:
    """A MAC that follows from the address, so that whoever knew the address before finds its new holder at once: an entry
    of a neighbour's ARP cache stays for half a minute. By chance where somebody kept it while the address went on."""
    own = _mac(ground.root_id.encode().hex()[:2] + ipaddress.IPv4Address(address).packed.hex())
    if own != taken:
        with suppress(NameTaken):
            tx.grant_mac(own, key)
            return own
    return _fresh(lambda: _mac(ground.token(10)), lambda mac: tx.grant_mac(mac, key))


def _mac(digits: str) -> str:
    """A locally administered unicast address (IEEE 802, bit 1 of the first octet)."""
    return "02:" + ":".join(digits[i : i + 2] for i in range(0, 10, 2))


def find_uses(records: Records, made: Made) -> dict[Key, Made]:
    """What a container depends on: its image, its networks, its volumes; nothing for other kinds."""
    if not isinstance(made.spec, ContainerSpec):
        return {}
    key, spec = made.key, made.spec
    keys = (image_key(key, spec), *network_keys(key, spec), *volume_keys(key, spec))
    return {used: made_of(found) for used in keys if (found := records.get(used) or _find_moved(records, used))}


def _find_moved(records: Records, key: Key) -> Record | None:
    """What a volume is called now that a container was made with by its former name."""
    if split_key(key).kind is not Kind.VOLUME:
        return None
    specs = ((other, record.spec, record) for other, record in records.items())
    return next((r for other, spec, r in specs if isinstance(spec, VolumeSpec) and key in moved_from(other, spec)), None)


def _members(records: Records, action: Action) -> tuple[Made, ...]:
    """The containers, those of borrowers too, that sit on a network which is to be replaced."""
    if split_key(action.key).kind is not Kind.NETWORK or action.verb is not Verb.REPLACE:
        return ()
    return tuple(
        made_of(record)
        for key, record in records.items()
        if isinstance(record.spec, ContainerSpec) and action.key in network_keys(key, record.spec)
    )
