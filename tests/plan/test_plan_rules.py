"""What is decided about one resource: exits, holds, unfinished work, refusals."""

import pytest
from msgspec.structs import replace

from plan.builders import APP, BB, CACHE, DATA, FRONT, WEB, Known, container, desire, stack, volume_at
from reconciler.model.errors import Refused
from reconciler.model.key import Key
from reconciler.model.observation import Phase, altered, missing
from reconciler.model.plan import Effect, Plan
from reconciler.model.record import Hold, ImageFact
from reconciler.model.spec import ImageSpec, NetworkSpec, VolumeSpec
from reconciler.plan.explain import explain_key, render_drift


def brief(plan: Plan) -> list[tuple[str, str, str]]:
    return [(action.verb.value, action.key, action.reason.value) for action in plan.actions]


def after_exit(policy: str, **status: object) -> list[tuple[str, str, str]]:
    blog = stack(web=container(restart=policy))
    return brief(Known.of(blog).seen(WEB, Phase.EXITED, **status).plan(blog))


RESTART = [("restart", WEB, "not-running")]


@pytest.mark.parametrize(
    ("policy", "status", "expected"),
    [
        ("always", {"exit_code": 0}, RESTART),
        ("always", {"exit_code": 1}, RESTART),
        ("always", {}, RESTART),
        ("no", {"exit_code": 0}, []),
        ("no", {"exit_code": 1}, []),
        ("on-failure", {"exit_code": 0}, []),
        ("on-failure", {"exit_code": 1}, RESTART),
        ("on-failure", {}, RESTART),
        ("on-failure:3", {"exit_code": 1, "restarts": 2}, RESTART),
        ("on-failure:3", {"exit_code": 1, "restarts": 3, "gave_up": True}, []),
        ("always", {"exit_code": 1, "restarting": True}, []),
    ],
)
def test_restart_policy_alone_decides_what_follows_an_exit(policy, status, expected):
    assert after_exit(policy, **status) == expected


def test_mending_never_starts_what_rests():
    blog = stack(web=container(restart="no"))
    known = Known.of(blog).drifted(WEB, monitor=missing("restart"), layer=missing("replace"))
    assert brief(known.seen(WEB, Phase.EXITED, exit_code=0).plan(blog)) == []
    cheap = Known.of(blog).drifted(WEB, cgroup=missing()).seen(WEB, Phase.EXITED, exit_code=0)
    assert brief(cheap.plan(blog)) == [("update", WEB, "drifted")]


def test_parts_of_one_that_is_restarting_by_itself_are_left_alone():
    blog = stack(web=container())
    known = Known.of(blog).drifted(WEB, netns=missing("restart")).seen(WEB, Phase.EXITED, exit_code=1, restarting=True)
    assert brief(known.plan(blog)) == []


def test_finished_container_is_not_run_again_after_a_reboot():
    blog = stack(web=container(restart="no"))
    known = Known.of(blog).recorded(WEB, status={"phase": "exited"}).gone(WEB)
    assert brief(known.plan(blog)) == []
    assert brief(known.plan(stack(web=container(restart="no", env={"A": "1"})))) == [("create", WEB, "gone-from-machine")]


def test_changed_policy_starts_what_had_given_up():
    known = Known.of(stack(web=container(restart="on-failure:1"))).seen(WEB, Phase.EXITED, exit_code=1, gave_up=True)
    assert brief(known.plan(stack(web=container()))) == [("restart", WEB, "field-changed")]


def test_prepared_container_that_changed_is_made_anew():
    known = Known.of(stack(web=container())).seen(WEB, Phase.CREATED)
    assert brief(known.plan(stack(web=container(labels={"a": "b"})))) == [("replace", WEB, "field-changed")]


def test_ignored_change_is_no_action_and_the_plan_carries_the_new_spec():
    newer = stack(web=container(), images={"app": ImageSpec(reference="registry.test/app:1", pull="always")})
    plan = Known.of(stack(web=container())).plan(newer)
    assert plan.actions == ()
    assert plan.specs[APP] == newer.specs[APP]


# --- holds ---


def test_held_container_is_not_mended_nor_made_again():
    blog = stack(web=container())
    held = Known.of(blog).held(WEB)
    assert brief(held.drifted(WEB, layer=missing("replace")).plan(blog)) == []
    assert brief(held.gone(WEB).plan(blog)) == []
    assert [line.key for line in held.gone(WEB).plan(blog).lines] == [WEB]


def test_resume_does_what_the_container_needs_to_run():
    blog = stack(web=container())
    held = Known.of(blog).held(WEB)
    assert brief(held.plan(blog, resume=True)) == [("restart", WEB, "resumed")]
    assert brief(held.gone(WEB).plan(blog, resume=True)) == [("create", WEB, "resumed")]
    assert brief(held.seen(WEB, Phase.RUNNING).plan(blog, resume=True)) == [("update", WEB, "resumed")]
    changed = stack(web=container(env={"A": "1"}))
    assert brief(held.plan(changed, resume=True)) == [("replace", WEB, "resumed")]


