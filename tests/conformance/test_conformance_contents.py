"""Configs, secrets and bound files: what a container sees, what of it changes beneath it, what is said when others do."""

import pytest
from grounds import Ground, wait_for
from msgspec import structs

from reconciler.model.errors import Failed
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import Phase
from reconciler.model.record import Made
from reconciler.model.spec import ConfigSpec, ContainerSpec, FileMount, Mount, SecretSpec

APP, TOKEN, MOTD = "/etc/app.conf", "/run/secrets/token", "/etc/motd"
WATCH = ("sh", "-c", "trap 'echo got it' HUP; echo got it; while :; do sleep 0.05; done")
"""Says `got it` once it listens to signals, and again for each."""


def web(ground: Ground, config: str = "one", **file: object) -> Made:
    """A container that sees a config of this text, a secret and a bound file."""
    kept = {name: ground.keep(name) for name in (config, "swordfish", "welcome")}
    return ground.container(
        "web",
        ground.image(),
        command=WATCH,
        configs={APP: FileMount(source="app", digest=kept[config], **file)},
        secrets={TOKEN: FileMount(source="token", digest=kept["swordfish"], uid=82, gid=83, mode=0o400)},
        mounts={MOTD: Mount(type="bind", source="/no/where", read_only=True, digest=kept["welcome"], mode=0o640)},
    )


def with_config(ground: Ground, made: Made, text: str) -> Made:
    assert isinstance(made.spec, ContainerSpec)
    file = structs.replace(made.spec.configs[APP], digest=ground.keep(text))
    return ground.change(made, configs={APP: file})


def signals_at_first(ground: Ground, made: Made) -> int:
    """How often it has said so once it listens: values have no ears, and say nothing."""
    wait_for(lambda: ground.name == "memory" or ground.signals(made) == 1, "it listens")
    return ground.signals(made)


def test_container_sees_its_files_with_owner_and_mode(ground: Ground) -> None:
    made = web(ground)
    ground.up()
    assert ground.read_file(made, APP) == ("one", 0, 0, 0o444)
    assert ground.read_file(made, TOKEN) == ("swordfish", 82, 83, 0o400)
    assert ground.read_file(made, MOTD) == ("welcome", 0, 0, 0o640)
    assert ground.drifted() == []


def test_configs_and_secrets_are_always_there(ground: Ground) -> None:
    config = ground.add(Made(key=make_key(Kind.CONFIG, "blog", "app"), spec=ConfigSpec(digest="sha256:" + "0" * 64)))
    secret = ground.add(Made(key=make_key(Kind.SECRET, "blog", "token"), spec=SecretSpec(digest="sha256:" + "1" * 64)))
    for made in (config, secret):
        assert ground.create(made).phase is Phase.PRESENT
        assert ground.update(made, made).phase is Phase.PRESENT
        assert ground.status(made).phase is Phase.PRESENT
        ground.delete(made)


def test_update_changes_a_file_beneath_a_running_container_and_sends_its_signal(ground: Ground) -> None:
    old = web(ground, on_change="nothing", signal="SIGHUP")
    ground.up()
    pid = ground.status(old).pid
    new = with_config(ground, old, "two, which is longer")
    before = signals_at_first(ground, old)
    ground.update(old, new)
    assert ground.read_file(new, APP)[0] == "two, which is longer"
    assert ground.status(new).pid == pid
    wait_for(lambda: ground.signals(new) == before + 1, "it was sent one signal")
    ground.update(new, with_config(ground, new, "3"))
    assert ground.read_file(new, APP)[0] == "3"
    wait_for(lambda: ground.signals(new) == before + 2, "it was sent another")


def test_update_of_something_else_sends_nothing(ground: Ground) -> None:
    old = web(ground, on_change="nothing", signal="SIGHUP")
    ground.up()
    before = signals_at_first(ground, old)
    labelled = ground.change(old, labels={"a": "b"})
    ground.update(old, labelled)
    ground.update(labelled, with_config(ground, labelled, "two"))
    wait_for(lambda: ground.signals(old) > before, "it was sent one signal")
    assert ground.signals(old) == before + 1


def test_restart_brings_new_files_and_takes_away_those_that_are_gone(ground: Ground) -> None:
    old = web(ground)
    ground.up()
    new = ground.change(with_config(ground, old, "two"), secrets={})
    ground.stop(new, "replaced")
    ground.prepare(new)
    ground.engine.containers.unmark(new)
    ground.start(new)
    assert ground.read_file(new, APP)[0] == "two"
    with pytest.raises(FileNotFoundError):
        ground.read_file(new, TOKEN)
    assert ground.copies(new) == {b"two", b"welcome"}
    assert ground.drifted() == []


def test_content_that_is_not_kept_fails_the_prepare_and_makes_nothing_run(ground: Ground) -> None:
    made = web(ground)
    lost = ground.change(made, configs={APP: FileMount(source="app", digest="sha256:" + "9" * 64)})
    for thing in ground.mades:
        if thing is not lost:
            ground.create(thing)
    ground.engine.settle(ground.view)
    with pytest.raises(Failed, match="is not kept"):
        ground.prepare(lost)
    assert ground.status(lost).phase is not Phase.RUNNING


def test_altered_file_is_named_and_mended_with_the_same_pid(ground: Ground) -> None:
    made = web(ground)
    ground.up()
    pid = ground.status(made).pid
    ground.alter_file(made, APP)
    [(who, name, part)] = ground.drifted()
    assert (who.key, name, part.state, part.mend) == (made.key, "contents", "altered", "in-place")
    ground.update(made, made)
    assert ground.drifted() == []
    assert ground.read_file(made, APP)[0] == "one"
    assert ground.status(made).pid == pid


def test_removed_file_is_named_and_takes_a_restart(ground: Ground) -> None:
    made = web(ground)
    ground.up()
    ground.remove_file(made, APP)
    [(_, name, part)] = ground.drifted()
    assert (name, part.state, part.mend) == ("contents", "missing", "restart")
    ground.mend(ground.drifted())
    assert ground.drifted() == []
    assert ground.read_file(made, APP)[0] == "one"
