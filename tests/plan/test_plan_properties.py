"""What holds of every plan: from any state to any wish, walked step by step."""

from collections.abc import Mapping
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from plan.builders import AA, BB, Known, after, container, desire, stack, text
from reconciler.model.key import Key, Kind, container_key, kind_of, make_key, split_key
from reconciler.model.observation import Observation, Part, Phase
from reconciler.model.plan import Plan, Verb
from reconciler.model.record import Desired, ImageFact, Stack
from reconciler.model.spec import Attachment, ContainerSpec, Dependency, Mount, NetworkSpec, Spec
from reconciler.plan.decide import PlanOptions
from reconciler.plan.forms import dump_plan
from reconciler.plan.make import make_plan, recorded_desired
from reconciler.plan.scene import image_key, network_keys, volume_keys

NAMES = ("a", "b", "c", "d")
SUBNETS = ("10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24")
PORTS = ("0.0.0.0:1/tcp", "127.0.0.1:2/tcp", "127.0.0.1:3/tcp")


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """A valid stack: no circle of dependencies, no port, address or subnet twice, no volume written by two."""
    names = draw(st.permutations(NAMES).map(lambda each: each[: draw(st.integers(0, 4))]))
    networks = draw(st.lists(st.sampled_from(["m", "n", "o"]), max_size=3, unique=True))
    subnets = iter(draw(st.permutations(SUBNETS)))
    specs = {name: NetworkSpec(subnet=next(subnets) if draw(st.booleans()) else "") for name in networks}
    ports = iter(draw(st.permutations(PORTS)))
    volumes = iter(draw(st.permutations(["u", "v"])))
    addresses = iter(draw(st.permutations(range(200, 210))))
    containers = {}
    for place, name in enumerate(names):
        fixed = [each for each in networks if specs[each].subnet]
        containers[name] = ContainerSpec(
            image=draw(st.sampled_from(["app", "redis"])),
            env=draw(st.sampled_from([{}, {"A": "1"}])),
            hostname=draw(st.sampled_from(["", "h"])),
            ports={port: 80 for port in [next(ports, None)] if port and draw(st.booleans())},
            networks={
                each: Attachment(
                    ipv4=f"{specs[each].subnet[:7]}{next(addresses)}" if each in fixed and draw(st.booleans()) else ""
                )
                for each in networks
                if draw(st.booleans())
            },
            mounts={
                f"/{each}": Mount(type="volume", source=each)
                for each in [next(volumes, None)]
                if each and draw(st.booleans())
            },
            depends_on={
                other: Dependency(condition="started", restart=draw(st.booleans()))
                for other in names[:place]
                if draw(st.booleans())
            },
        )
    return stack(networks=specs, **containers)


@st.composite
def knowns(draw: st.DrawFn) -> Known:
    """A stack that was applied, then hurt: parts and things gone, containers ended, held, half done."""
    known = Known.of(draw(stacks()))
    for key in sorted(known.records):
        hurt = draw(st.sampled_from(["", "", "", "gone", "part", "exited", "created", "held", "unfinished"]))
        known = injure(known, key, hurt, draw(st.sampled_from(["in-place", "restart", "replace"])))
    return known


def injure(known: Known, key: Key, hurt: str, mend: str) -> Known:
    runs = kind_of(key) is Kind.CONTAINER
    if hurt == "gone":
        return known.gone(key)
    if hurt == "part":
        return known.drifted(key, x=Part(state="missing", mend=mend))
    if hurt == "unfinished":
        return known.recorded(key, unfinished="replace" if mend == "replace" else "create")
    if runs and hurt == "exited":
        return known.seen(key, Phase.EXITED, exit_code=1)
    if runs and hurt == "created":
        return known.seen(key, Phase.CREATED)
    return known.held(key) if runs and hurt == "held" else known


class Machine:
    """The walk of a plan: what is recorded after each step, with every rule of what may be there together."""

    def __init__(self, specs: Mapping[Key, Spec]) -> None:
        self.specs = dict(specs)

    def walk(self, plan: Plan, random: Random) -> None:
        """Do the actions in any order that their edges allow, as parallel workers may."""
        done: set[int] = set()
        waiting = list(plan.actions)
        assert all(each < action.id for action in waiting for each in action.after), "ids are an order to do it in"
        while waiting:
            action = random.choice([each for each in waiting if done.issuperset(each.after)])
            waiting.remove(action)
            done.add(action.id)
            if action.verb is Verb.DELETE:
                self.check_unused(action.key)
                del self.specs[action.key]
                continue
            if action.verb in (Verb.UPDATE, Verb.RESTART, Verb.REPLACE):
                assert action.key in self.specs
            self.specs[action.key] = plan.specs[action.key]
            self.check_needs(action.key)
            self.check_claims(action.key)

    def check_unused(self, key: Key) -> None:
        if kind_of(key) is Kind.IMAGE:
            return
        for user, spec in self.specs.items():
            if isinstance(spec, ContainerSpec):
                assert key not in {*network_keys(user, spec), *volume_keys(user, spec)}, f"{key} is in use by {user}"

    def check_needs(self, key: Key) -> None:
        spec = self.specs[key]
        if not isinstance(spec, ContainerSpec):
            return
        for need in (image_key(key, spec), *network_keys(key, spec), *volume_keys(key, spec)):
            assert need in self.specs, f"{key} needs {need}"
        for name in spec.depends_on:
            assert container_key("blog", name) in self.specs

    def check_claims(self, key: Key) -> None:
        mine = set(claims(key, self.specs[key]))
        for other, spec in self.specs.items():
            assert other == key or not mine & set(claims(other, spec)), f"{key} and {other} have {mine} both"


