"""How a stack is, in one word and a line for each thing that is wrong: a row for each way to be."""

from collections.abc import Callable
from typing import Any

import pytest

from plan.builders import DATA, FRONT, NOW, WEB, Known, container, stack, volume_at
from reconciler.model.key import stack_of
from reconciler.model.observation import End, Health, Part, Phase
from reconciler.model.record import Hold, StackRecord
from reconciler.model.spec import Healthcheck
from reconciler.plan.condition import Condition, Revised, Served, judge_stack
from reconciler.plan.make import make_drift_plan

CHECK = Healthcheck(test=("CMD", "true"))
DONE = Revised(number=3, at=NOW - 7200, who="ann", result="done")
HOLD = Hold(kind="stop", who="ann", when=NOW - 10800, why="disk")


def judged(
    known: Known, *, revision: Revised | None = DONE, at_work: str = "", served: Served | None = None, **fields: Any
) -> Condition:
    record = StackRecord(name="blog", origin="name:blog", revision=3, **fields)
    plan = make_drift_plan(stacks=known.stacks, records=known.records, observation=known.observation, now=NOW)
    own = {key: each for key, each in known.records.items() if stack_of(key) == "blog"}
    return judge_stack(
        record,
        records=own,
        statuses=known.statuses,
        drift=plan,
        revision=revision,
        at_work=at_work,
        now=NOW,
        served=served,
    )


def ends(*ago: float, ran: float = 2.0) -> tuple[End, ...]:
    return tuple(End(NOW - each, ran) for each in ago)


def blog(**web: Any) -> Known:
    return Known.of(stack(web=container(networks=("front",), **web), cache=container(networks=("front",))))


def told(condition: Condition) -> list[str]:
    return [f"{condition.state} {condition.running}/{condition.containers}"] + [
        f"{finding.what} {finding.key or 'stack'}: {finding.text}" for finding in condition.findings
    ]


