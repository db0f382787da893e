"""Whole applies on the memory engine: what is on the machine and on record afterwards, whatever went wrong."""

import threading
from collections.abc import Sequence
from unittest import mock

import msgspec
import pytest
from converge_bench import Bench, die_after

from plan.builders import APP, container, stack, volume_at
from reconciler.converge.grants import find_uses
from reconciler.converge.view import made_of
from reconciler.converge.waits import Verdict, Watchlist
from reconciler.model.errors import Failed, Refused
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.observation import Phase, missing
from reconciler.model.plan import Effect
from reconciler.model.record import Grants, Hold, Intent, Made, StackRecord, View
from reconciler.model.spec import Dependency, Healthcheck, VolumeSpec

WEB = container_key("blog", "web")
CACHE = container_key("blog", "cache")
OTHER = container_key("blog", "other")
FRONT = make_key(Kind.NETWORK, "blog", "front")
DATA = make_key(Kind.VOLUME, "blog", "data")


def blog(**web: object):
    fields = {"networks": ("front",), "ports": {"0.0.0.0:8080/tcp": 80}, "depends_on": {"cache": "started"}} | web
    return stack(web=container(**fields), cache=container(networks=("front",), mounts=volume_at("/data", "data")))


def test_what_is_applied_runs_and_leaves_an_empty_plan(bench: Bench) -> None:
    result = bench.apply(blog())
    assert result.failed == ()
    assert set(bench.pids()) == {WEB, CACHE}
    assert bench.machine.open_ports == {"0.0.0.0:8080/tcp": WEB}
    assert bench.lines(blog()) == ["nothing to do"]
    assert bench.fold().intents == ()


def test_what_is_new_is_made_while_its_name_is_loaded_and_runs_only_then(bench: Bench) -> None:
    made, named, load = threading.Event(), threading.Event(), bench.engine.settle_names
    ran_nameless = []

    def settle_names(view: View) -> None:
        if WEB in {one.key for one in view.made}:
            assert made.wait(10), "nothing is made before its name is loaded"
            assert bench.pids() == {}
            named.set()
        load(view)

    def called(verb: str, key: Key) -> None:
        if verb == "create":
            made.set()
        if verb == "start" and not named.is_set():
            ran_nameless.append(key)

    with mock.patch.object(bench.engine, "settle_names", settle_names), mock.patch.object(bench.machine, "called", called):
        assert bench.apply(stack(web=container(networks=("front",)))).failed == ()
    assert named.is_set()
    assert ran_nameless == []
    assert set(bench.pids()) == {WEB}


def test_what_was_made_for_a_name_that_can_not_be_loaded_goes_again(bench: Bench) -> None:
    def refuse(view: View) -> None:
        if WEB in {one.key for one in view.made}:
            raise Failed("names: load them into aardvark-dns: it hangs")

    wanted = stack(web=container(networks=("front",)))
    with mock.patch.object(bench.engine, "settle_names", refuse), pytest.raises(Failed, match="it hangs"):
        bench.apply(wanted)
    assert bench.machine.containers == {}
    assert bench.apply(wanted).failed == ()
    assert set(bench.pids()) == {WEB}
    assert bench.lines(wanted) == ["nothing to do"]


def test_names_are_loaded_while_all_workers_are_at_pulls(bench: Bench) -> None:
    """The root's lock is held until they are."""
    named, load, in_time = threading.Event(), bench.engine.settle_names, []

    def settle_names(view: View) -> None:
        named.set()
        load(view)

    def called(verb: str, key: Key) -> None:
        if (verb, key) == ("create", APP):
            in_time.append(named.wait(10))

    wanted = stack(web=container(networks=("front",)))
    bench.own(wanted)
    with mock.patch.object(bench.engine, "settle_names", settle_names), mock.patch.object(bench.machine, "called", called):
        assert bench.run(bench.plan(wanted), workers=1).failed == ()
    assert in_time == [True]


