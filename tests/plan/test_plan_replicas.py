"""Replicas in the plan: scaling touches nobody else, who runs goes in turn, what a replica had is kept for it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from plan.builders import Known, container, golden, stack, text, volume_at, with_replicas
from reconciler.model.key import Kind, container_key, kind_of, make_key, sort_key, split_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Verb
from reconciler.model.record import Hold, Stack
from reconciler.model.spec import Dependency, NetworkSpec, Update, VolumeSpec


def web(count: int, **fields: object) -> Stack:
    return with_replicas(stack(web=container(**fields)), web=count)


def db(count: int, **fields: object) -> Stack:
    """Replicas on a network, each with its own volume."""
    return with_replicas(
        stack(db=container(networks=("back",), mounts=volume_at("/data", "data"), **fields)), own="data", db=count
    )


def key(index: int):
    return container_key("blog", "web", index)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_scaling_names_only_the_indexes_between(before: int, after: int, stateful: bool):
    make = db if stateful else web
    plan = Known.of(make(before)).plan(make(after))
    between = range(min(before, after) + 1, max(before, after) + 1)
    touched = [action for action in plan.actions if kind_of(action.key) is Kind.CONTAINER]
    assert sorted(split_key(action.key).index for action in touched) == list(between)
    assert {action.verb for action in touched} <= {Verb.CREATE if after > before else Verb.DELETE}
    others = {action.key for action in plan.actions} - {action.key for action in touched}
    made = {make_key(Kind.VOLUME, "blog", f"data@{index}") for index in between} if stateful and after > before else set()
    assert others - {make_key(Kind.NETWORK, "blog", "back")} == made


def test_one_to_three_is_two_creates():
    assert text(Known.of(web(1)).plan(web(3))) == golden("""
          1 create   container/blog/web/2  because it is new in the manifest
          2 create   container/blog/web/3  because it is new in the manifest
        2 actions: 2 create
    """)


def test_scaled_away_replicas_leave_their_volumes_and_the_plan_says_what_they_find_again():
    assert text(Known.of(db(3)).plan(db(1))) == golden("""
          1 delete   container/blog/db/2  because it is no longer in the manifest
              keeps for when it is scaled up again: volume data@2, 10.40.0.3 on back
              discards its writable layer
          2 delete   container/blog/db/3  because it is no longer in the manifest
              keeps for when it is scaled up again: volume data@3, 10.40.0.4 on back
              discards its writable layer
          volume/blog/data@2  kept for replica 2, which is not in the manifest; `reconcile delete volume/blog/data@2` removes it
          volume/blog/data@3  kept for replica 3, which is not in the manifest; `reconcile delete volume/blog/data@3` removes it
        2 actions: 2 delete
    """)  # noqa: E501 a golden text is as it is


def test_replicas_that_run_are_replaced_one_after_the_other_by_index():
    plan = Known.of(web(12)).plan(web(12, command=("b",)))
    assert [(action.key, action.after) for action in plan.actions] == [
        (key(index), (index - 1,) if index > 1 else ()) for index in range(1, 13)
    ]


def test_replicas_go_in_turn_also_where_what_they_depended_on_makes_room_for_another():
    """redis lets the volume go for cache and would outlive web as a courtesy: that circle is opened, no turn is lost."""

    def shop(name: str) -> Stack:
        depends = {name: Dependency(condition="started")}
        made = stack(
            **{name: container(mounts=volume_at("/data", "data")), "web": container(depends_on=depends, env={"AT": name})}
        )
        return with_replicas(made, web=3)

    plan = Known.of(shop("redis")).plan(shop("cache"))
    turns = [(action.key, action.after) for action in plan.actions if split_key(action.key).name == "web"]
    assert turns == [(key(1), (2,)), (key(2), (2, 3)), (key(3), (2, 4))]


def test_as_many_at_a_time_as_the_manifest_says():
    update = Update(parallel=2)
    plan = Known.of(web(5, update=update)).plan(web(5, update=update, command=("b",)))
    assert [action.after for action in plan.actions] == [(), (), (1, 2), (1, 2), (3, 4)]


def test_those_that_do_not_run_go_first_and_together():
    known = Known.of(web(4)).seen(key(2), Phase.EXITED, exit_code=1).seen(key(4), Phase.EXITED, exit_code=1)
    assert text(known.plan(web(4, command=("b",)))).count("after") == 2
    order = {action.key: action for action in known.plan(web(4, command=("b",))).actions}
    ids = {each: action.id for each, action in order.items()}
    assert order[key(2)].after == order[key(4)].after == ()
    assert order[key(1)].after == tuple(sorted((ids[key(2)], ids[key(4)])))
    assert order[key(3)].after == (ids[key(1)],)


def test_what_is_scaled_away_goes_when_the_others_are_replaced():
    plan = Known.of(web(3)).plan(web(2, command=("b",)))
    assert [(action.verb, action.key, action.after) for action in plan.actions] == [
        (Verb.REPLACE, key(1), ()),
        (Verb.REPLACE, key(2), (1,)),
        (Verb.DELETE, key(3), (2,)),
    ]


def test_updates_in_place_and_creates_do_not_wait():
    plan = Known.of(web(3)).plan(web(5, labels={"a": "b"}))
    assert {action.after for action in plan.actions} == {()}


def test_replicas_of_a_replaced_network_come_back_together():
    before = with_replicas(stack(networks={"n": NetworkSpec()}, web=container(networks=("n",))), web=3)
    after = with_replicas(stack(networks={"n": NetworkSpec(mtu=1400)}, web=container(networks=("n",))), web=3)
    plan = Known.of(before).plan(after)
    assert [(action.key, action.after) for action in plan.actions[1:]] == [(key(index), (1,)) for index in (1, 2, 3)]


def test_replicas_of_others_do_not_wait_for_each_other():
    both = stack(web=container(), api=container())
    changed = stack(web=container(command=("b",)), api=container(command=("b",)))
    plan = Known.of(with_replicas(both, web=2, api=2)).plan(with_replicas(changed, web=2, api=2))
    names = {action.id: split_key(action.key).name for action in plan.actions}
    assert all(names[number] == names[action.id] for action in plan.actions for number in action.after)


def test_who_depends_on_a_name_waits_for_all_of_its_replicas():
    wanted = with_replicas(
        stack(web=container(), api=container(depends_on={"web": Dependency(condition="started")})), web=3
    )
    plan = Known().plan(wanted)
    api = next(action for action in plan.actions if split_key(action.key).name == "api")
    webs = {action.id for action in plan.actions if split_key(action.key).name == "web"}
    assert webs <= set(api.after)


def test_held_replica_is_replaced_and_stays_down_while_the_others_go_in_turn():
    known = Known.of(web(2)).seen(key(1), Phase.EXITED, exit_code=0)
    known = known.recorded(key(1), hold=Hold(kind="stop", who="ann", when=0.0))
    plan = known.plan(web(2, command=("b",)))
    assert [(action.key, action.after) for action in plan.actions] == [(key(1), ()), (key(2), (1,))]


def test_who_takes_a_volume_over_waits_for_who_leaves_it_unless_it_is_shared():
    def writer(name: str, access: str) -> Stack:
        return stack(volumes={"d": VolumeSpec(access=access)}, **{name: container(mounts=volume_at("/d", "d"))})

    def waits(access: str) -> bool:
        plan = Known.of(writer("a", access)).plan(writer("b", access))
        ids = {action.key: action.id for action in plan.actions}
        made = next(action for action in plan.actions if action.key == container_key("blog", "b"))
        return ids[container_key("blog", "a")] in made.after

    assert waits("")
    assert not waits("shared")


def test_keys_sort_by_number():
    plan = Known().plan(web(11))
    found = [action.key for action in plan.actions if kind_of(action.key) is Kind.CONTAINER]
    assert found == sorted(found, key=sort_key)
