"""Applies to what is held by hand: who is held is made and not started, who must start waits for nobody in vain."""

import pytest
from converge_bench import Bench

from plan.builders import container, stack
from reconciler.model.key import Key, container_key
from reconciler.model.observation import Phase
from reconciler.model.record import Hold, Stack
from reconciler.model.spec import Healthcheck

WEB, DB = container_key("blog", "web"), container_key("blog", "db")


def blog(command: str, *, db: str = "") -> Stack:
    web = container(command=(command,), depends_on={"db": "healthy"})
    return stack(web=web, db=container(command=(db or command,), healthcheck=Healthcheck(test=("CMD", "true"))))


def held(bench: Bench, *keys: Key) -> Bench:
    with bench.store.write() as tx:
        for key in keys:
            tx.set_hold(key, Hold(kind="stop", who="ann", when=0.0))
    return bench


def phases(bench: Bench) -> dict[Key, tuple[Phase, tuple[str, ...]]]:
    return {thing.made.key: (thing.phase, thing.made.spec.command) for thing in bench.machine.containers.values()}


@pytest.mark.parametrize("db", ["a", "b"], ids=["dependency stays", "dependency changes too"])
def test_changed_manifest_of_a_stopped_stack_is_made_and_not_started(bench: Bench, db: str) -> None:
    bench.apply(blog("a"))
    held(bench, WEB, DB)
    assert not any("can't start" in line for line in bench.lines(blog("b", db=db)))
    assert bench.apply(blog("b", db=db)).failed == ()
    assert phases(bench)[WEB] == (Phase.CREATED, ("b",))
    assert bench.lines(blog("b", db=db))[-1] == "nothing to do"


@pytest.mark.parametrize("db", ["a", "b"], ids=["dependency stays", "dependency changes too"])
def test_who_must_start_does_not_while_its_dependency_is_held(bench: Bench, db: str) -> None:
    bench.apply(blog("a"))
    held(bench, DB)
    assert "      can't start while db, which it depends on, is held" in bench.lines(blog("b", db=db))
    assert bench.apply(blog("b", db=db)).failed == (WEB,)
    assert phases(bench)[WEB] == (Phase.RUNNING, ("a",))
    assert bench.failures()[-1].brief == f"{WEB}: {DB} is held by a stop"


def test_resume_starts_them_in_order(bench: Bench) -> None:
    bench.apply(blog("a"))
    held(bench, WEB, DB).apply(blog("b"))
    assert bench.apply(blog("b"), resume_holds=True).failed == ()
    assert phases(bench) == {WEB: (Phase.RUNNING, ("b",)), DB: (Phase.RUNNING, ("b",))}
