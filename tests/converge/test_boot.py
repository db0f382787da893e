"""The plan of a boot, as text and as it is run on the memory engine."""

import pytest
from converge_bench import Bench

from plan.builders import container, stack, volume_at
from reconciler.converge.run import converge
from reconciler.converge.terms import Options
from reconciler.converge.view import compose_view
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.observation import Phase, missing
from reconciler.model.record import Hold
from reconciler.plan.boot import find_lost_data, make_boot_plan
from reconciler.plan.explain import render_plan

WEB = container_key("blog", "web")
CACHE = container_key("blog", "cache")
FRONT = make_key(Kind.NETWORK, "blog", "front")
DATA = make_key(Kind.VOLUME, "blog", "data")


def blog(**web: object):
    fields = {"networks": ("front",), "ports": {"0.0.0.0:8080/tcp": 80}, "depends_on": {"cache": "started"}} | web
    return stack(web=container(**fields), cache=container(networks=("front",), mounts=volume_at("/data", "data")))


def boot_plan(bench: Bench):
    with bench.store.read() as tx:
        stacks = tx.stacks()
    records = bench.fold().records
    seen = bench.engine.observe(compose_view(records, []))
    return make_boot_plan(stacks=stacks, records=records, observation=seen, now=bench.machine.now)


def boot(bench: Bench, **options: object):
    return converge(boot_plan(bench), bench.ground, Options(timeout=60.0, **options), bench.events.append)  # type: ignore[arg-type]


def test_plan_of_a_boot_makes_everything_again_in_order(bench: Bench) -> None:
    bench.apply(blog())
    before = {key: record.grants for key, record in bench.records().items()}
    bench.machine.reboot()
    assert [line.rstrip() for line in render_plan(boot_plan(bench))] == [
        "  1 create   network/blog/front                 because it is gone from the machine",
        "  2 create   container/blog/cache/1  after 1    because it is gone from the machine",
        "  3 create   container/blog/web/1    after 1,2  because it is gone from the machine",
        "      opens 0.0.0.0:8080/tcp -> web:80",
        "3 actions: 3 create",
    ]
    assert boot(bench).failed == ()
    assert {key: record.grants for key, record in bench.records().items()} == before
    assert bench.pids().keys() == {WEB, CACHE}
    assert boot_plan(bench).actions == ()


@pytest.mark.parametrize(
    ("policy", "code", "runs"),
    [
        ("always", 0, True),
        ("always", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("no", 0, False),
        ("no", 1, False),
    ],
)
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "cut short"])
@pytest.mark.parametrize("held", [False, True], ids=["free", "held"])
def test_what_runs_after_a_boot(bench: Bench, policy: str, code: int, runs: bool, ended: bool, held: bool) -> None:
    bench.apply(blog(restart=policy))
    if ended:
        bench.machine.exit(WEB, code)
    if held:
        with bench.store.write() as tx:
            tx.set_hold(WEB, Hold(kind="stop", who="anna", when=1.0))
    bench.machine.reboot()
    boot(bench)
    assert (WEB in bench.pids()) == (not held and (runs or not ended))
    assert CACHE in bench.pids()


def test_failed_start_after_a_reboot_leaves_the_container_prepared(bench: Bench) -> None:
    bench.apply(blog())
    bench.machine.reboot()
    bench.machine.fail_next("start", CACHE)
    result = boot(bench)
    assert (result.failed, result.skipped) == ((CACHE,), (WEB,))
    assert f"delete {CACHE}" not in bench.machine.calls
    assert bench.machine.find(CACHE)[0].phase is Phase.CREATED
    assert boot(bench).failed == ()


def test_volume_without_its_data_stops_only_who_needs_it(bench: Bench) -> None:
    bench.apply(blog(depends_on={}))
    bench.machine.reboot()
    bench.machine.vanish(DATA)
    assert "it is not made anew by itself" in "".join(render_plan(boot_plan(bench)))
    lost = find_lost_data(boot_plan(bench), bench.records())
    assert lost.keys() == {DATA}
    assert f"--accept-data-loss {DATA}" in lost[DATA].hint
    result = boot(bench, refused=lost)
    assert (result.failed, result.skipped) == ((DATA,), (CACHE,))
    assert bench.pids().keys() == {WEB}
    assert bench.machine.volumes == {}
    assert find_lost_data(boot_plan(bench), bench.records(), accepted=[DATA]) == {}


def test_boot_mends_around_what_runs_and_never_restarts_it(bench: Bench) -> None:
    bench.apply(blog())
    pids = bench.pids()
    bench.machine.drift(WEB, "monitor", missing("restart"))
    assert boot_plan(bench).actions == ()
    bench.machine.drift(WEB, "names", missing())
    boot(bench)
    assert bench.pids() == pids
    assert f"update {WEB}" in bench.machine.calls


def test_replace_that_a_reboot_cut_short_comes_back_as_the_old_one(bench: Bench) -> None:
    bench.apply(blog())
    before = bench.records()[WEB]
    bench.machine.fail_next("start", WEB, "power cut")
    plan = bench.plan(blog(command=("b",)))
    with bench.store.write() as tx:
        from reconciler.converge.grants import take_job

        action = next(action for action in plan.actions if action.key == WEB)
        tx.put_intent(take_job(tx, action, plan, bench.records(), bench.ground).intent)
    bench.machine.reboot()
    folded = bench.fold()
    assert folded.revive == ()
    assert folded.records[WEB].incarnation == before.incarnation


def test_subnet_that_has_come_to_be_somebody_else_s_is_not_taken_again(bench: Bench) -> None:
    bench.apply(blog())
    bench.machine.reboot()
    bench.machine.routes.append(bench.records()[FRONT].grants.subnet)
    result = boot(bench)
    assert (result.failed, set(result.skipped)) == ((FRONT,), {WEB, CACHE})
    bench.machine.routes.clear()
    assert boot(bench).failed == ()