@pytest.mark.timeout(60)
def test_ctrl_c_that_comes_with_an_outcome_loses_none(bench: Bench) -> None:
    """It would be waited for without end."""
    poll, interrupts = Watchlist.poll, [KeyboardInterrupt]

    def interrupted(watchlist: Watchlist) -> Sequence[Verdict]:
        if interrupts:
            raise interrupts.pop()
        return poll(watchlist)

    wanted = stack(web=container(networks=("front",)))
    with mock.patch.object(Watchlist, "poll", interrupted):
        result = bench.apply(wanted)
    assert (set(result.done), result.skipped, result.interrupted) == ({APP, FRONT}, (WEB,), True)
    assert bench.fold().intents == ()
    assert bench.apply(wanted).failed == ()
    assert set(bench.pids()) == {WEB}


def local(bench: Bench) -> None:
    """Its image is here from now on."""
    bench.machine.content |= {one.digest: one for one in bench.machine.registry.values()}


def test_new_container_is_made_beside_its_new_network(bench: Bench) -> None:
    local(bench)
    calls: list[tuple[str, Key]] = []
    wanted = stack(web=container(networks=("front",), ports={"0.0.0.0:8080/tcp": 80}))
    with mock.patch.object(bench.machine, "called", lambda verb, key: calls.append((verb, key))):
        assert bench.apply(wanted).failed == ()
    assert calls.count(("premake", WEB)) == 1
    assert calls.count(("settle", Key("machine"))) == 2
    assert set(bench.pids()) == {WEB}
    assert bench.lines(wanted) == ["nothing to do"]


def test_who_can_not_be_made_before_its_turn_is_not(bench: Bench) -> None:
    """An image to be pulled, parameters of the network, something else that it waits for, and too many of them."""
    made: list[Key] = []
    bench.apply(stack(web=container(networks=("front",))))
    bench.delete("blog")
    local(bench)
    waits = {"depends_on": {"cache": "started"}}
    many = {f"c{number}": container(networks=("front",)) for number in range(9)}
    wishes = [
        stack(web=container(networks=("front",), sysctls={"net.ipv4.conf.eth0.forwarding": "1"})),
        stack(web=container(networks=("front",), mounts=volume_at("/data", "data"))),
        stack(web=container(networks=("front",), **waits), cache=container(networks=("front",), sysctls={"a": "b"})),
        stack(**many),
    ]
    called = bench.machine.called
    for wanted in wishes:
        with mock.patch.object(
            bench.machine,
            "called",
            lambda verb, key: made.append(key) if verb == "premake" else called(verb, key),
        ):
            assert bench.apply(wanted).failed == ()
        bench.delete("blog", *(key for key in bench.records() if key == DATA))
    bench.machine.content.clear()
    with mock.patch.object(bench.machine, "called", lambda verb, key: made.append(key) if verb == "premake" else None):
        assert bench.apply(stack(web=container(networks=("front",)))).failed == ()
    assert made == []


def test_what_was_made_beside_a_network_that_could_not_be_is_taken_back(bench: Bench) -> None:
    local(bench)
    wanted = stack(web=container(networks=("front",), ports={"0.0.0.0:8080/tcp": 80}))
    bench.machine.fail_next("create", FRONT, "no bridge")
    result = bench.apply(wanted)
    assert (result.failed, result.skipped) == ((FRONT,), (WEB,))
    assert bench.machine.containers == {}
    assert bench.machine.open_ports == {}
    assert bench.fold().intents == ()
    with bench.store.read() as tx:
        assert list(tx.grants_of(WEB)) == []
    assert bench.apply(wanted).failed == ()
    assert set(bench.pids()) == {WEB}


def test_what_was_made_beside_a_network_goes_where_the_apply_ends_with_an_error(bench: Bench) -> None:
    local(bench)
    wanted = stack(web=container(networks=("front",)))
    made = threading.Event()

    def settle(view: View, *, names: bool) -> None:
        assert made.wait(10)
        raise Failed("firewall: nft is gone")

    with (
        mock.patch.object(bench.machine, "called", lambda verb, _: made.set() if verb == "premake" else None),
        mock.patch.object(bench.engine, "settle", settle),
        pytest.raises(Failed, match="nft is gone"),
    ):
        bench.apply(wanted)
    assert bench.machine.containers == {}
    assert bench.apply(wanted).failed == ()
    assert set(bench.pids()) == {WEB}