WAYS: dict[str, tuple[Callable[[], Condition], list[str]]] = {
    "as applied": (lambda: judged(blog()), ["synced 2/2"]),
    "never applied whole": (lambda: judged(blog(), revision=None), ["synced 2/2"]),
    "ended and let rest": (
        lambda: judged(blog(restart="no").seen(WEB, Phase.EXITED, exit_code=0)),
        ["synced 1/2"],
    ),
    "held": (
        lambda: judged(blog().seen(WEB, Phase.EXITED, exit_code=0).recorded(WEB, hold=HOLD)),
        [
            "held 1/2",
            f"held {WEB}: held: stop by ann 3h ago (disk); `reconcile start` or apply --resume ends it",
        ],
    ),
    "held as a whole": (
        lambda: judged(blog(), hold=Hold(kind="rollback", who="ann", when=NOW - 60, why="slow")),
        ["held 2/2", "held stack: held: rollback by ann 1m ago (slow); apply --resume ends it"],
    ),
    "held for another version of its source": (
        lambda: judged(blog(), hold=Hold(kind="rollback", who="serve /stacks", when=NOW - 60, why="slow")),
        ["held 2/2", "held stack: held: rollback by serve /stacks 1m ago (slow); another version ends it"],
    ),
    "a part is missing": (
        lambda: judged(blog().drifted(FRONT, bridge=Part(state="missing"))),
        ["drifted 2/2", f"drift {FRONT}: bridge: present → missing (apply: update)"],
    ),
    "a network is gone": (
        lambda: judged(blog().gone(FRONT)),
        ["drifted 2/2", f"gone {FRONT}: gone from the machine (apply: create)"],
    ),
    "a container is gone": (
        lambda: judged(blog().gone(WEB)),
        ["degraded 1/2", f"gone {WEB}: gone from the machine (apply: create)"],
    ),
    "down": (
        lambda: judged(blog().seen(WEB, Phase.EXITED, exit_code=137)),
        ["degraded 1/2", f"down {WEB}: exited (137 SIGKILL), and should run (apply: restart)"],
    ),
    "gave up": (
        lambda: judged(blog(restart="on-failure:3").seen(WEB, Phase.EXITED, exit_code=1, gave_up=True)),
        [
            "degraded 1/2",
            f"gave-up {WEB}: gave up: exited (1), on-failure:3 is used up; `reconcile start` tries anew",
        ],
    ),
    "a job has completed": (
        lambda: judged(blog(job=True, restart="no").seen(WEB, Phase.EXITED, exit_code=0)),
        ["synced 1/1"],
    ),
    "a job has failed": (
        lambda: judged(blog(job=True, restart="no").seen(WEB, Phase.EXITED, exit_code=2)),
        [
            "degraded 1/2",
            f"job-failed {WEB}: the job has not succeeded: exited (2); the next apply runs it again",
        ],
    ),
    "a volume is gone": (
        lambda: judged(blog(mounts=volume_at("/data", "data")).gone(DATA)),
        ["drifted 2/2", f"gone {DATA}: its folder is gone: mount the disk that holds it"],
    ),
    "restarting": (
        lambda: judged(blog().seen(WEB, Phase.EXITED, exit_code=1, restarting=True, restarts=4)),
        ["degraded 1/2", f"restarting {WEB}: exited (1), and waits to be started again (4 restarts so far)"],
    ),
    "waits for its next start": (
        lambda: judged(blog().seen(WEB, Phase.EXITED, exit_code=1, restarting=True, restart_at=NOW + 2.5, restarts=4)),
        ["degraded 1/2", f"restarting {WEB}: exited (1), and is started again in 3s (4 restarts so far)"],
    ),
    "runs after one end": (
        lambda: judged(blog().seen(WEB, Phase.RUNNING, exit_code=1, restarts=1, started_at=NOW - 1, ends=ends(1))),
        ["synced 2/2"],
    ),
    "ends again and again, and runs just now": (
        lambda: judged(blog().seen(WEB, Phase.RUNNING, exit_code=137, restarts=9, started_at=NOW - 1, ends=ends(81, 9, 1))),
        [
            "degraded 2/2",
            f"restarting {WEB}: ends again and again: exited (137 SIGKILL), runs again for 1s (9 restarts so far,"
            " the last 3 ends within 1m); `reconcile logs blog/web/1` may say why",
        ],
    ),
    "ends again and again, and waits": (
        lambda: judged(
            blog().seen(
                WEB, Phase.EXITED, exit_code=3, restarts=9, restarting=True, restart_at=NOW + 11.2, ends=ends(29, 19, 1)
            )
        ),
        [
            "degraded 1/2",
            f"restarting {WEB}: ends again and again: exited (3), is started again in 12s (9 restarts so far,"
            " the last 3 ends within 29s); `reconcile logs blog/web/1` may say why",
        ],
    ),
    "ended again and again, and has run for long by now": (
        lambda: judged(blog().seen(WEB, Phase.RUNNING, started_at=NOW - 11, ends=ends(30, 20, 11))),
        ["synced 2/2"],
    ),
    "ends now and then": (
        lambda: judged(blog().seen(WEB, Phase.RUNNING, started_at=NOW - 1, ends=ends(700, 350, 1))),
        ["synced 2/2"],
    ),
    "unhealthy": (
        lambda: judged(blog(healthcheck=CHECK).seen(WEB, Phase.RUNNING, pid=9, health=Health.UNHEALTHY)),
        ["degraded 2/2", f"unhealthy {WEB}: unhealthy: its health check fails"],
    ),
    "half done": (
        lambda: judged(blog().recorded(WEB, unfinished="create")),
        ["drifted 2/2", f"unfinished {WEB}: half done by an earlier apply (apply: update)"],
    ),
    "the last revision failed": (
        lambda: judged(blog(), revision=Revised(number=4, at=NOW - 120, who="bob", result="failed")),
        ["failed 2/2", "failed stack: revision 4 by bob 2m ago failed; `reconcile events` tells why"],
    ),
    "the last revision did not end": (
        lambda: judged(blog(), revision=Revised(number=4, at=NOW - 120, who="bob", result="")),
        ["failed 2/2", "failed stack: revision 4 by bob 2m ago was not finished; `reconcile events` tells why"],
    ),
    "at work": (
        lambda: judged(
            blog().gone(FRONT).seen(WEB, Phase.EXITED, exit_code=0).recorded(WEB, hold=HOLD),
            revision=Revised(number=4, at=NOW, who="bob", result=""),
            at_work="pid 7",
        ),
        [
            "progressing 1/2",
            f"held {WEB}: held: stop by ann 3h ago (disk); `reconcile start` or apply --resume ends it",
        ],
    ),
    "the worst of several is the word": (
        lambda: judged(
            blog(restart="on-failure:3")
            .seen(WEB, Phase.EXITED, exit_code=1, gave_up=True)
            .drifted(FRONT, bridge=Part(state="missing")),
            hold=Hold(kind="rollback", who="ann", when=NOW),
        ),
        [
            "degraded 1/2",
            "held stack: held: rollback by ann 0s ago; apply --resume ends it",
            f"gave-up {WEB}: gave up: exited (1), on-failure:3 is used up; `reconcile start` tries anew",
            f"drift {FRONT}: bridge: present → missing (apply: update)",
        ],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_be_has_its_word_and_its_lines(way: str):
    make, expected = WAYS[way]
    assert told(make()) == expected


def served(**fields: Any) -> Served:
    return Served(**{"since": NOW - 60, "synced": False, **fields})


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (served(synced=True), ["synced 2/2"]),
        (served(), ["progressing 2/2"]),
        (served(problem="no image\nits log"), ["failed 2/2", "source stack: no image"]),
        (served(waits="waits for approval: 3 actions"), ["held 2/2", "waits stack: waits for approval: 3 actions"]),
        (
            served(gone=True),
            ["held 2/2", "left stack: its source has it no more; it stays until `reconcile delete blog --take-over`"],
        ),
    ],
)
def test_stack_of_a_source_is_not_synced_before_it_is_as_its_source_wants_it(said: Served, expected: list[str]) -> None:
    assert told(judged(blog(), served=said)) == expected


