"""Plans of changed configs, secrets and bound files: what follows is what the container says."""

from typing import Any

from msgspec.structs import replace

from plan.builders import DATA, WEB, Known, container, desire, digest, golden, stack, text
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import altered, missing
from reconciler.model.plan import Verb
from reconciler.model.record import Stack
from reconciler.model.spec import ConfigSpec, ContainerSpec, FileMount, Mount, SecretSpec, Sensitive
from reconciler.plan.forms import dump_plan, load_plan, plan_json
from reconciler.plan.limits import needs_yes

CONFIG, SECRET = make_key(Kind.CONFIG, "blog", "app"), make_key(Kind.SECRET, "blog", "token")


def keyed(letters: str) -> str:
    return "hmac-" + digest(letters)


def blog(config: str = "c0", secret: str = "50", **file: Any) -> Stack:
    """`web` with a config and a secret of these digests."""
    configs = {"/etc/app.conf": FileMount(source="app", digest=digest(config), **file)}
    secrets = {"/run/secrets/token": FileMount(source="token", digest=keyed(secret), mode=0o400, **file)}
    made = stack(web=container(configs=configs, secrets=secrets))
    things = {CONFIG: ConfigSpec(digest=digest(config)), SECRET: SecretSpec(digest=keyed(secret))}
    return replace(made, specs={**made.specs, **things})


def bound(letters: str) -> Stack:
    mount = Mount(type="bind", source="/srv/motd", read_only=True, mode=0o644, digest=digest(letters) if letters else "")
    return stack(web=container(mounts={"/etc/motd": mount}))


def test_configs_and_secrets_come_before_who_sees_them():
    assert text(Known().plan(blog())) == golden("""
          1 create   image/blog/app                   because it is new in the manifest
          2 create   config/blog/app                  because it is new in the manifest
          3 create   secret/blog/token                because it is new in the manifest
          4 create   container/blog/web/1  after 1-3  because it is new in the manifest
        4 actions: 4 create
    """)


def test_changed_config_replaces_who_sees_it():
    assert text(Known.of(blog()).plan(blog(config="c1"))) == golden("""
          1 update   config/blog/app                because /digest changed
              /digest  sha256:c00000000000 → sha256:c10000000000  (in-place)
          2 replace  container/blog/web/1  after 1  because /configs/~1etc~1app.conf/digest changed
              /configs/~1etc~1app.conf/digest  sha256:c00000000000 → sha256:c10000000000  (replace)
              discards its writable layer
        2 actions: 1 update, 1 replace
    """)


def test_changed_secret_is_not_shown_not_even_its_digest():
    plan = Known.of(blog()).plan(blog(secret="51"))
    assert text(plan) == golden("""
          1 update   secret/blog/token              because /digest changed
              /digest  (sensitive) → (sensitive, changed)  (in-place)
          2 replace  container/blog/web/1  after 1  because /secrets/~1run~1secrets~1token/digest changed
              /secrets/~1run~1secrets~1token/digest  (sensitive) → (sensitive, changed)  (replace)
              discards its writable layer
        2 actions: 1 update, 1 replace
    """)
    assert "hmac" not in str(plan_json(plan))


def test_who_says_restart_is_started_anew_and_who_says_nothing_goes_on_with_a_signal():
    restart = Known.of(blog(on_change="restart")).plan(blog(config="c1", on_change="restart"))
    assert text(restart).splitlines()[2:4] == [
        "  2 restart  container/blog/web/1  after 1  because /configs/~1etc~1app.conf/digest changed",
        "      /configs/~1etc~1app.conf/digest  sha256:c00000000000 → sha256:c10000000000  (restart)",
    ]
    hup = {"on_change": "nothing", "signal": "SIGHUP"}
    nothing = Known.of(blog(**hup)).plan(blog(config="c1", secret="51", **hup))
    assert text(nothing) == golden("""
          1 update   config/blog/app                  because /digest changed
              /digest  sha256:c00000000000 → sha256:c10000000000  (in-place)
          2 update   secret/blog/token                because /digest changed
              /digest  (sensitive) → (sensitive, changed)  (in-place)
          3 update   container/blog/web/1  after 1,2  because 2 paths changed
              /configs/~1etc~1app.conf/digest  sha256:c00000000000 → sha256:c10000000000  (in-place)
              /secrets/~1run~1secrets~1token/digest  (sensitive) → (sensitive, changed)  (in-place)
              is sent SIGHUP
        3 actions: 3 update
    """).replace("2 paths", "/configs/~1etc~1app.conf/digest and /secrets/~1run~1secrets~1token/digest")