def test_x1_death_anywhere_while_a_container_is_made_beside_its_network(bench: Bench) -> None:
    local(bench)
    wanted = stack(web=container(networks=("front",), ports={"0.0.0.0:8080/tcp": 80}), cache=container(networks=("front",)))
    deaths = 0
    while die_after(bench, wanted, deaths):
        assert bench.apply(wanted).failed == (), deaths
        assert set(bench.pids()) == {CACHE, WEB}, deaths
        assert len(bench.machine.containers) == 2, deaths
        assert bench.lines(wanted) == ["nothing to do"], deaths
        bench.delete("blog")
        assert bench.machine.containers == {}
        deaths += 1
    assert deaths > 8


def test_changed_command_replaces_only_its_container_and_keeps_its_address(bench: Bench) -> None:
    bench.apply(blog())
    before, pids = bench.records(), bench.pids()
    bench.apply(blog(command=("b",)))
    after = bench.records()
    assert bench.pids()[CACHE] == pids[CACHE]
    assert bench.pids()[WEB] != pids[WEB]
    assert after[WEB].incarnation != before[WEB].incarnation
    old, new = before[WEB].grants.endpoints["front"], after[WEB].grants.endpoints["front"]
    assert (new.address, new.mac) == (old.address, old.mac)
    assert new.link != old.link
    assert len(bench.machine.containers) == 2


def test_replacement_that_does_not_start_leaves_the_old_one_running(bench: Bench) -> None:
    bench.apply(blog())
    before = bench.records()[WEB]
    bench.machine.fail_next("start", WEB, "exec: no such file")
    result = bench.apply(blog(command=("b",)))
    assert result.failed == (WEB,)
    assert bench.records()[WEB].incarnation == before.incarnation
    assert bench.machine.containers[before.incarnation].phase is Phase.RUNNING
    assert len(bench.machine.containers) == 2
    assert "the old one runs again" in bench.failures()[0].detail


def test_x4_replacement_is_younger_than_what_it_replaces_also_where_the_clock_was_set_back(bench: Bench) -> None:
    bench.machine.now = 100_000.0
    bench.apply(blog())
    before = bench.records()[WEB]
    bench.machine.now = 5_000.0
    bench.apply(blog(command=("b",)))
    after = bench.records()[WEB]
    assert after.incarnation != before.incarnation
    assert after.created_at > before.created_at


def test_replacement_that_ends_at_once_is_undone(bench: Bench) -> None:
    bench.apply(blog())
    before = bench.records()[WEB]
    bench.publish("bad", "sha256:" + "b" * 64, exits=3)
    result = bench.apply(blog(image="bad"))
    assert result.failed == (WEB,)
    assert bench.records()[WEB].incarnation == before.incarnation
    assert bench.pids().keys() == {WEB, CACHE}
    assert "ended with 3" in bench.failures()[0].brief
    # Its last lines were read while it was there.
    assert bench.failures()[0].detail == "made container/blog/web/1\nthe old one runs again"
    assert bench.fold().intents == ()


def test_failed_create_leaves_nothing_and_skips_what_depends_on_it(bench: Bench) -> None:
    bench.machine.fail_next("start", CACHE)
    result = bench.apply(blog())
    assert result.failed == (CACHE,)
    assert result.skipped == (WEB,)
    assert CACHE not in bench.records()
    assert bench.machine.containers == {}
    with bench.store.read() as tx:
        assert tx.grants_of(CACHE) == []
    assert bench.apply(blog()).failed == ()


def test_container_waits_for_the_health_of_what_it_depends_on(bench: Bench) -> None:
    check = Healthcheck(test=("CMD", "true"), interval=1.0, retries=2)
    wanted = stack(
        web=container(depends_on={"cache": "healthy"}),
        cache=container(healthcheck=check),
    )
    bench.publish("app", "sha256:" + "a" * 64, healthy=False)
    result = bench.apply(wanted)
    assert result.failed == (CACHE,)
    assert result.skipped == (WEB,)
    assert "unhealthy after 2 tries: made unhealthy" in bench.failures()[0].brief


