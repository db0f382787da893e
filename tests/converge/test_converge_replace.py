"""Replace, step by step, on the memory engine: which incarnation is there after each step failed, or was the last before a
kill. The table is docs/semantics.md's."""

from collections.abc import Sequence
from unittest import mock

import pytest
from converge_bench import Bench, Died, die_after

from plan.builders import container, stack
from reconciler.converge import waits
from reconciler.converge.resume import resume
from reconciler.converge.view import compose_view
from reconciler.model.errors import Failed
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.observation import Phase
from reconciler.model.record import Hold, Stack
from reconciler.model.spec import Healthcheck, Update

WEB = container_key("blog", "web")
FRONT = make_key(Kind.NETWORK, "blog", "front")
CHECK = Healthcheck(test=("CMD", "true"), interval=1.0, retries=2)
ORDERS = ("stop-first", "start-first")


def blog(order: str, command: str, image: str = "app", **fields: object) -> Stack:
    ports = {"0.0.0.0:8080/tcp": 80} if order == "stop-first" else {}
    web = {"ports": ports, "healthcheck": CHECK, "restart": "always", **fields}
    return stack(web=container(image, networks=("front",), command=(command,), update=Update(order=order), **web))


FAILURES: dict[tuple[str, str], tuple[str, str]] = {
    ("stop-first", "prepare"): ("old", "prepare failed"),
    ("stop-first", "create"): ("old", "the old one was not touched and runs"),
    ("stop-first", "stop the old one"): ("old", "the old one runs again"),
    ("stop-first", "start"): ("old", "the old one runs again"),
    ("stop-first", "ends at once"): ("old", "the old one runs again"),
    ("stop-first", "unhealthy"): ("old", "the old one runs again"),
    ("stop-first", "delete the old one"): ("new", "delete failed"),
    ("stop-first", "start, and delete of the new one"): ("old", "going back to the old one failed"),
    ("start-first", "prepare"): ("old", "prepare failed"),
    ("start-first", "start"): ("old", "the old one was not touched and runs"),
    ("start-first", "ends at once"): ("old", "the old one was not touched and runs"),
    ("start-first", "unhealthy"): ("old", "the old one was not touched and runs"),
    ("start-first", "delete the old one"): ("new", "delete failed"),
    ("start-first", "start, and delete of the new one"): ("old", "going back to the old one failed"),
}  # fmt: skip


def break_(bench: Bench, step: str) -> str:
    """Make a step fail; the image of the new version."""
    if step == "ends at once":
        bench.publish("bad", "sha256:" + "b" * 64, exits=3)
        return "bad"
    if step == "unhealthy":
        bench.publish("bad", "sha256:" + "b" * 64, healthy=False)
        return "bad"
    for verb in step.replace(",", "").split():
        if verb in ("prepare", "create", "stop", "start", "delete"):
            bench.machine.fail_next(verb, WEB)
    return "app"


@pytest.mark.parametrize(("order", "step"), FAILURES, ids=[" - ".join(cell) for cell in FAILURES])
def test_replace_of_which_a_step_fails(bench: Bench, order: str, step: str) -> None:
    stays, words = FAILURES[order, step]
    bench.apply(blog(order, "a"))
    old, pid = bench.records()[WEB], bench.pids()[WEB]
    image = break_(bench, step)
    result = bench.apply(blog(order, "b", image))
    assert result.failed == (WEB,)
    assert words in f"{bench.failures()[0].brief}\n{bench.failures()[0].detail}"
    now = bench.records()[WEB]
    assert (now.incarnation == old.incarnation) == (stays == "old")
    bench.engine.sweep(compose_view(bench.records(), []))
    assert_one(bench)
    if stays == "old" and (order == "start-first" or step == "create"):
        assert bench.pids()[WEB] == pid
    if order == "stop-first":
        assert now.grants.endpoints["front"].address == old.grants.endpoints["front"].address
    assert bench.apply(blog(order, "b")).failed == ()
    assert_one(bench)
    assert bench.lines(blog(order, "b")) == ["nothing to do"]


def assert_one(bench: Bench) -> None:
    """One incarnation: on record, running, with the names, the ports and nothing granted besides."""
    record = bench.records()[WEB]
    [thing] = bench.machine.containers.values()
    assert (thing.made.incarnation, thing.phase, thing.mark) == (record.incarnation, Phase.RUNNING, "")
    address = record.grants.endpoints["front"].address
    assert bench.machine.names[f"{FRONT} web"] == (address,)
    assert set(bench.machine.names.values()) == {(address,)}
    assert bench.machine.open_ports == dict.fromkeys(record.spec.ports, WEB)  # type: ignore[union-attr]
    with bench.store.read() as tx:
        held = {grant.value for grant in tx.grants_of(WEB)}
    endpoint = record.grants.endpoints["front"]
    assert held == {endpoint.address, endpoint.mac, endpoint.link} | {"0.0.0.0" for _ in record.spec.ports}  # type: ignore[union-attr]
    assert bench.fold().intents == ()


