"""Random stacks, edits and faults on the memory engine: what must hold whatever happens."""

import hashlib
import tempfile
from pathlib import Path

import pytest
from converge_bench import Bench, die_after
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plan.builders import after, container, stack
from reconciler.engine.memory.machine import Machine
from reconciler.model.key import Key, Kind, container_key, kind_of, make_key
from reconciler.model.observation import Phase, missing
from reconciler.model.record import Stack
from reconciler.model.spec import ContainerSpec, Mount, NetworkSpec
from reconciler.store.store import open_store

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a root costs no disk."""
NAMES = ("web", "cache", "db", "worker")
NETWORKS = ("front", "back")
VOLUMES = ("data", "logs")

containers = st.builds(
    lambda command, networks, volumes, port, env: container(
        command=(command,),
        networks=tuple(sorted(networks)),
        mounts={f"/{volume}": Mount(type="volume", source=volume) for volume in volumes},
        ports={f"0.0.0.0:{port}/tcp": 80} if port else {},
        env={"LOG": env},
    ),
    st.sampled_from("abc"),
    st.sets(st.sampled_from(NETWORKS), max_size=2),
    st.sets(st.sampled_from(VOLUMES), max_size=2),
    st.none(),
    st.sampled_from(("debug", "info")),
)


def with_order(wanted: dict[str, ContainerSpec], ports: dict[str, int]) -> dict[str, ContainerSpec]:
    """Each container depends on the one before it by name, and has a port of its own where one is drawn."""
    import msgspec

    out: dict[str, ContainerSpec] = {}
    for name in sorted(wanted):
        before = max((other for other in out if other < name), default="")
        changed = {"depends_on": after({before: "started"}) if before else {}}
        changed["ports"] = {f"0.0.0.0:{ports[name]}/tcp": 80} if name in ports else {}
        out[name] = msgspec.structs.replace(wanted[name], **changed)
    return out


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    wanted = draw(st.dictionaries(st.sampled_from(NAMES), containers, min_size=1, max_size=4))
    numbers = draw(st.permutations((8000, 8001, 8002, 8003)))
    published = draw(st.sets(st.sampled_from(NAMES)))
    ports = {name: number for name, number in zip(NAMES, numbers, strict=True) if name in published}
    networks = {
        "front": NetworkSpec(internal=draw(st.booleans())),
        "back": NetworkSpec(subnet=draw(st.sampled_from(("", "10.9.0.0/24", "10.8.0.0/16")))),
    }
    return stack(networks=networks, **with_order(wanted, ports))


def open_bench(folder: str) -> Bench:
    made = Bench(store=open_store(Path(folder) / "root", create=True), machine=Machine())
    made.publish("app", "sha256:" + "a" * 64)
    return made


pytestmark = pytest.mark.timeout(300)  # each example is several applies with synced commits
relaxed = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(st.lists(stacks(), min_size=1, max_size=4))
def test_each_version_converges_and_then_nothing_is_left_to_do(versions: list[Stack]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = open_bench(folder)
        for wanted in versions:
            named = set(wanted.specs) | set(bench.records())
            plan = bench.plan(wanted)
            assert {action.key for action in plan.actions} <= named
            assert not any(action.verb == "delete" and kind_of(action.key) is Kind.VOLUME for action in plan.actions)
            assert bench.apply(wanted).failed == ()
            assert bench.lines(wanted)[-1] == "nothing to do"
            assert_machine_agrees(bench, wanted)
        assert bench.delete("blog").failed == ()
        assert bench.machine.containers == bench.machine.networks == bench.machine.open_ports == {}
        bench.store.close()


def assert_machine_agrees(bench: Bench, wanted: Stack) -> None:
    """What runs is what is wanted, each once, with its own addresses and ports."""
    running = [thing.made for thing in bench.machine.containers.values() if thing.phase is Phase.RUNNING]
    assert sorted(made.key for made in running) == sorted(key for key in wanted.specs if kind_of(key) is Kind.CONTAINER)
    assert len(bench.machine.containers) == len(running)
    for made in running:
        spec = wanted.specs[made.key]
        assert isinstance(spec, ContainerSpec)
        assert made.spec.command == spec.command  # type: ignore[union-attr]
        assert set(made.grants.endpoints) == set(spec.networks)
    addresses = [(name, place.address) for made in running for name, place in made.grants.endpoints.items()]
    assert len(addresses) == len(set(addresses))
    links = [place.link for made in running for place in made.grants.endpoints.values()]
    assert len(links) == len(set(links))
    assert bench.machine.open_ports == {port: made.key for made in running for port in made.spec.ports}  # type: ignore[union-attr]


VERBS = ("prepare", "start", "stop", "delete", "create", "update")
faults = st.tuples(
    st.sampled_from(VERBS),
    st.sampled_from(
        [container_key("blog", name) for name in NAMES]
        + [make_key(Kind.NETWORK, "blog", name) for name in NETWORKS]
        + [make_key(Kind.VOLUME, "blog", name) for name in VOLUMES]
    ),
)


@relaxed
@given(stacks(), stacks(), st.lists(faults, min_size=1, max_size=3))
def test_after_failures_end_two_applies_converge_and_no_data_is_lost(
    first: Stack, second: Stack, broken: list[tuple[str, Key]]
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = open_bench(folder)
        bench.apply(first)
        for volume in bench.machine.volumes.values():
            volume.data["row"] = hashlib.sha256(volume.made.key.encode()).digest()
        data = {identity: dict(thing.data) for identity, thing in bench.machine.volumes.items()}
        for verb, key in broken:
            bench.machine.fail_next(verb, key)
        bench.apply(second, accept=second.specs)
        bench.machine._failures.clear()
        bench.apply(second, accept=second.specs)
        result = bench.apply(second, accept=second.specs)
        assert result.failed == ()
        bench.engine.sweep(bench_view(bench))
        assert_machine_agrees(bench, second)
        assert {identity: thing.data for identity, thing in bench.machine.volumes.items() if identity in data} == data
        bench.store.close()


def bench_view(bench: Bench):
    from reconciler.converge.view import compose_view

    return compose_view(bench.records(), [])


@relaxed
@given(stacks(), stacks(), st.integers(0, 40))
def test_kill_at_any_driver_call_is_taken_up_by_the_next_apply(first: Stack, second: Stack, after: int) -> None:
    """A process that dies leaves intents; what the next one finds converges, and nothing is left twice."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = open_bench(folder)
        bench.apply(first)
        died = die_after(bench, second, after)
        assert bench.apply(second).failed == () or died
        assert bench.apply(second).failed == ()
        bench.engine.sweep(bench_view(bench))
        assert bench.fold().intents == ()
        assert_machine_agrees(bench, second)
        bench.store.close()


@relaxed
@given(stacks(), st.sampled_from(("vanish", "part", "exit")), st.sampled_from(NAMES))
def test_what_others_break_is_mended_and_nothing_else_restarts(wanted: Stack, how: str, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = open_bench(folder)
        bench.apply(wanted)
        key = container_key("blog", name)
        pids = bench.pids()
        if key in pids:
            if how == "vanish":
                bench.machine.vanish(key)
            elif how == "part":
                bench.machine.drift(key, "link/front", missing())
            else:
                bench.machine.exit(key, 137)
        bench.apply(wanted)
        after = bench.pids()
        others = {other: pid for other, pid in pids.items() if other != key}
        assert {other: after[other] for other in others} == others
        assert_machine_agrees(bench, wanted)
        assert bench.lines(wanted)[-1] == "nothing to do"
        bench.store.close()
