"""Replicas on the memory engine: each finds its volume, address, MAC and name again; a bad version stops at the first."""

import tempfile
from pathlib import Path

import pytest
from converge_bench import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plan.builders import container, stack, volume_at, with_replicas
from reconciler.engine.memory.machine import Machine
from reconciler.model.key import Key, Kind, container_key, kind_of, make_key, split_key
from reconciler.model.observation import Phase
from reconciler.model.record import Hold, Stack
from reconciler.model.spec import Attachment, Dependency, Healthcheck, NetworkSpec, Update
from reconciler.store.store import open_store

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
BACK = make_key(Kind.NETWORK, "blog", "back")


def db(count: int, *, subnet: str = "", networks: tuple[str, ...] = ("back", "front"), **fields: object) -> Stack:
    """Replicas on two networks, each with its own volume, beside one that has none."""
    specs = {"back": NetworkSpec(subnet=subnet), "front": NetworkSpec()}
    wanted = stack(
        networks=specs,
        db=container(networks=networks, mounts=volume_at("/data", "data"), **fields),
        web=container(networks=("back",)),
    )
    return with_replicas(wanted, own="data", db=count)


def key(index: int, name: str = "db") -> Key:
    return container_key("blog", name, index)


def volume(index: int) -> Key:
    return make_key(Kind.VOLUME, "blog", f"data@{index}")


def belongings(bench: Bench) -> dict[int, object]:
    """What each replica has: places by network without the links, which are its incarnation's, and its volume's id."""
    records = bench.records()
    return {
        split_key(each).index: (
            {name: (place.address, place.mac) for name, place in record.grants.endpoints.items()},
            records[volume(split_key(each).index)].grants.volume_id,
        )
        for each, record in records.items()
        if split_key(each).name == "db"
    }


def held_by(bench: Bench, owner: Key) -> set[str]:
    with bench.store.read() as tx:
        return {grant.pool for grant in tx.grants_of(owner)}


def test_each_finds_its_own_again_after_scaling_replacing_and_restarting(bench: Bench) -> None:
    bench.apply(db(3))
    first = belongings(bench)
    assert len(first) == 3
    for count, command in ((1, "a"), (3, "a"), (3, "b"), (0, "b"), (2, "b"), (3, "c")):
        assert bench.apply(db(count, command=(command,))).failed == ()
        assert belongings(bench) == {index: first[index] for index in range(1, count + 1)}
        assert not any("nothing to do" not in line for line in bench.lines(db(count, command=(command,)))[-1:])
    bench.machine.exit(key(2), 137)
    bench.apply(db(3, command=("c",)))
    assert belongings(bench) == first


def test_scaled_away_address_is_given_to_nobody_else(bench: Bench) -> None:
    bench.apply(db(3))
    kept = bench.records()[key(3)].grants.endpoints["back"].address
    bench.apply(db(2))
    assert held_by(bench, key(3)) == {"address", "mac", "reserved"}
    wanted = db(2)
    more = {container_key("blog", f"more{number}"): container(networks=("back",)) for number in range(5)}
    bench.apply(Stack(name="blog", origin=wanted.origin, source=wanted.source, specs={**wanted.specs, **more}))
    assert kept not in {
        record.grants.endpoints["back"].address for record in bench.records().values() if "back" in record.grants.endpoints
    }


def test_fixed_address_that_is_kept_for_a_replica_says_so(bench: Bench) -> None:
    bench.apply(db(2, subnet="10.40.0.0/24"))
    kept = bench.records()[key(2)].grants.endpoints["back"].address
    bench.apply(db(1, subnet="10.40.0.0/24"))
    wanted = db(1, subnet="10.40.0.0/24")
    other = {container_key("blog", "other"): container(networks={"back": Attachment(ipv4=kept)})}
    bench.apply(Stack(name="blog", origin=wanted.origin, source=wanted.source, specs={**wanted.specs, **other}))
    assert "held by container/blog/db/2 (scaled away; its volume keeps it)" in bench.failures()[-1].brief