def test_mode_and_owner_of_a_file_follow_on_change_too():
    known = Known.of(blog(on_change="nothing"))
    wanted = blog(on_change="nothing", uid=33)
    [action] = known.plan(wanted).actions
    assert {(change.path, change.effect.value) for change in action.changes} == {
        ("/configs/~1etc~1app.conf/uid", "in-place"),
        ("/secrets/~1run~1secrets~1token/uid", "in-place"),
    }


def test_what_only_says_what_a_change_would_mean_changes_nothing():
    assert text(Known.of(blog()).plan(blog(on_change="nothing", signal="SIGHUP"))) == "nothing to do"


def test_one_more_file_replaces():
    known = Known.of(stack(web=container()))
    last = known.plan(blog()).actions[-1]
    assert (last.key, last.verb.value) == (WEB, "replace")
    assert {change.path for change in last.changes} == {"/configs/~1etc~1app.conf", "/secrets/~1run~1secrets~1token"}
    assert "hmac" not in str(last.changes)


def test_bound_file_that_changed_replaces_as_a_config_does():
    assert text(Known.of(bound("b0")).plan(bound("b1"))) == golden("""
          1 replace  container/blog/web/1  because /mounts/~1etc~1motd/digest changed
              /mounts/~1etc~1motd/digest  sha256:b00000000000 → sha256:b10000000000  (replace)
              discards its writable layer
        1 action: 1 replace
    """)


def test_file_that_is_too_large_to_keep_is_told_where_its_container_changes():
    desired = replace(desire(bound("")), live={WEB: ("/etc/motd is not kept with the revision: it is large",)})
    assert text(Known.of(bound("b0")).plan_desired(desired)).splitlines()[-2:] == [
        "  container/blog/web/1  /etc/motd is not kept with the revision: it is large",
        "1 action: 1 replace",
    ]
    assert text(Known.of(bound("")).plan_desired(desired)) == "nothing to do"


def test_removed_config_goes_after_its_container_moved_on_and_needs_no_yes():
    plan = Known.of(blog()).plan(stack(web=container()))
    assert [(action.verb.value, action.key) for action in plan.actions] == [
        ("replace", WEB),
        ("delete", SECRET),
        ("delete", CONFIG),
    ]
    assert needs_yes(plan, {Verb.DELETE}) == ""


def test_altered_file_is_mended_in_place_and_a_missing_one_by_a_restart():
    known = Known.of(blog())
    drifted = known.drifted(WEB, contents=altered("/etc/app.conf", "as written", "changed by others"))
    assert text(drifted.plan(blog())) == golden("""
          1 update   container/blog/web/1  because contents drifted
              /parts/contents  /etc/app.conf changed by others → /etc/app.conf as written  (in-place)
        1 action: 1 update
    """)
    gone = known.drifted(WEB, contents=missing("restart"))
    assert [action.verb.value for action in gone.plan(blog()).actions] == ["restart"]


def test_saved_plan_carries_its_contents():
    desired = replace(desire(blog()), contents={digest("c0"): Sensitive("aGk=")})
    plan = Known().plan_desired(desired)
    assert plan.contents == desired.contents
    assert load_plan(dump_plan(plan), path="p").contents == plan.contents
    assert "aGk=" not in str(plan_json(plan))
    assert isinstance(plan.specs[WEB], ContainerSpec)
    assert DATA not in plan.specs