KILLS = {
    # the first call that is not made any more: which incarnation the next command finds to be the right one
    "stop-first": (
        "settle old",
        "prepare old",
        "create old",
        "stop old",
        "start old",
        "delete new",
        "settle new",
        "none new",
    ),
    "start-first": ("settle old", "prepare old", "start old", "settle new", "delete new", "settle new", "none new"),
}


def calls_of(bench: Bench, order: str) -> Sequence[str]:
    before = len(bench.machine.calls)
    bench.apply(blog(order, "b"))
    return [call.split()[0] for call in bench.machine.calls[before:]]


@pytest.mark.parametrize("order", ORDERS)
def test_calls_of_a_replace_are_those_of_the_table(bench: Bench, order: str) -> None:
    bench.apply(blog(order, "a"))
    assert [*calls_of(bench, order), "none"] == [cell.split()[0] for cell in KILLS[order]]


@pytest.mark.parametrize(("order", "number"), [(order, number) for order in ORDERS for number in range(len(KILLS[order]))])
def test_replace_that_is_killed_at_a_step(bench: Bench, order: str, number: int) -> None:
    bench.apply(blog(order, "a"))
    old = bench.records()[WEB].incarnation
    died = die_after(bench, blog(order, "b"), number)
    assert died == (number < len(KILLS[order]) - 1)
    stays = KILLS[order][number].split()[1]
    folded = bench.fold()
    resume(folded, bench.ground, bench.events.append)
    bench.engine.sweep(compose_view(bench.records(), []))
    [thing] = bench.machine.containers.values()
    assert (thing.made.incarnation == old, thing.phase) == (stays == "old", Phase.RUNNING)
    assert bench.records()[WEB].incarnation == thing.made.incarnation
    assert bench.apply(blog(order, "b")).failed == ()
    assert_one(bench)
    assert bench.records()[WEB].incarnation != old


@pytest.mark.parametrize(("order", "stays"), [("stop-first", "new"), ("start-first", "old")])
def test_replace_that_is_killed_while_the_new_one_is_not_seen_yet(bench: Bench, order: str, stays: str) -> None:
    bench.apply(blog(order, "a"))
    old, pid = bench.records()[WEB].incarnation, bench.pids()[WEB]
    with mock.patch.object(waits.Watchlist, "poll", side_effect=Died):
        assert die_after(bench, blog(order, "b"), 1000)
    resume(bench.fold(), bench.ground, bench.events.append)
    [thing] = bench.machine.containers.values()
    assert (thing.made.incarnation == old) == (stays == "old")
    assert (thing.pid == pid) == (stays == "old")
    assert_one(bench)


def test_start_first_that_was_killed_after_its_names_moved_keeps_the_new_one_though_it_ended(bench: Bench) -> None:
    bench.apply(blog("start-first", "a"))
    old = bench.records()[WEB].incarnation
    assert die_after(bench, blog("start-first", "b"), 4)
    [new] = [thing for name, thing in bench.machine.containers.items() if name != old]
    new.phase, new.pid, new.exit_code = Phase.EXITED, 0, 1
    resume(bench.fold(), bench.ground, bench.events.append)
    assert list(bench.machine.containers.values()) == [new]
    assert bench.records()[WEB].incarnation == new.made.incarnation


def test_start_first_names_move_when_the_new_one_is_seen_and_before_the_old_one_goes(bench: Bench) -> None:
    bench.apply(blog("start-first", "a"))
    old = bench.records()[WEB].grants.endpoints["front"]
    seen: list[tuple[str, tuple[str, ...], int]] = []
    called = bench.machine.called

    def watching(verb: str, key: object) -> None:
        called(verb, key)  # type: ignore[arg-type]
        if verb in ("start", "delete") and key == WEB:
            running = sum(thing.phase is Phase.RUNNING for thing in bench.machine.containers.values())
            seen.append((verb, bench.machine.names[f"{FRONT} web"], running))

    bench.machine.called = watching  # type: ignore[method-assign]
    assert bench.apply(blog("start-first", "b")).failed == ()
    new = bench.records()[WEB].grants.endpoints["front"]
    assert seen == [("start", (old.address,), 1), ("delete", (new.address,), 2)]
    assert (new.address, new.mac, new.link) != (old.address, old.mac, old.link)
    assert new.address != old.address
    assert new.mac != old.mac


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "no-wait"])
def test_start_first_is_waited_for_in_every_case(bench: Bench, wait: bool) -> None:
    bench.apply(blog("start-first", "a"))
    bench.publish("bad", "sha256:" + "b" * 64, healthy=False)
    old = bench.records()[WEB].incarnation
    assert bench.apply(blog("start-first", "b", "bad"), wait=wait).failed == (WEB,)
    assert bench.records()[WEB].incarnation == old