def test_another_health_check_in_place_is_waited_for_and_fails_where_it_says_so(bench: Bench) -> None:
    check = Healthcheck(test=("CMD", "true"), interval=1.0, retries=2)
    bench.apply(stack(cache=container(healthcheck=check)))
    pid = bench.pids()[CACHE]
    bench.machine.content["sha256:" + "a" * 64].healthy = False
    other = msgspec.structs.replace(check, test=("CMD", "other"))
    assert bench.apply(stack(cache=container(healthcheck=other))).failed == (CACHE,)
    assert "unhealthy after 2 tries" in bench.failures()[0].brief
    assert bench.pids()[CACHE] == pid
    labelled = container(healthcheck=other, labels={"a": "b"})
    assert bench.apply(stack(cache=labelled)).failed == ()
    assert bench.apply(stack(cache=container(labels={"a": "b"}))).failed == ()


def test_without_wait_health_is_still_waited_for_where_something_depends_on_it(bench: Bench) -> None:
    check = Healthcheck(test=("CMD", "true"), interval=1.0)
    wanted = stack(web=container(depends_on={"cache": "healthy"}), cache=container(healthcheck=check))
    assert bench.apply(wanted, wait=False).failed == ()
    calls = [call for call in bench.machine.calls if call.startswith(("start", "prepare"))]
    assert calls == [f"prepare {CACHE}", f"start {CACHE}", f"prepare {WEB}", f"start {WEB}"]


def test_dependency_that_runs_already_is_probed_before_its_dependant_starts(bench: Bench) -> None:
    check = Healthcheck(test=("CMD", "true"), interval=1.0, retries=1)
    cache = container(healthcheck=check)
    bench.apply(stack(cache=cache))
    bench.machine.content["sha256:" + "a" * 64].healthy = False
    result = bench.apply(stack(cache=cache, web=container(depends_on={"cache": "healthy"})))
    assert result.failed == (WEB,)
    assert "container/blog/cache/1 is not healthy" in bench.failures()[-1].brief


def test_drifted_parts_are_mended_with_the_same_pid(bench: Bench) -> None:
    bench.apply(blog())
    pids = bench.pids()
    bench.machine.drift(WEB, "link/front", missing())
    bench.machine.open_ports.clear()
    plan = bench.plan(blog())
    assert [(action.verb.value, action.reason.value) for action in plan.actions] == [("update", "drifted")]
    bench.run(plan)
    assert bench.pids() == pids
    assert bench.machine.open_ports == {"0.0.0.0:8080/tcp": WEB}
    assert bench.lines(blog()) == ["nothing to do"]


def test_network_is_replaced_with_its_containers_and_comes_back_when_it_cannot_be_made(bench: Bench) -> None:
    from reconciler.model.spec import NetworkSpec

    first = blog()
    other = stack(
        networks={"front": NetworkSpec(subnet="10.99.0.0/24")},
        web=container(networks=("front",)),
    )
    bench.apply(first)
    link = bench.records()[FRONT].grants.link
    bench.machine.fail_next("create", FRONT)
    result = bench.apply(other)
    assert FRONT in result.failed
    assert bench.records()[FRONT].grants.link == link
    assert WEB in bench.pids()
    assert bench.apply(other).failed == ()
    assert bench.records()[FRONT].grants.subnet == "10.99.0.0/24"
    assert bench.records()[WEB].grants.endpoints["front"].address.startswith("10.99.0.")
    assert bench.lines(other) == [*bench.lines(other)[:-1], "nothing to do"]


def test_held_container_stays_down_over_applies_until_resumed(bench: Bench) -> None:
    bench.apply(blog())
    made = bench.records()[WEB]
    with bench.store.write() as tx:
        tx.set_hold(WEB, Hold(kind="stop", who="me", when=bench.machine.now))
    bench.machine.containers[made.incarnation].phase = Phase.EXITED
    bench.apply(blog(command=("b",)))
    assert WEB not in [thing.made.key for thing in bench.machine.containers.values() if thing.phase is Phase.RUNNING]
    bench.apply(blog(command=("b",)), resume_holds=True)
    assert bench.records()[WEB].hold is None
    assert bench.machine.find(WEB)[0].phase is Phase.RUNNING


