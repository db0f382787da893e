"""Going back on the real kernel: by itself when an apply fails, by hand, and what a rollback holds."""

from typing import Any

import pytest

from lab.images import lab_images
from lab.world import World

pytestmark = pytest.mark.root

CHECK = {"test": ["CMD", "wget", "-q", "-O-", "http://127.0.0.1:8080/"], "interval": "200ms", "retries": 10}


def blog(image: str = "web:1", word: str = "one", **fields: Any) -> dict[str, Any]:
    web = {
        "image": "app",
        "ports": ["127.0.0.1:8080:8080"],
        "healthcheck": CHECK,
        "configs": ["motd"],
        "mounts": ["data:/data"],
        "stop_grace": "2s",
    }
    box = {"image": "127.0.0.1:5000/busybox:1", "command": ["pause"], "stop_grace": "1s", "env": {"WORD": word}}
    return {
        "apiVersion": "reconcile/v1",
        "name": "blog",
        "update": {"on_failure": "rollback"},
        "images": {"app": {"from": f"127.0.0.1:5000/{image}"}},
        "volumes": {"data": {}},
        "configs": {"motd": {"content": f"this is {word}\n"}},
        "containers": {"web": web | fields, "box": box},
    }


def state(world: World) -> dict[str, str]:
    """What the outside sees of the stack: page, config, environment, what was written into the volume."""
    return {
        "page": world.fetch("http://127.0.0.1:8080/"),
        "motd": world.run("exec", "web", "cat", "/motd", check=0).out.strip(),
        "word": world.run("exec", "box", "sh", "-c", "echo $WORD", check=0).out.strip(),
        "row": world.run("exec", "web", "cat", "/data/row", check=0).out.strip(),
    }


@pytest.fixture
def applied(world: World) -> World:
    world.write(blog())
    world.run("apply", "stack.yaml", "--yes", check=0)
    world.run("exec", "-i", "web", "sh", "-c", "echo kept >/data/row", check=0)
    return world


def test_failed_apply_goes_back_with_its_image_its_contents_and_not_its_data(applied: World):
    before, page = state(applied), applied.record("blog/web")
    applied.write(blog("web:sick", "two", healthcheck={"test": ["CMD", "false"], "interval": "100ms", "retries": 2}))
    failed = applied.run("apply", "stack.yaml", "--yes", check=4)
    assert "stack blog is back at revision 1" in failed.err
    assert "container/blog/web/1" in failed.err
    assert "unhealthy after 2 tries" in failed.out
    assert state(applied) == before
    assert applied.record("blog/web")["status"]["image"] == page["status"]["image"]
    assert applied.record("blog/web")["status"]["addresses"] == page["status"]["addresses"]
    results = [entry["result"] for entry in applied.run("history", "blog", "-o", "json", check=0).json()]
    assert [result.partition(":")[0] for result in results] == ["done", "rolled back to 1", "done"]
    applied.write(blog())
    assert applied.plan("stack.yaml")["actions"] == []


def test_first_apply_that_fails_says_that_there_is_nothing_to_go_back_to(world: World):
    world.write(blog(command=["/no/such/program"]))
    failed = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "there is no revision to go back to: none was ever reached" in failed.err


def test_rollback_by_hand_goes_back_holds_and_ends_when_the_manifest_changes(applied: World):
    before = state(applied)
    applied.write(blog("web:2", "two"))
    applied.run("apply", "stack.yaml", "--yes", check=0)
    assert "second edition" in state(applied)["page"]
    shown = applied.run("rollback", "blog", "--dry-run", check=2)
    assert "goes back to revision 1 and is held there" in shown.out
    applied.run("rollback", "blog", "--yes", "--note", "ugly", check=0)
    assert state(applied) == before
    assert applied.record("blog/web")["status"]["image"] == lab_images()["web:1"].manifest().digest
    for command in (["plan", "stack.yaml"], ["apply", "stack.yaml", "--yes"]):
        told = applied.run(*command, check=0)
        assert "stack blog is held at revision 1 by a rollback of root" in told.out
        assert "(ugly)" in told.out
        assert "--resume" in told.out
    assert state(applied) == before
    assert "held: rollback by root" in applied.run("get", check=0).out
    assert "held: rollback by root" in applied.run("status", check=2).out
    assert applied.run("describe", "container/web", "-o", "json", check=0).json()[0]["stack_held"]["why"] == "ugly"
    applied.write(blog("web:2", "three"))
    told = applied.run("apply", "stack.yaml", "--yes", check=0)
    assert "no longer held by the rollback of root: what is applied has changed since" in told.out
    assert (state(applied)["word"], state(applied)["row"]) == ("three", "kept")
    assert applied.run("status").code == 0


def test_rollback_to_an_image_that_is_gone_is_refused_before_anything_changes(applied: World):
    applied.write(blog("web:2", "two"))
    applied.run("apply", "stack.yaml", "--yes", check=0)
    before = applied.pid("blog/web")
    applied.run("images", "prune", "--all", check=0)
    assert applied.registry
    applied.signal(applied.registry.process)
    applied.registry.process.wait(10)
    applied.registry = None
    refused = applied.run("rollback", "blog", "--yes", check=1)
    digest = lab_images()["web:1"].manifest().digest
    assert "stack blog can't go back to revision 1: what it needs is gone" in refused.err
    assert f"image/blog/app: {digest[:19]} is not here" in refused.err
    assert applied.pid("blog/web") == before


def test_history_compares_revisions_without_telling_secrets(applied: World):
    applied.write(blog("web:2", "two", env={"TOKEN": "${TOKEN}"}))
    applied.run("apply", "stack.yaml", "--yes", "--var", "TOKEN=planted", check=0)
    shown = applied.run("history", "blog", "--diff", "1", "2", check=0).out
    for words in (
        "changed  container/blog/web/1",
        "/env/TOKEN  (unset) → (sensitive)",
        "changed  image/blog/app",
        "/digest",
    ):
        assert words in shown
    listed = applied.run("history", "blog", check=0).out
    assert "web: " in listed
    assert "planted" not in shown + listed