def test_deleting_the_volume_frees_the_address(bench: Bench) -> None:
    bench.apply(db(2))
    bench.apply(db(1))
    plan_of = bench.records()
    assert volume(2) in plan_of
    delete_volumes(bench, volume(2))
    assert held_by(bench, key(2)) == set()
    assert held_by(bench, key(1)) >= {"address", "mac"}


def delete_volumes(bench: Bench, *volumes: Key) -> None:
    from reconciler.converge.view import compose_view
    from reconciler.plan.delete import make_delete_plan

    with bench.store.read() as tx:
        records, stacks = tx.records(), tx.stacks()
    seen = bench.engine.observe(compose_view(records, []))
    bench.run(make_delete_plan(volumes, volumes=volumes, stacks=stacks, records=records, observation=seen))


def test_a_network_that_goes_takes_what_is_reserved_on_it(bench: Bench) -> None:
    bench.apply(db(2))
    bench.apply(db(1))
    bench.apply(with_replicas(stack(db=container(mounts=volume_at("/data", "data"))), own="data", db=1))
    assert held_by(bench, key(2)) == set()
    with bench.store.read() as tx:
        assert [grant for pool in ("address", "mac", "reserved", "link") for grant in tx.grants_in(pool)] == []


def test_without_a_volume_of_its_own_nothing_is_reserved(bench: Bench) -> None:
    bench.apply(with_replicas(stack(web=container(networks=("back",))), web=2))
    bench.apply(with_replicas(stack(web=container(networks=("back",))), web=1))
    assert held_by(bench, key(2, "web")) == set()


def test_a_scale_up_that_fails_loses_no_address(bench: Bench) -> None:
    bench.apply(db(2))
    first = belongings(bench)
    bench.apply(db(1))
    bench.machine.fail_next("start", key(2))
    assert bench.apply(db(2)).failed == (key(2),)
    assert held_by(bench, key(2)) == {"address", "mac", "reserved"}
    assert bench.apply(db(2)).failed == ()
    assert belongings(bench) == first
    assert "reserved" not in held_by(bench, key(2))


def test_killed_while_it_scales_down_loses_no_address(bench: Bench) -> None:
    """Its container is gone and nobody wrote so: the next apply does."""
    bench.apply(db(2))
    first = belongings(bench)
    made = bench.records()[key(2)]
    from reconciler.converge.view import made_of
    from reconciler.model.record import Intent

    with bench.store.write() as tx:
        tx.put_intent(
            Intent(key=key(2), stack="blog", verb="delete", apply=bench.ground.apply, begun_at=0.0, old=made_of(made))
        )
    bench.machine.containers.pop(made.incarnation)
    bench.apply(db(1))
    assert held_by(bench, key(2)) == {"address", "mac", "reserved"}
    bench.apply(db(2))
    assert belongings(bench) == first


def test_bad_version_stops_at_the_first_replica(bench: Bench) -> None:
    wanted = with_replicas(stack(web=container()), web=3)
    bench.apply(wanted)
    pids = bench.pids()
    bench.publish("bad", "sha256:" + "b" * 64, exits=3)
    result = bench.apply(with_replicas(stack(web=container(image="bad")), web=3))
    assert (result.failed, result.skipped) == ((key(1, "web"),), (key(2, "web"), key(3, "web")))
    assert {each: pid for each, pid in bench.pids().items() if each != key(1, "web")} == {
        each: pid for each, pid in pids.items() if each != key(1, "web")
    }
    assert key(1, "web") in bench.pids()


@pytest.mark.parametrize("wait", [True, False])
def test_never_more_than_one_replica_is_down_while_they_are_replaced(bench: Bench, wait: bool) -> None:
    """Also with --no-wait: whoever comes after another replica waits until that one is seen."""
    bench.apply(with_replicas(stack(web=container()), web=4))
    assert fewest_running(bench, with_replicas(stack(web=container(command=("b",))), web=4), wait=wait) == 3


