"""An apply of one stack looks at that stack: what else runs is not observed, and stands in its way as before."""

from collections.abc import Collection
from unittest import mock

import pytest

from controller.conftest import MANIFEST, Controlled
from reconciler.model.errors import Borrowed, NotLent, PortTaken, SubnetTaken
from reconciler.model.key import Key, container_key, stack_of
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish, load

BOX = "apiVersion: reconcile/v1\nname: {name}\ncontainers:\n  web: {{image: 'box:1', command: [a], {more}}}\n"
LENDER = BOX + "networks: {{front: {{subnet: 10.9.0.0/24}}}}\n"


class Looks:
    """What each look was at, in their order: stacks, or None for everything."""

    def __init__(self, controlled: Controlled) -> None:
        self.seen: list[set[str] | None] = []
        engine = controlled.root.engine
        observe = engine.observe

        def noting(view, *, ports=(), of: Collection[Key] | None = None):  # type: ignore[no-untyped-def]
            self.seen.append(None if of is None else {stack_of(key) for key in of})
            return observe(view, ports=ports, of=of)

        self.patched = mock.patch.object(engine, "observe", noting)

    def __enter__(self) -> "Looks":
        self.patched.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.patched.stop()


def put(controlled: Controlled, name: str, text: str) -> None:
    (controlled.folder / f"{name}.yaml").write_text(text)


def test_new_stacks_and_mended_ones_are_looked_at_by_themselves(controlled: Controlled) -> None:
    for name in ("blog", "mail", "shop"):
        controlled.write(name)
    with Looks(controlled) as looks:
        for key in (f"source {controlled.folder}", "stack blog", "stack shop"):
            controlled.keeper.work(key)
    assert looks.seen == [set(), set()]  # Nothing was there of either.
    controlled.run(3)
    controlled.machine.vanish(container_key("shop", "web"))
    with Looks(controlled) as looks:
        controlled.keeper.work("stack shop")
    assert looks.seen == [{"shop"}]
    assert controlled.commands().keys() == {"blog", "mail", "shop"}


def test_who_borrows_sees_what_is_lent(controlled: Controlled) -> None:
    put(controlled, "lender", LENDER.format(name="lender", more="networks: [front]"))
    controlled.write("other")
    controlled.run(3)
    borrower = BOX.format(name="guest", more="networks: [front]") + "networks: {front: {from: lender}}\n"
    put(controlled, "guest", borrower)
    controlled.keeper.work(f"source {controlled.folder}")
    with Looks(controlled) as looks:
        controlled.keeper.work("stack guest")
    assert looks.seen == [{"lender"}]
    assert "guest" in controlled.commands()
    put(controlled, "lender", BOX.format(name="lender", more="stop_grace: 1s"))
    controlled.keeper.work(f"source {controlled.folder}")
    with pytest.raises(Borrowed):
        controlled.keeper.work("stack lender")


def test_what_others_have_is_in_the_way_without_being_looked_at(controlled: Controlled) -> None:
    put(controlled, "first", LENDER.format(name="first", more="networks: [front], ports: ['8080:80']"))
    controlled.run(3)
    for text, error in (
        (BOX.format(name="second", more="ports: ['8080:80']"), PortTaken),
        (LENDER.format(name="second", more="networks: [front]"), SubnetTaken),
        (BOX.format(name="second", more="networks: [n]") + "networks: {n: {from: first}}\n", NotLent),
    ):
        put(controlled, "second", text)
        controlled.keeper.work(f"source {controlled.folder}")
        with Looks(controlled) as looks, pytest.raises(error):
            controlled.keeper.work("stack second")
        assert None not in looks.seen
        assert controlled.commands().keys() == {"first"}


def test_what_a_crash_left_goes_with_a_look_at_everything(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    lost = controlled.machine.containers.popitem()[1]
    controlled.machine.containers["0123456789ab"] = lost
    controlled.write("shop")
    controlled.keeper.work(f"source {controlled.folder}")
    controlled.keeper.work("stack shop")
    assert "0123456789ab" in controlled.machine.containers
    controlled.run(2)
    assert "0123456789ab" not in controlled.machine.containers
    assert controlled.commands().keys() == {"blog", "shop"}


def test_apply_by_hand_looks_at_everything(controlled: Controlled) -> None:
    path = controlled.folder.parent / "mine.yaml"
    path.write_text(MANIFEST.format(name="mine", image="box:1", command="a"))
    [stack] = load([path], variables={}, environment={})
    with Looks(controlled) as looks:
        apply(controlled.root, Wish(stacks=(stack,)), ApplyOptions(yes=True), face=Face())
    assert looks.seen == [None]


def test_looks_at_everything_rest_as_long_as_they_took_and_more(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    times = iter([100.0, 102.0, 103.0, 115.0, 115.0])
    controlled.keeper._clock = lambda: next(times)
    with Looks(controlled) as looks:
        assert controlled.keeper.work("all") == controlled.policy.resync
        assert controlled.keeper.work("all") == 7.0  # At 103: it took 2 s, and rests 8 s from 102 on.
        assert controlled.keeper.work("all") == controlled.policy.resync
    assert looks.seen == [None, None]