def test_no_wait_replaces_stop_first_without_looking(bench: Bench) -> None:
    bench.apply(blog("stop-first", "a"))
    bench.publish("bad", "sha256:" + "b" * 64, healthy=False)
    assert bench.apply(blog("stop-first", "b", "bad"), wait=False).failed == ()
    assert len(bench.machine.containers) == 1


def test_no_wait_replace_whose_old_one_cannot_be_removed_keeps_the_new_one(bench: Bench) -> None:
    bench.apply(blog("stop-first", "a"))
    bench.machine.fail_next("delete", WEB)
    assert bench.apply(blog("stop-first", "b"), wait=False).failed == (WEB,)
    bench.engine.sweep(compose_view(bench.records(), []))
    assert_one(bench)


def test_old_one_that_had_ended_and_rested_is_not_run_by_going_back(bench: Bench) -> None:
    bench.publish("once", "sha256:" + "c" * 64, exits=0)
    bench.apply(blog("stop-first", "a", "once", restart="no"))
    old = bench.records()[WEB]
    bench.machine.fail_next("start", WEB)
    assert bench.apply(blog("stop-first", "b", "once", restart="no")).failed == (WEB,)
    assert "the old one is as it was" in bench.failures()[0].detail
    [thing] = bench.machine.containers.values()
    assert (thing.made.incarnation, thing.phase, thing.mark) == (old.incarnation, Phase.EXITED, "")
    assert [call for call in bench.machine.calls if call == f"start {WEB}"] == [f"start {WEB}"] * 2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_stop_that_comes_while_it_is_replaced_is_obeyed(bench: Bench, order: str, ends: str) -> None:
    bench.apply(blog(order, "a"))
    bench.publish("bad", "sha256:" + "b" * 64, healthy=ends == "well")
    probe = bench.engine.inside.probe

    def stopping(made, *, timeout):
        with bench.store.write() as tx:
            if tx.record(WEB).hold is None:  # type: ignore[union-attr]
                tx.set_hold(WEB, Hold(kind="stop", who="me", when=1.0))
                bench.engine.containers.stop(
                    bench.machine.containers[tx.record(WEB).incarnation].made,  # type: ignore[union-attr]
                    mark="hold", apply=bench.ground.apply,
                )  # fmt: skip
        return probe(made, timeout=timeout)

    bench.engine.inside.probe = stopping  # type: ignore[method-assign]
    bench.apply(blog(order, "b", "bad"))
    [thing] = bench.machine.containers.values()
    assert (thing.phase, thing.mark) == (Phase.EXITED, "hold")
    assert bench.records()[WEB].hold is not None
    assert bench.machine.names == {}


def test_interrupted_start_first_leaves_the_old_one(bench: Bench) -> None:
    bench.apply(blog("start-first", "a"))
    old = bench.records()[WEB].incarnation
    poll, interrupts = waits.Watchlist.poll, [KeyboardInterrupt]

    def interrupted(self):
        if self.watches and interrupts:
            raise interrupts.pop()
        return poll(self)

    with mock.patch.object(waits.Watchlist, "poll", interrupted):
        result = bench.apply(blog("start-first", "b"))
    assert (result.failed, result.interrupted) == ((WEB,), True)
    assert bench.records()[WEB].incarnation == old
    assert_one(bench)


def test_start_first_over_an_image_with_a_volume_is_refused_before_anything_changes(bench: Bench) -> None:
    bench.publish("db", "sha256:" + "d" * 64, volumes=("/data",))
    with pytest.raises(Failed, match="would both write the volume web-1@/data"):
        bench.plan(blog("start-first", "a", "db"))


def test_start_first_takes_the_usual_way_where_the_network_is_replaced(bench: Bench) -> None:
    from reconciler.model.spec import NetworkSpec

    bench.apply(blog("start-first", "a"))
    web = container(networks=("front",), command=("b",), update=Update(order="start-first"))
    other = stack(networks={"front": NetworkSpec(subnet="10.99.0.0/24")}, web=web)
    assert {action.order for action in bench.plan(other).actions} == {""}
    assert bench.apply(other).failed == ()
    assert_one(bench)
