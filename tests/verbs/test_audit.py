"""Who changed what: one event for each change, with its plan and its result, whoever made it and however it ended."""

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from lab.world import wait_until
from reconciler.converge import workers
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Published
from reconciler.linux.inotify import TouchWaiter, touch
from reconciler.model.errors import NeedsYes, ReconcileError
from reconciler.model.events import Changed, Note, silent
from reconciler.store.rows import StoredEvent
from reconciler.verbs import history
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.containers import stop
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.history import events
from reconciler.verbs.plan import Wish, load
from reconciler.verbs.record import Recorder, acting_as
from reconciler.verbs.root import Root, opened_root

TEXT = """\
apiVersion: reconcile/v1
name: blog
containers:
  web: {{image: "{image}:1", command: [a], env: {{PASSWORD: "${{SECRET}}"}}}}
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    with opened_root(tmp_path / "root", create=True, engine="memory") as opened:
        assert isinstance(opened.engine, MemoryEngine)
        opened.engine.machine.registry = {
            "docker.io/library/box:1": Published(digest="sha256:b0"),
            "docker.io/library/done:1": Published(digest="sha256:d0", exits=3),
        }
        with mock.patch.object(workers, "GATHER", 0), mock.patch("reconciler.converge.waits.SEEN_AFTER", 0.0):
            yield opened


def applied(root: Root, image: str = "box") -> None:
    path = root.path.parent / "blog.yaml"
    path.write_text(TEXT.format(image=image))
    stacks = load([path], variables={"SECRET": "hunter2"}, environment={})
    apply(root, Wish(stacks=stacks), ApplyOptions(yes=True), face=Face())


def told(root: Root, **which: object) -> list[StoredEvent]:
    return list(events(root, follow=False, stop=lambda: True, **which))  # type: ignore[arg-type]


def changes(root: Root) -> list[Changed]:
    return [one.event for one in told(root) if isinstance(one.event, Changed)]


def test_a_change_says_who_what_and_what_came_of_it_and_no_secret(root: Root) -> None:
    with acting_as("ann", uid=1000, pid=7, source="/etc/stacks", commit="c0ffee"):
        applied(root)
    [change] = changes(root)
    assert (change.verb, change.stack, change.who, change.uid, change.pid) == ("apply", "blog", "ann", 1000, 7)
    assert (change.source, change.commit, change.result, change.count) == ("/etc/stacks", "c0ffee", "done", 3)
    assert change.actions[-1] == "create container/blog/web/1: new"
    assert "hunter2" not in str(told(root))


def test_what_changes_nothing_is_no_change(root: Root) -> None:
    applied(root)
    applied(root)
    assert len(changes(root)) == 1


def test_what_fails_and_what_is_refused_say_why(root: Root) -> None:
    applied(root)
    with pytest.raises(ReconcileError):
        applied(root, image="done")
    with pytest.raises(NeedsYes):
        delete(root, Doomed(stack="blog", take_over=True), ApplyOptions(), face=Face())
    _, failed, refused = changes(root)
    assert (failed.verb, failed.result) == ("apply", "failed")
    assert "container/blog/web/1: ended with 3" in failed.why
    assert (refused.verb, refused.result) == ("delete", "refused")
    assert "nobody can be asked" in refused.why


def test_what_is_done_by_hand_is_a_change_too(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "bob")
    monkeypatch.setenv("SUDO_UID", "1001")
    applied(root)
    stop(root, "blog/web", emit=silent)
    with pytest.raises(ReconcileError):
        stop(root, "blog/nothing", emit=silent)
    assert [(one.verb, one.who, one.uid, one.actions) for one in changes(root)[1:]] == [
        ("stop", "bob", 1001, ("stop container/blog/web/1: requested",))
    ]


def test_events_since_a_moment_are_read_in_pages(root: Root) -> None:
    applied(root)
    with Recorder(root, silent, ["blog"]) as recorder:
        for number in range(2500):
            recorder(Note(text=str(number), at=1000.0 + number))
    texts = [one.event.text for one in told(root, since=1200.0) if isinstance(one.event, Note)]
    assert texts == [str(number) for number in range(200, 2500)]
    assert len(told(root)) == 1000
    [*_, last] = told(root)
    assert told(root, after=last.id) == []
    assert [one.event for one in told(root, stack="nobody's")] == []


def test_who_follows_is_woken_by_a_write_of_any_process(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "UNSERVED_WAIT", 60.0)  # Who polled would come too late.
    applied(root)
    seen: list[str] = []
    ready, ended = threading.Event(), threading.Event()

    def follow() -> None:
        for one in events(root, follow=True, stop=ended.is_set, longest_wait=60.0):
            if isinstance(one.event, Note):
                seen.append(one.event.text)
            ready.set()

    def say(text: str) -> None:
        with opened_root(root.path, engine="memory") as other, Recorder(other, silent, ["blog"]) as recorder:
            recorder(Note(text=text))

    thread = threading.Thread(target=follow)
    thread.start()
    assert ready.wait(10)
    say("hello")
    wait_until(lambda: seen == ["hello"], "it is seen", seconds=20)
    ended.set()
    say("the end")
    thread.join(20)
    assert not thread.is_alive()


def test_who_waits_for_a_touch_hears_it_and_no_write(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_text("x")
    waiter = TouchWaiter(path)
    path.write_text("y")
    assert not waiter.wait(0.05)
    touch(path)
    touch(path)
    assert waiter.wait(1.0)
    assert not waiter.wait(0.0)
    waiter.close()
    with pytest.raises(OSError, match="No such file"):
        TouchWaiter(tmp_path / "gone")