def claims(key: Key, spec: Spec) -> list[str]:
    if isinstance(spec, NetworkSpec):
        return [spec.subnet] if spec.subnet else []
    if not isinstance(spec, ContainerSpec):
        return []
    return [
        *(port.partition(":")[2] for port in spec.ports),
        *(f"{name} {each.ipv4}" for name, each in spec.networks.items() if each.ipv4),
        *(f"writes {mount.source}" for mount in spec.mounts.values() if mount.source),
    ]


def names(known: Known, wanted: Stack) -> frozenset[str]:
    """Everything that `--accept-data-loss` can name: what is refused without it has its own tests."""
    return frozenset({*known.records, *wanted.specs})


def wish(wanted: Stack) -> Desired:
    return desire(wanted, facts={"redis": ImageFact(digest=BB), "app": ImageFact(digest=AA)})


@given(knowns(), stacks(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_steps_in_order_lead_from_any_state_to_any_wish(known: Known, wanted: Stack, random: Random):
    plan = known.plan_desired(wish(wanted), resume=True, accept_loss=names(known, wanted))
    machine = Machine({key: record.spec for key, record in known.records.items()})
    machine.walk(plan, random)
    kept = {key for key in machine.specs if kind_of(key) is Kind.VOLUME and key not in plan.specs}
    assert machine.specs.keys() - kept == plan.specs.keys()
    touched = {action.key for action in plan.actions}
    for key in plan.specs.keys() - touched:
        assert machine.specs[key] == plan.specs[key]


@given(knowns(), stacks())
@settings(max_examples=60, deadline=None)
def test_no_action_names_what_neither_side_names(known: Known, wanted: Stack):
    for plan in (known.plan(wanted, accept_loss=names(known, wanted)), known.plan_delete()):
        assert {action.key for action in plan.actions} <= {*known.records, *plan.specs}


@given(knowns(), stacks())
@settings(max_examples=60, deadline=None)
def test_volume_is_deleted_only_when_asked(known: Known, wanted: Stack):
    volumes = tuple(key for key in known.records if kind_of(key) is Kind.VOLUME)

    def deleted(plan: Plan) -> set[Key]:
        return {each.key for each in plan.actions if each.verb is Verb.DELETE and kind_of(each.key) is Kind.VOLUME}

    assert deleted(known.plan(wanted, accept_loss=names(known, wanted))) == set()
    assert deleted(known.plan_delete()) == set()
    assert deleted(known.plan_delete(volumes=volumes[:1])) == set(volumes[:1])
    told = {line.key for line in known.plan(wanted, accept_loss=names(known, wanted)).lines}
    assert {key for key in volumes if key not in wanted.specs} <= told


@given(stacks())
@settings(max_examples=60, deadline=None)
def test_plan_of_what_is_recorded_and_seen_is_empty(wanted: Stack):
    known = Known.of(wanted)
    assert known.plan(wanted).actions == ()
    assert known.plan_drift().actions == ()


@given(knowns(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_plan_of_what_is_recorded_mends_and_deletes_nothing(known: Known, random: Random):
    plan = known.plan_drift()
    assert all(action.verb is not Verb.DELETE for action in plan.actions)
    Machine({key: record.spec for key, record in known.records.items()}).walk(plan, random)


@given(knowns(), stacks(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_order_of_the_input_changes_no_byte(known: Known, wanted: Stack, random: Random):
    def shuffled(mapping: Mapping) -> dict:
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    def plan_bytes(desired: Desired, known: Known) -> bytes:
        plan = make_plan(
            desired,
            stacks=known.stacks,
            records=known.records,
            observation=Observation(statuses=known.statuses),
            options=PlanOptions(accept_loss=names(known, wanted)),
            now=1.0,
        )
        # The wish itself is passed on as it came; everything that was decided is in one order.
        return msgspec.json.encode({**dump_plan(plan), "wanted": []}) + text(plan).encode()

    desired = wish(wanted)
    turned = Desired(
        stacks=tuple(msgspec.structs.replace(each, specs=shuffled(each.specs)) for each in desired.stacks),
        images=shuffled(desired.images),
    )
    other = Known(stacks=shuffled(known.stacks), records=shuffled(known.records), statuses=shuffled(known.statuses))
    assert plan_bytes(desired, known) == plan_bytes(turned, other)


@given(knowns())
@settings(max_examples=60, deadline=None)
def test_circle_in_the_records_of_two_applies_does_not_hang(known: Known):
    names = sorted(split_key(key).name for key in known.records if kind_of(key) is Kind.CONTAINER)
    for name in names:
        key = container_key("blog", name)
        spec = msgspec.structs.replace(known.records[key].spec, depends_on=after(dict.fromkeys(names, "started")))
        known = known.recorded(key, spec=spec)
    assert len(known.plan_delete().actions) == sum(kind_of(key) is not Kind.VOLUME for key in known.records)
    known.plan_desired(recorded_desired(known.records, known.stacks), resume=True, accept_loss=frozenset(known.records))


def test_every_container_of_a_large_stack_has_its_place():
    many = stack(**{f"c{number}": container(networks=("front",)) for number in range(300)})
    plan = Known().plan(many)
    assert [action.id for action in plan.actions] == list(range(1, len(plan.actions) + 1))
    gone = Known.of(many).plan_delete()
    assert "after 1-300  because" in text(gone)
    assert gone.actions[-2].key == make_key(Kind.NETWORK, "blog", "front")
