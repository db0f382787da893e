"""stop, start and restart of a whole stack go in the order of `depends_on`."""

from pathlib import Path

import pytest

from plan.builders import container, stack
from reconciler.model.events import silent
from reconciler.model.key import container_key
from reconciler.model.record import Record
from reconciler.model.spec import Dependency
from reconciler.verbs import containers
from reconciler.verbs.tiers import sort_tiers
from verbs.test_rollback import Bench

NEEDS = {"web": ("app",), "app": ("db", "cache"), "db": (), "cache": ()}


def wanted(needs: dict[str, tuple[str, ...]]):  # type: ignore[no-untyped-def]
    return {
        name: container(depends_on={other: Dependency(condition="started") for other in others})
        for name, others in needs.items()
    }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path / "root")
    bench.apply(stack(**wanted(NEEDS)))
    bench.machine.calls.clear()
    return bench


def order(bench: Bench, verb: str) -> list[str]:
    """The containers in the order in which the machine was told to do this."""
    calls = [call.split() for call in bench.machine.calls]
    return [call[1].split("/")[2] for call in calls if call[0] == verb]


def test_stop_goes_from_who_needs_to_what_is_needed_and_start_the_other_way(bench: Bench):
    containers.stop(bench, "blog", emit=silent)
    stopped = order(bench, "stop")
    assert stopped[:2] == ["web", "app"]
    assert set(stopped[2:]) == {"db", "cache"}
    containers.start(bench, "blog", emit=silent)
    started = order(bench, "start")
    assert started[2:] == ["app", "web"]
    assert set(started[:2]) == {"db", "cache"}


def test_records_of_two_orders_at_once_are_one_tier():
    records = [
        Record(key=container_key("blog", name), spec=spec) for name, spec in wanted({"a": ("b",), "b": ("a",)}).items()
    ]
    assert sort_tiers(records) == [records]