def test_delete_keeps_volumes_unless_they_are_named(bench: Bench) -> None:
    bench.apply(blog())
    volume = next(iter(bench.machine.volumes.values()))
    volume.data["row"] = b"1"
    bench.delete("blog")
    assert set(bench.records()) == {DATA}
    assert bench.machine.containers == bench.machine.networks == bench.machine.open_ports == {}
    bench.apply(blog())
    assert next(iter(bench.machine.volumes.values())).data == {"row": b"1"}
    bench.delete("blog", DATA)
    assert bench.machine.volumes == {}
    with bench.store.read() as tx:
        assert all(tx.grants_in(pool) == [] for pool in ("address", "link", "mac", "port", "subnet", "volume"))


def test_swapped_ports_are_handed_over(bench: Bench) -> None:
    def pair(one: str, two: str):
        return stack(web=container(ports={f"0.0.0.0:{one}/tcp": 80}), cache=container(ports={f"0.0.0.0:{two}/tcp": 80}))

    bench.apply(pair("80", "81"))
    assert bench.apply(pair("81", "80")).failed == ()
    assert bench.machine.open_ports == {"0.0.0.0:81/tcp": WEB, "0.0.0.0:80/tcp": CACHE}


def test_sensitive_values_are_in_no_event(bench: Bench) -> None:
    from reconciler.model.spec import Sensitive

    bench.machine.fail_next("start", WEB)
    bench.apply(stack(web=container(env={"TOKEN": Sensitive("hunter2")})))
    assert "hunter2" not in repr(bench.events)
    assert b"hunter2" not in b"".join(msgspec.json.encode(event) for event in bench.events)


def test_port_goes_to_a_dependant_only_once_the_one_who_gave_it_up_is_replaced(bench: Bench) -> None:
    before = stack(cache=container(ports={"0.0.0.0:82/tcp": 80}))
    after = stack(
        cache=container(command=("b",), ports={"0.0.0.0:81/tcp": 80}),
        db=container(ports={"0.0.0.0:82/tcp": 80}, depends_on={"cache": "started"}),
    )
    bench.apply(before)
    assert bench.apply(after).failed == ()
    assert bench.machine.open_ports == {"0.0.0.0:81/tcp": CACHE, "0.0.0.0:82/tcp": container_key("blog", "db")}


STORE = make_key(Kind.VOLUME, "blog", "store")


def moved():
    wanted = stack(cache=container(mounts=volume_at("/data", "store")), volumes={"store": VolumeSpec(moved="data")})
    return wanted


def filled(bench: Bench) -> str:
    """A container with a volume that has data; the id of its folder."""
    bench.apply(stack(cache=container(mounts=volume_at("/data", "data"))))
    (volume_id,) = bench.machine.volumes
    bench.machine.volumes[volume_id].data["row"] = b"1"
    return volume_id


def test_moved_volume_keeps_its_folder_its_age_and_its_data(bench: Bench) -> None:
    volume_id = filled(bench)
    before = bench.records()[DATA]
    assert bench.apply(moved()).failed == ()
    after = bench.records()
    assert DATA not in after
    assert after[STORE].grants == before.grants
    assert after[STORE].created_at == before.created_at
    assert {name: thing.data for name, thing in bench.machine.volumes.items()} == {volume_id: {"row": b"1"}}
    assert bench.lines(moved()) == ["nothing to do"]
    with bench.store.read() as tx:
        assert [(grant.value, grant.owner) for grant in tx.grants_in("volume")] == [(volume_id, STORE)]


@pytest.mark.parametrize("call", [f"update {STORE}", f"prepare {CACHE}", f"stop {CACHE}", f"start {CACHE}"])
def test_move_that_fails_half_way_is_gone_on_with(bench: Bench, call: str) -> None:
    volume_id = filled(bench)
    verb, _, key = call.partition(" ")
    bench.machine.fail_next(verb, Key(key))
    assert bench.apply(moved()).failed
    assert bench.machine.volumes[volume_id].data == {"row": b"1"}
    assert bench.apply(moved()).failed == ()
    assert bench.machine.volumes[volume_id].data == {"row": b"1"}
    assert len(bench.machine.volumes) == 1
    assert bench.lines(moved()) == ["nothing to do"]


