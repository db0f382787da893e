"""Rules that a flag or an answer lifts, and plans that grow stale."""

import pytest
from msgspec.structs import replace

from plan.builders import CACHE, DATA, FRONT, NOW, WEB, Known, container, desire, stack, volume_at
from reconciler.model.errors import NeedsAllowDelete, OriginDiffers, StalePlan
from reconciler.model.key import Key
from reconciler.model.observation import Health, Phase, missing
from reconciler.model.plan import Plan, Verb
from reconciler.model.record import Stack, StackRecord
from reconciler.plan.limits import check_limits, check_origins, needs_yes
from reconciler.plan.stale import check_fresh

blog = stack(web=container(networks=("front",), depends_on={"cache": "started"}), cache=container())


def of(*names: str) -> Stack:
    return stack(**{name: container() for name in names})


def limited(known: Known, wanted: Stack) -> bool:
    try:
        check_limits(known.plan(wanted), records=known.records, observation=known.observation)
    except NeedsAllowDelete:
        return True
    return False


def test_deleting_more_than_half_of_what_runs_needs_to_be_allowed():
    four = Known.of(of("a", "b", "c", "d"))
    assert not limited(four, of("a", "b"))
    assert limited(four, of("a"))
    assert limited(four, stack(volumes={}))


def test_creates_are_taken_off_deletes():
    four = Known.of(of("a", "b", "c", "d"))
    assert not limited(four, of("e", "f", "g", "h"))
    assert limited(four, of("e"))


def test_small_stack_has_no_limit():
    assert not limited(Known.of(of("a", "b")), stack())


def test_only_what_runs_counts():
    known = Known.of(of("a", "b", "c", "d"))
    for name in ("b", "c", "d"):
        known = known.seen(Key(f"container/blog/{name}/1"), Phase.EXITED, exit_code=0)
    assert not limited(known, of("a"))
    assert limited(known, of("b", "c", "d"))


def test_limit_says_how_many():
    known = Known.of(of("a", "b", "c"))
    with pytest.raises(NeedsAllowDelete, match="deletes 2 of 3 running"):
        check_limits(known.plan(of("a")), records=known.records, observation=known.observation)


def test_yes_is_needed_for_what_replaces_or_deletes():
    known = Known.of(blog)
    assert needs_yes(Known().plan(blog)) == ""
    assert needs_yes(known.drifted(FRONT, bridge=missing()).plan(blog)) == ""
    assert needs_yes(known.plan_delete()) == "deletes 2 containers, deletes 1 network"
    changed = known.plan(stack(web=container(networks=("front",), env={"A": "1"}), cache=container(env={"A": "1"})))
    assert needs_yes(changed) == "replaces 2 containers"
    assert needs_yes(changed, {Verb.DELETE}) == ""


def test_what_is_deleted_to_be_made_again_is_replaced():
    one, two = container(ports={"0.0.0.0:1/tcp": 80}), container(ports={"0.0.0.0:2/tcp": 80})
    plan = Known.of(stack(a=one, b=two)).plan(stack(a=two, b=one))
    assert needs_yes(plan) == "replaces 1 container"
    assert needs_yes(plan, {Verb.DELETE}) == ""


def test_image_record_is_no_loss():
    assert needs_yes(Known.of(stack(web=container("old"))).plan(stack(web=container("app")))) == ""


def test_stack_of_another_manifest_is_refused_until_it_is_taken_over():
    mine = StackRecord(name="blog", origin="file:/srv/blog.yaml")
    with pytest.raises(OriginDiffers, match=r"blog belongs to file:/srv/blog\.yaml, not to name:blog"):
        check_origins(desire(blog), {"blog": mine})
    assert check_origins(desire(blog), {"blog": mine}, take_over=True) == (mine,)
    assert check_origins(desire(blog), {"blog": replace(mine, origin="name:blog")}) == ()
    assert check_origins(desire(blog), {}) == ()


# --- stale plans ---

volumed = stack(
    web=container(networks=("front",), depends_on={"cache": "started"}, mounts=volume_at("/d", "data")), cache=container()
)
changed = stack(
    web=container(networks=("front",), depends_on={"cache": "started"}, mounts=volume_at("/d", "data"), env={"A": "1"}),
    cache=container(),
    other=container(),
)


def check(plan: Plan, known: Known) -> str:
    try:
        check_fresh(plan, stacks=known.stacks, records=known.records, observation=known.observation, path="plan.out")
    except StalePlan as error:
        return error.brief
    return ""


def test_plan_is_fresh_while_nothing_that_it_touches_changes():
    known = Known.of(volumed)
    plan = known.plan(changed)
    assert check(plan, known) == ""
    busy = known.seen(WEB, pid=4711, started_at=NOW, restarts=4, health=Health.UNHEALTHY, size=9)
    assert check(plan, busy) == ""


@pytest.mark.parametrize("key", [WEB, CACHE, FRONT, DATA])
def test_plan_is_stale_when_something_it_names_or_depends_on_drifted(key):
    known = Known.of(volumed)
    plan = known.plan(changed)
    before = "running" if key in (WEB, CACHE) else "present"
    assert check(plan, known.gone(key)) == f"plan.out: the plan is stale: {key} was {before}, is missing"
    assert check(plan, known.drifted(key, x=missing())).endswith(f"was {before}, is {before}; x missing")


def test_plan_does_not_grow_stale_by_what_it_does_not_touch():
    known = Known.of(stack(web=container(), other=container()))
    plan = known.plan(stack(web=container(env={"A": "1"}), other=container()))
    assert check(plan, known.gone(Key("container/blog/other/1"))) == ""


def test_plan_is_stale_when_records_changed():
    known = Known.of(volumed)
    plan = known.plan(changed)
    later = Known(stacks={"blog": replace(known.stacks["blog"], serial=8)}, records=known.records, statuses=known.statuses)
    assert "was changed since (serial 7, now 8)" in check(plan, later)
    taken = Known(
        stacks={"blog": replace(known.stacks["blog"], origin="api")}, records=known.records, statuses=known.statuses
    )
    assert "belonged to name:blog, now to api" in check(plan, taken)
    assert "container/blog/web/1 is not on record any more" in check(plan, known.without(WEB))


def test_plan_of_a_new_stack_is_stale_once_the_stack_is_there():
    assert check(Known().plan(blog), Known()) == ""
    assert "now to name:blog" in check(Known().plan(blog), Known.of(blog))