@pytest.mark.parametrize("parallel", [1, 2])
def test_as_many_are_down_as_the_manifest_says_and_none_where_they_start_first(bench: Bench, parallel: int) -> None:
    for order, fewest in (("stop-first", 4 - parallel), ("start-first", 4)):
        update = Update(order=order, parallel=parallel)
        bench.apply(with_replicas(stack(web=container(update=update)), web=4))
        assert fewest_running(bench, with_replicas(stack(web=container(command=(order,), update=update)), web=4)) >= fewest


def fewest_running(bench: Bench, wanted: Stack, *, wait: bool = True) -> int:
    """How many keys had a running container at the worst moment of an apply."""
    found: list[int] = []
    called = bench.machine.called

    def counting(verb: str, each: Key) -> None:
        with bench.machine.lock:
            found.append(
                len({thing.made.key for thing in bench.machine.containers.values() if thing.phase is Phase.RUNNING})
            )
        called(verb, each)

    bench.machine.called = counting  # type: ignore[method-assign]
    assert bench.apply(wanted, wait=wait).failed == ()
    bench.machine.called = called  # type: ignore[method-assign]
    return min(found)


def dependant(condition: str, count: int, **web: object) -> Stack:
    """`api` comes after all replicas of `web`."""
    check = Healthcheck(test=("CMD", "true")) if condition == "healthy" else None
    api = container(depends_on={"web": Dependency(condition=condition)}, **web)
    return with_replicas(stack(web=container(healthcheck=check), api=api), web=count)


@pytest.mark.parametrize("condition", ["started", "healthy"])
def test_dependant_is_gated_by_every_replica_that_no_action_starts(bench: Bench, condition: str) -> None:
    bench.apply(dependant(condition, 3))
    with bench.store.write() as tx:
        tx.set_hold(key(2, "web"), Hold(kind="stop", who="ann", when=0.0))
    assert bench.apply(dependant(condition, 3, command=("b",))).failed == (container_key("blog", "api"),)
    assert "container/blog/web/2" in bench.failures()[-1].brief
    assert len(bench.failures()) == 1


def test_dependant_waits_for_no_replica_where_there_is_none(bench: Bench) -> None:
    assert bench.apply(dependant("healthy", 0)).failed == ()
    assert set(bench.pids()) == {container_key("blog", "api")}


def test_unhealthy_replica_keeps_the_dependant_down(bench: Bench) -> None:
    bench.machine.fail_next("start", key(3, "web"))
    result = bench.apply(dependant("healthy", 3))
    assert (result.failed, result.skipped) == ((key(3, "web"),), (container_key("blog", "api"),))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from("ab")), min_size=2, max_size=5))
@pytest.mark.timeout(300)
def test_however_it_is_scaled_each_keeps_its_own_and_nothing_is_given_twice(steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = Bench(store=open_store(Path(folder) / "root", create=True), machine=Machine())
        bench.publish("app", "sha256:" + "a" * 64)
        known: dict[int, object] = {}
        for count, command in steps:
            before = bench.pids()
            wanted = db(count, command=(command,))
            same = all(spec == record.spec for each, spec in wanted.specs.items() if (record := bench.records().get(each)))
            assert bench.apply(wanted).failed == ()
            assert bench.plan(wanted).actions == ()
            found = belongings(bench)
            assert set(found) == set(range(1, count + 1))
            for index, things in found.items():
                assert known.setdefault(index, things) == things
            if same:
                assert {each: pid for each, pid in bench.pids().items() if each in before} == {
                    each: pid for each, pid in before.items() if each in wanted.specs
                }
            addresses = [record.grants.endpoints.values() for record in bench.records().values()]
            flat = [(place.address, place.mac) for places in addresses for place in places]
            assert len({mac for _, mac in flat}) == len(flat)
        everything = [each for each in bench.records() if kind_of(each) is Kind.VOLUME]
        assert bench.delete("blog", *everything).failed == ()
        with bench.store.read() as tx:
            assert [tx.grants_in(pool) for pool in ("address", "mac", "reserved", "volume")] == [[], [], [], []]
        bench.store.close()