def test_start_begins_the_count_of_one_that_gave_up_anew():
    blog = stack(web=container(restart="on-failure:1"), api=container())
    known = Known.of(blog).seen(WEB, Phase.EXITED, exit_code=1, gave_up=True)
    assert brief(known.plan(blog, resume_keys=frozenset({WEB}))) == [("restart", WEB, "resumed")]
    assert brief(Known.of(blog).plan(blog, resume_keys=frozenset({WEB}))) == []


def test_start_of_one_leaves_the_hold_of_another():
    blog = stack(web=container(), cache=container())
    known = Known.of(blog).held(WEB).held(CACHE)
    assert brief(known.plan(blog, resume_keys=frozenset({WEB}))) == [("restart", WEB, "resumed")]


def test_held_container_on_a_replaced_network_is_replaced_and_stays_stopped():
    blog = stack(web=container(networks=("front",)))
    plan = (
        Known.of(blog)
        .held(WEB)
        .plan(stack(web=container(networks=("front",)), networks={"front": NetworkSpec(internal=True)}))
    )
    assert brief(plan) == [("replace", FRONT, "field-changed"), ("replace", WEB, "dependency-replaced")]
    assert "stays stopped by its hold (stop by root)" in plan.actions[1].notes


# --- unfinished ---


@pytest.mark.parametrize(
    ("begun", "phase", "expected"),
    [
        ("create", Phase.MISSING, "create"),
        ("create", Phase.CREATED, "create"),
        ("create", Phase.RUNNING, "update"),
        ("replace", Phase.RUNNING, "update"),
        ("replace", Phase.EXITED, "restart"),
        ("delete", Phase.RUNNING, "replace"),
        ("delete", Phase.MISSING, "create"),
    ],
)
def test_unfinished_container_gets_what_is_missing(begun, phase, expected):
    blog = stack(web=container())
    known = Known.of(blog).recorded(WEB, unfinished=begun).seen(WEB, phase)
    assert brief(known.plan(blog)) == [(expected, WEB, "unfinished")]


@pytest.mark.parametrize("resumed", [True, False])
def test_what_was_never_started_and_lacks_a_part_is_made_not_only_mended(resumed):
    """An update starts nothing."""
    blog = stack(web=container())
    known = Known.of(blog).seen(WEB, Phase.CREATED).drifted(WEB, link__front=missing())
    if resumed:
        held = known.recorded(WEB, hold=Hold(kind="stop", who="root", when=0.0))
        assert brief(held.plan(blog, resume=True)) == [("create", WEB, "resumed")]
    else:
        assert brief(known.recorded(WEB, unfinished="create").plan(blog)) == [("create", WEB, "unfinished")]


def test_unfinished_replace_of_a_network_replaces_who_sits_on_it():
    blog = stack(web=container(networks=("front",)))
    known = Known.of(blog).recorded(FRONT, unfinished="replace").seen(WEB, Phase.EXITED)
    assert brief(known.plan(blog)) == [("update", FRONT, "unfinished"), ("replace", WEB, "dependency-replaced")]


def test_unfinished_work_that_is_no_longer_wanted_is_deleted():
    known = Known.of(stack(web=container(), cache=container())).recorded(CACHE, unfinished="create")
    assert brief(known.plan(stack(web=container()))) == [("delete", CACHE, "not-in-manifest")]


# --- refusals ---


def test_refused_change_names_every_volume_and_the_steps_to_take():
    blog = stack(web=container(mounts=volume_at("/data", "data")))
    with pytest.raises(Refused) as caught:
        Known.of(blog).plan(
            stack(web=container(mounts=volume_at("/data", "data")), volumes={"data": VolumeSpec(driver="x")})
        )
    error = caught.value
    assert error.brief.startswith("volume/blog/data: ")
    assert "/driver  local → x  (refuse)" in error.detail
    assert "`reconcile delete volume/blog/data`" in error.hint
    assert error.exit_code == 3


def test_what_is_gone_can_not_be_lost_by_a_refused_change():
    blog = stack(web=container(mounts=volume_at("/data", "data")))
    newer = stack(web=container(mounts=volume_at("/data", "data")), volumes={"data": VolumeSpec(driver="x")})
    accepted = frozenset({"blog/data"})
    assert brief(Known.of(blog).gone(DATA).plan(newer, accept_loss=accepted)) == [
        ("create", DATA, "gone-from-machine"),
        ("restart", WEB, "dependency-replaced"),
    ]


