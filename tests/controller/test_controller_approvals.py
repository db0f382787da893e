"""Sources with `approve: true`: what changes waits with its plan until a person approves that very plan."""

from typing import Any

import pytest

from controller.conftest import Controlled
from reconciler.controller.policy import Policy
from reconciler.model.errors import NeedsYes, NotFound, RolledBack, StalePlan
from reconciler.model.key import container_key
from reconciler.model.plan import Plan
from reconciler.verbs.apply import ApplyOptions
from reconciler.verbs.approval import FOLDER, approve, choose_waiting, read_waiting
from reconciler.verbs.containers import stop
from reconciler.verbs.face import Face
from reconciler.verbs.record import acting_as
from reconciler.verbs.status import status


@pytest.fixture
def asking(open_controlled: Any) -> Controlled:
    return open_controlled(approve=True)  # type: ignore[no-any-return]


def waits(controlled: Controlled) -> dict[str, str]:
    return {state.stack: state.waits for state in controlled.keeper.read_state()[1] if state.waits}


def approve_all(controlled: Controlled, stack: str = "", *, answer: bool | None = True) -> list[Plan]:
    """As `reconcile approve` does, with this answer; the plans that were shown."""
    shown: list[Plan] = []
    face = Face(show=shown.append, confirm=lambda _: answer, emit=controlled.events.append)
    with acting_as("alice"):
        for waiting in choose_waiting(controlled.root, str(controlled.folder), stack):
            approve(controlled.root, waiting, ApplyOptions(), face=face)
    controlled.queue.add("approvals", controlled.now)  # as the watched folder has it
    controlled.run(3)
    return shown


def test_what_changes_waits_and_runs_once_it_is_approved(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    assert asking.commands() == {}
    assert waits(asking)["blog"].startswith("waits for approval: 3 actions (3 create): `reconcile approve ")
    told = asking.notes()
    assert any("stack blog waits for approval: 3 actions" in text for text in told)
    [plan] = approve_all(asking)
    assert plan.summary["create"] == 3
    assert asking.commands() == {"blog": "a"}
    assert waits(asking) == {}
    assert read_waiting(asking.root) == ()
    assert list((asking.root.path / FOLDER).iterdir()) == []
    assert any("alice approved 3 actions (3 create) of stack blog" in text for text in asking.notes())
    [condition] = status(asking.root, "blog").stacks
    assert condition.revision is not None
    assert condition.revision.who == f"serve {asking.folder}, approved by alice"
    assert [state.synced for state in asking.keeper.read_state()[1]] == [True]


def test_no_is_an_answer_and_so_is_nobody(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    with pytest.raises(NeedsYes, match="not approved"):
        approve_all(asking, answer=False)
    with pytest.raises(NeedsYes, match="nobody can be asked"):
        approve_all(asking, answer=None)
    asking.run(3600)
    assert asking.commands() == {}
    assert set(waits(asking)) == {"blog"}


def test_a_newer_version_takes_the_place_of_what_waits(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    asking.write("blog", command="b")
    asking.run(asking.policy.poll + 2)
    assert len(read_waiting(asking.root)) == 1
    approve_all(asking)
    assert asking.commands() == {"blog": "b"}


def test_a_plan_that_does_not_fit_any_more_is_refused_and_made_anew(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    approve_all(asking)
    asking.write("blog", command="b")
    asking.run(asking.policy.poll + 2)
    stop(asking.root, "blog/web", emit=asking.events.append)
    with pytest.raises(StalePlan, match=r"stack blog of .*: the plan is stale") as told:
        approve_all(asking)
    assert "approve that" in told.value.hint
    with asking.root.store.read() as tx:
        notes = [getattr(row.event, "text", "") for row in tx.events(stack="blog")]
    assert any(text.endswith("which was refused: the plan is stale") for text in notes), "who tried is on record"
    assert asking.commands() == {}
    asking.queue.add("approvals", asking.now)
    asking.run(3)
    assert set(waits(asking)) == {"blog"}
    approve_all(asking)
    assert waits(asking) == {}


def test_drift_is_mended_without_approval_before_and_while_something_waits(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    approve_all(asking)
    asking.machine.vanish(container_key("blog", "web"))
    asking.run(asking.policy.resync + 2)
    assert asking.commands() == {"blog": "a"}
    asking.write("blog", command="b")
    asking.run(asking.policy.poll + 2)
    asking.machine.vanish(container_key("blog", "web"))
    asking.run(asking.policy.resync + 2)
    assert asking.commands() == {"blog": "a"}, "mended as it is recorded"
    approve_all(asking)  # the plan was made anew after that, for it fits
    assert asking.commands() == {"blog": "b"}
    # Of one that drifted while nobody looked, too.
    asking.machine.vanish(container_key("blog", "web"))
    asking.begin()
    asking.run(5)
    assert asking.commands() == {"blog": "b"}
    assert waits(asking) == {}


def test_what_waits_outlives_the_controller(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    since = read_waiting(asking.root)[0].since
    asking.begin()
    asking.run(3)
    assert read_waiting(asking.root)[0].since == since
    approve_all(asking)
    assert asking.commands() == {"blog": "a"}


def test_what_was_approved_and_fails_goes_back_and_is_not_tried_again(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    approve_all(asking)
    asking.write("blog", image="done:1", command="bad")
    asking.run(asking.policy.poll + 2)
    with pytest.raises(RolledBack):
        approve_all(asking)
    asking.queue.add("approvals", asking.now)
    started = len([call for call in asking.machine.calls if call.startswith("start ")])
    asking.run(3600)
    assert asking.commands() == {"blog": "a"}
    assert waits(asking) == {}
    assert len([call for call in asking.machine.calls if call.startswith("start ")]) == started


def test_what_is_gone_from_the_source_waits_no_more_and_is_not_pruned(open_controlled: Any) -> None:
    asking = open_controlled(approve=True, prune=True)
    asking.write("blog")
    asking.write("shop")
    asking.run(3)
    approve_all(asking, "blog")
    (asking.folder / "blog.yaml").unlink()
    (asking.folder / "shop.yaml").rename(asking.folder / "shop.off")
    asking.write("other")
    asking.run(asking.policy.poll + 2)
    assert set(waits(asking)) == {"other"}
    assert [one.stack for one in read_waiting(asking.root)] == ["other"]
    assert asking.commands() == {"blog": "a"}


def test_source_that_asks_no_more_goes_on(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    asking.keeper.reload([asking.source], Policy())
    asking.queue.add("approvals", asking.now)
    asking.run(3)
    assert asking.commands() == {"blog": "a"}
    assert read_waiting(asking.root) == ()


def test_asking_for_what_does_not_wait_says_what_does(asking: Controlled) -> None:
    asking.write("blog")
    asking.run(3)
    with pytest.raises(NotFound, match="no source with something that waits") as source:
        choose_waiting(asking.root, f"{asking.folder}s")
    assert f"did you mean {asking.folder}?" in source.value.hint
    with pytest.raises(NotFound, match=r"no stack of .* that waits for approval named blok"):
        choose_waiting(asking.root, str(asking.folder), "blok")