def test_container_that_a_failed_apply_left_mounts_the_volume_by_its_new_name(bench: Bench) -> None:
    """Its restart must find the folder, and the former manifest must not give it an empty one of the former name."""
    filled(bench)
    bench.machine.fail_next("start", CACHE)
    bench.apply(moved())
    made = bench.records()[CACHE]
    assert find_uses(bench.records(), made_of(made))[STORE].key == STORE
    former = stack(cache=container(mounts=volume_at("/data", "data")))
    with pytest.raises(Refused, match="out of sight") as refused:
        bench.apply(former)
    assert "moved: {from: store}" in refused.value.hint
    assert DATA not in bench.records()


def test_container_recovered_under_the_former_name_finds_the_folder(bench: Bench) -> None:
    """What a container says of itself may be older than the move."""
    filled(bench)
    made = made_of(bench.records()[CACHE])
    bench.apply(moved())
    assert find_uses(bench.records(), made)[DATA].key == STORE


def test_new_volume_that_was_never_made_is_no_loss(bench: Bench) -> None:
    wanted = stack(cache=container(mounts=volume_at("/data", "data")))
    record = {"key": DATA, "stack": "blog", "verb": "create", "apply": bench.ground.apply, "begun_at": 1.0}
    with bench.store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="x"))
        tx.put_intents([Intent(**record, new=Made(key=DATA, spec=VolumeSpec(), grants=Grants(volume_id="a" * 16)))])
    assert bench.apply(wanted).failed == ()


def test_x1_going_back_after_a_reboot_and_a_death_anywhere_gives_the_former_ones(bench: Bench) -> None:
    """What an apply that died made of a changed manifest is on record as it was made; and nothing stays granted."""
    former = stack(web=container(ports={"0.0.0.0:8080/tcp": 80}), cache=container())
    changed = stack(web=container(ports={"0.0.0.0:8090/tcp": 80}, command=("new",)), cache=container(command=("new",)))
    bench.apply(former)
    deaths = 0
    bench.machine.reboot()
    while die_after(bench, changed, deaths):
        bench.apply(former)
        made = {thing.made.key: thing.made.spec for thing in bench.machine.containers.values()}
        assert made == {key: former.specs[key] for key in (CACHE, WEB)}, deaths
        with bench.store.read() as tx:
            assert {grant.scope for grant in tx.grants_of(WEB) if grant.pool == "port"} == {"8080/tcp"}, deaths
        assert bench.lines(former) == ["nothing to do"], deaths
        deaths += 1
        bench.machine.reboot()
    assert deaths > 3


def lose(bench: Bench, key: Key) -> None:
    bench.machine.vanish(key)


def lose_its_monitor(bench: Bench, key: Key) -> None:
    bench.machine.drift(key, "monitor", missing(Effect.RESTART))


@pytest.mark.parametrize("cause", [lose, lose_its_monitor, None], ids=["made anew", "restarted", "replaced"])
def test_x1_restart_owed_to_who_follows_is_made_up_for_wherever_an_apply_died(bench: Bench, cause) -> None:
    follows = {"depends_on": {"cache": Dependency(condition="started", restart=True)}}
    deaths, died = 0, True
    while died:
        bench.apply(stack(web=container(**follows), cache=container(), other=container()))
        before = bench.pids()
        bench.machine.now += 10.0
        if cause is not None:
            cause(bench, CACHE)
        wanted = stack(web=container(**follows), cache=container(command=() if cause else ("b",)), other=container())
        died = die_after(bench, wanted, deaths)
        bench.machine.now += 10.0
        bench.apply(wanted)
        begun = {thing.made.key: thing.started_at for thing in bench.machine.containers.values()}
        assert begun[WEB] >= begun[CACHE], deaths
        assert bench.pids()[CACHE] != before[CACHE], deaths
        assert bench.pids()[OTHER] == before[OTHER], deaths
        assert bench.lines(wanted) == ["nothing to do"], deaths
        assert bench.fold().intents == (), deaths
        deaths += 1
    assert deaths > 5