def test_effects_come_from_outside():
    blog = stack(web=container())
    desired = stack(web=container(env={"A": "1"}))
    plan = Known.of(blog).plan_desired(desire(desired), effect_of=lambda _kind, _path: Effect.RESTART)
    assert brief(plan) == [("restart", WEB, "field-changed")]


# --- deletes ---


def test_delete_of_one_key_is_refused_while_another_uses_it():
    known = Known.of(stack(web=container(networks=("front",))))
    with pytest.raises(Refused, match="delete network/blog/front: container/blog/web/1 uses it"):
        known.plan_delete(FRONT)
    assert brief(known.plan_delete(FRONT, WEB)) == [("delete", WEB, "requested"), ("delete", FRONT, "requested")]


def test_delete_of_what_is_not_recorded_is_nothing():
    assert Known.of(stack(web=container())).plan_delete(Key("container/blog/nobody/1")).actions == ()


def test_volume_in_use_is_not_deleted():
    known = Known.of(stack(web=container(mounts=volume_at("/data", "data"))))
    with pytest.raises(Refused, match="delete volume/blog/data"):
        known.plan_delete(DATA, volumes=(DATA,))


# --- explanations ---


def why(known: Known, blog, key: Key, **options: object) -> str:
    plan = known.plan(blog, **options)
    return "\n".join(explain_key(plan, key, records=known.records, observation=known.observation))


def test_why_says_all_of_an_action():
    blog = stack(web=container(networks=("front",), depends_on={"cache": "started"}), cache=container())
    known = Known.of(blog)
    assert why(known, blog, WEB).startswith("container/blog/web/1  nothing to do")
    changed = replace(blog, specs={**blog.specs, WEB: replace(blog.specs[WEB], env={"A": "1"})})
    assert "because /env/A changed" in why(known, changed, WEB)
    text = why(known.gone(FRONT), changed, WEB)
    assert "waits for create of network/blog/front" in text
    assert "before replace of container/blog/web/1" in why(known.gone(FRONT), changed, FRONT)


def test_why_not_says_what_was_compared():
    blog = stack(web=container(restart="no"))
    ended = Known.of(blog).seen(WEB, Phase.EXITED, exit_code=0)
    assert "seen: exited (0), and restart: no lets it rest" in why(ended, blog, WEB)
    assert "image: sha256:aa0000000000, as recorded" in why(ended, blog, WEB)
    held = Known.of(blog).held(WEB)
    assert "held: stop by root" in why(held, blog, WEB)
    newer = stack(web=container(restart="no"), images={"app": ImageSpec(reference="registry.test/app:1", pull="always")})
    assert "/pull  missing → always  (ignore)" in why(Known.of(blog), newer, APP)
    assert "neither in the manifest nor on record" in why(held, blog, Key("container/blog/nobody/1"))


def test_why_not_of_a_digest_that_did_not_move():
    blog = stack(web=container())
    assert "because /image changed" in "\n".join(
        explain_key(
            Known.of(blog).plan(blog, facts={"app": ImageFact(digest=BB)}),
            WEB,
            records=Known.of(blog).records,
            observation=Known.of(blog).observation,
        )
    )


def test_drift_reads_from_what_we_made_to_what_is_there():
    blog = stack(web=container(networks=("front",)))
    known = Known.of(blog).drifted(FRONT, gateway=altered("address", "10.1.0.1/24", "none")).gone(WEB)
    assert render_drift(known.plan_drift()) == [
        "network/blog/front  gateway: address 10.1.0.1/24 → address none  (apply: update)",
        "container/blog/web/1  gone  (apply: create)",
    ]


def test_container_that_could_not_follow_its_image_has_not_drifted():
    known = Known.of(stack(web=container())).recorded(APP, image=BB)
    assert known.plan_drift().actions == ()
    assert brief(known.plan(stack(web=container()), facts={"app": ImageFact(digest=BB)})) == [
        ("replace", WEB, "field-changed")
    ]


def test_container_outlives_the_record_of_its_image():
    known = Known.of(stack(web=container())).without(APP)
    assert known.plan_drift().actions == ()


def test_image_under_another_name_with_the_same_digest_is_only_recorded():
    plan = Known.of(stack(web=container("registry.test/app:1"))).plan(stack(web=container("app")))
    assert brief(plan)[0][0:2] == ("update", WEB)
    assert [(change.path, change.old, change.new, change.effect.value) for change in plan.actions[0].changes] == [
        ("/image", "registry.test/app:1", "app", "in-place")
    ]


def test_unfinished_work_is_told_as_drift():
    known = Known.of(stack(web=container())).recorded(WEB, unfinished="create").seen(WEB, Phase.EXITED, exit_code=1)
    assert render_drift(known.plan_drift()) == [
        "container/blog/web/1  half done by an earlier apply  (apply: restart)",
    ]