def test_what_went_back_is_held_and_says_why_once() -> None:
    hold = Hold(kind="rollback", who="serve", when=NOW - 60, why="slow")
    found = judged(blog(), hold=hold, served=served(problem="slow"))
    assert [finding.what for finding in found.findings] == ["held"]


def test_since_when_is_as_records_say() -> None:
    assert judged(blog()).since == DONE.at
    assert judged(blog(), served=served(problem="no")).since == NOW - 60
    assert judged(blog().seen(WEB, Phase.EXITED, exit_code=0).recorded(WEB, hold=HOLD)).since == HOLD.when
    ended = blog(restart="always").seen(WEB, Phase.EXITED, exit_code=1, finished_at=NOW - 30)
    assert (judged(ended).state, judged(ended).since) == ("degraded", NOW - 30)
    stormy = blog().seen(WEB, Phase.RUNNING, exit_code=1, started_at=NOW - 1, finished_at=NOW - 1, ends=ends(9, 5, 1))
    assert judged(stormy).since == NOW - 9
    assert judged(blog().drifted(FRONT, bridge=Part(state="missing"))).since == 0


@pytest.mark.parametrize(("ran", "runs", "steady"), [(2, 9, False), (2, 10, True), (30, 44, False), (30, 45, True)])
def test_storm_is_over_once_a_run_is_longer_than_those_before(*, ran: float, runs: float, steady: bool) -> None:
    last = runs + 0.1
    after_months = [*ends(last + 60, ran=1e7), *ends(last + 30, last, ran=ran)]
    known = blog().seen(WEB, Phase.RUNNING, started_at=NOW - runs, ends=tuple(after_months))
    assert judged(known).state == ("synced" if steady else "degraded")
