"""What follows an end, cell by cell: how it ended x restart policy x hold x who looks. The exit command has had its say
(onexit/ is tested by itself): what is left is what a plan, a mending, a boot or a person finds."""

from collections.abc import Iterator

import pytest
from converge_bench import Bench

from plan.builders import container, stack
from reconciler.converge.view import compose_view
from reconciler.model.key import container_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Plan
from reconciler.model.record import Hold, Stack
from reconciler.plan.boot import make_boot_plan
from reconciler.plan.make import make_drift_plan

WEB = container_key("blog", "web")
NOT_HELD = """
policy        end           plan     drift    changed  resume   start    boot
always        exit-0        restart  restart  replace  restart  restart  create
always        exit-3        restart  restart  replace  restart  restart  create
always        killed        restart  restart  replace  restart  restart  create
always        oom           restart  restart  replace  restart  restart  create
always        start-failed  create   create   replace  create   create   create
always        running       -        -        replace  -        -        create
on-failure    exit-0        -        -        replace  -        restart  -
on-failure    exit-3        restart  restart  replace  restart  restart  create
on-failure    killed        restart  restart  replace  restart  restart  create
on-failure    oom           restart  restart  replace  restart  restart  create
on-failure    start-failed  create   create   replace  create   create   create
on-failure    running       -        -        replace  -        -        create
on-failure:2  exit-0        -        -        replace  -        restart  -
on-failure:2  exit-3        gave-up  gave-up  replace  gave-up  restart  gave-up
on-failure:2  killed        gave-up  gave-up  replace  gave-up  restart  gave-up
on-failure:2  oom           gave-up  gave-up  replace  gave-up  restart  gave-up
on-failure:2  start-failed  create   create   replace  create   create   create
on-failure:2  running       -        -        replace  -        -        create
no            exit-0        -        -        replace  -        restart  -
no            exit-3        -        -        replace  -        restart  -
no            killed        -        -        replace  -        restart  -
no            oom           -        -        replace  -        restart  -
no            start-failed  create   create   replace  create   create   create
no            running       -        -        replace  -        -        create
job           exit-0        -        -        replace  -        restart  -
job           exit-3        restart  -        replace  restart  restart  -
job           killed        restart  -        replace  restart  restart  -
job           oom           restart  -        replace  restart  restart  -
job           start-failed  create   -        replace  create   create   create
job           running       waits    -        replace  waits    waits    create
"""
"""A container that nobody holds. `on-failure:2` is used up where it counts; `running` says what a reboot cuts short."""

HELD = """
policy        end           plan     drift    changed  resume   start    boot
always        exit-0        held     held     replace  restart  restart  held
always        exit-3        held     held     replace  restart  restart  held
always        killed        held     held     replace  restart  restart  held
always        oom           held     held     replace  restart  restart  held
always        start-failed  held     held     replace  create   create   held
on-failure    exit-0        held     held     replace  update   restart  held
on-failure    exit-3        held     held     replace  restart  restart  held
on-failure    killed        held     held     replace  restart  restart  held
on-failure    oom           held     held     replace  restart  restart  held
on-failure    start-failed  held     held     replace  create   create   held
on-failure:2  exit-0        held     held     replace  update   restart  held
on-failure:2  exit-3        held     held     replace  update   restart  held
on-failure:2  killed        held     held     replace  update   restart  held
on-failure:2  oom           held     held     replace  update   restart  held
on-failure:2  start-failed  held     held     replace  create   create   held
no            exit-0        held     held     replace  update   restart  held
no            exit-3        held     held     replace  update   restart  held
no            killed        held     held     replace  update   restart  held
no            oom           held     held     replace  update   restart  held
no            start-failed  held     held     replace  create   create   held
job           exit-0        held     held     replace  update   restart  held
job           exit-3        held     held     replace  restart  restart  held
job           killed        held     held     replace  restart  restart  held
job           oom           held     held     replace  restart  restart  held
job           start-failed  held     held     replace  create   create   held
"""
"""One that was held, by a stop or a pause, after it had ended by itself."""


def cells(table: str, *holds: str) -> Iterator[object]:
    head, *rows = (line.split() for line in table.strip().splitlines())
    for policy, how, *outcomes in rows:
        for when, expected in zip(head[2:], outcomes, strict=True):
            for hold in holds:
                name = f"{policy}, {how}, hold {hold}, {when}"
                yield pytest.param(policy, how, hold, when, expected, id=name)


def wanted(policy: str, **fields: object) -> Stack:
    job = policy == "job"
    return stack(web=container(restart="no" if job else policy, job=job, **fields))


def end(bench: Bench, policy: str, how: str) -> None:
    """As the exit command left it: `on-failure:2` is used up where it counts."""
    thing = bench.machine.find(WEB)[0]
    if how == "start-failed":
        thing.phase, thing.pid, thing.error = Phase.CREATED, 0, "exec: no such program"
        return
    if how == "running":
        return
    code = {"exit-0": 0, "exit-3": 3, "killed": 137, "oom": 137}[how]
    bench.machine.exit(WEB, code, oom=how == "oom", gave_up=policy == "on-failure:2" and code != 0)


def plan_of(bench: Bench, policy: str, when: str) -> Plan:
    if when == "boot":
        bench.machine.reboot()
    if when in ("drift", "boot"):
        with bench.store.read() as tx:
            stacks, records = tx.stacks(), tx.records()
        seen = bench.engine.observe(compose_view(records, []))
        make = make_boot_plan if when == "boot" else make_drift_plan
        return make(stacks=stacks, records=records, observation=seen, now=bench.machine.now)
    fields = {"env": {"A": "1"}} if when == "changed" else {}
    started = [WEB] if when == "start" else []
    return bench.plan(wanted(policy, **fields), resume_holds=when == "resume", started=started)


def outcome(bench: Bench, policy: str, how: str, hold: str, when: str) -> str:
    """What the plan does with it: a verb, a line (`held`, `gave-up`), or nothing."""
    bench.apply(wanted(policy), wait=False)
    end(bench, policy, how)
    if hold != "none":
        with bench.store.write() as tx:
            tx.set_hold(WEB, Hold(kind=hold, who="me", when=bench.machine.now))
        bench.machine.find(WEB)[0].mark = "hold"
    plan = plan_of(bench, policy, when)
    found = [action.verb.value for action in plan.actions if action.key == WEB]
    found += [line.text.partition(":")[0].replace(" ", "-") for line in plan.lines if line.key == WEB]
    return ",".join(found) or "-"


@pytest.mark.parametrize(
    ("policy", "how", "hold", "when", "expected"), [*cells(NOT_HELD, "none"), *cells(HELD, "stop", "pause")]
)
def test_what_follows_an_end(bench: Bench, policy: str, how: str, hold: str, when: str, expected: str) -> None:
    assert outcome(bench, policy, how, hold, when) == expected


def test_mending_drift_never_starts_what_its_policy_lets_rest() -> None:
    """The column of drift says what may run again unasked: only what should have been running all along."""
    head, *rows = (line.split() for line in NOT_HELD.strip().splitlines())
    started = {(row[0], row[1]) for row in rows if row[head.index("drift")] not in ("-", "gave-up")}
    assert started == {
        *(("always", how) for how in ("exit-0", "exit-3", "killed", "oom", "start-failed")),
        *(("on-failure", how) for how in ("exit-3", "killed", "oom", "start-failed")),
        ("on-failure:2", "start-failed"),
        ("no", "start-failed"),
    }
