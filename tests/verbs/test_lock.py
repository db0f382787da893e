"""Lock files written, and what apply and plan make of them, on the memory engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.manifest.lockfile import read_lock
from reconciler.model.errors import RegistryError, Usage
from reconciler.model.record import Stack
from reconciler.plan.explain import render_plan
from reconciler.store.store import open_store
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.face import Face
from reconciler.verbs.lock import ALL, compare, write
from reconciler.verbs.plan import Wish, load, plan
from reconciler.verbs.root import Root

AA, BB, CC = ("sha256:" + letter * 64 for letter in "abc")
APP, DB = "host.test/app:1", "host.test/db:1"
MANIFEST = f"""\
apiVersion: reconcile/v1
name: blog
images:
  app: {{from: "{APP}"}}
containers:
  web: {{image: app}}
  db: {{image: "{DB}"}}
"""


class Bench:
    """A root, a registry, and a folder with a manifest."""

    def __init__(self, folder: Path, root: Root, machine: Machine) -> None:
        self.folder, self.root, self.machine = folder, root, machine
        self.manifest = folder / "stack.yaml"
        self.manifest.write_text(MANIFEST)
        self.publish(APP, AA)
        self.publish(DB, BB)

    def publish(self, tag: str, digest: str) -> None:
        self.machine.registry[tag] = Published(digest=digest)

    def load(self, *, pinned: bool = True) -> tuple[Stack, ...]:
        return load([self.manifest], variables={}, environment={}, pinned=pinned)

    def lock(self, update: str = "") -> dict[str, str]:
        entries = compare(self.load(pinned=False), self.root.engine.images, update=update)
        write(entries)
        return {entry.tag: entry.what for entry in entries}

    def locked(self) -> dict[str, str]:
        found = read_lock(self.manifest, file="stack.yaml")
        return found.digests if found is not None else {}

    def apply(self) -> None:
        apply(self.root, Wish(stacks=self.load()), ApplyOptions(yes=True, wait=False), face=Face())

    def plan(self, **wish: bool) -> str:
        made, _ = plan(self.root, Wish(stacks=self.load(), **wish), now=0.0)
        return "\n".join(render_plan(made)).replace(f"{self.folder}/", "")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    machine = Machine()
    store = open_store(tmp_path / "root", create=True)
    root = Root(tmp_path / "root", root_id="aaaaa", store=store, engine=MemoryEngine(machine))
    folder = tmp_path / "work"
    folder.mkdir()
    yield Bench(folder, root, machine)
    root.close()


def test_every_tag_is_written_once_and_stays_until_it_is_updated(bench: Bench) -> None:
    assert bench.lock() == {APP: "new", DB: "new"}
    assert bench.locked() == {APP: AA, DB: BB}
    bench.publish(APP, CC)
    before = bench.manifest.with_name("stack.yaml.lock").stat().st_mtime_ns
    assert bench.lock() == {APP: "kept", DB: "kept"}
    assert bench.manifest.with_name("stack.yaml.lock").stat().st_mtime_ns == before
    assert bench.lock("app") == {APP: "moved", DB: "kept"}
    assert bench.locked() == {APP: CC, DB: BB}


@pytest.mark.parametrize("update", [ALL, "app", APP])
def test_update_of_all_or_of_one_by_any_of_its_names(bench: Bench, update: str) -> None:
    bench.lock()
    bench.publish(APP, CC)
    bench.publish(DB, CC)
    assert bench.lock(update) == {APP: "moved", DB: "moved" if update == ALL else "kept"}


def test_image_that_left_the_manifest_leaves_the_file(bench: Bench) -> None:
    bench.lock()
    bench.manifest.write_text(MANIFEST.replace(f'db: {{image: "{DB}"}}', "db: {image: app}"))
    assert bench.lock() == {APP: "kept", DB: "removed"}
    assert bench.locked() == {APP: AA}


def test_update_of_what_is_not_there_says_what_is(bench: Bench) -> None:
    with pytest.raises(Usage) as caught:
        bench.lock("nope")
    assert caught.value.hint == "there are app, host.test/db:1"


def test_nothing_is_written_where_one_tag_can_not_be_asked_for(bench: Bench) -> None:
    del bench.machine.registry[DB]
    with pytest.raises(RegistryError):
        bench.lock()
    assert bench.locked() == {}


def test_pulls_that_are_never_made_are_not_locked(bench: Bench) -> None:
    bench.manifest.write_text(MANIFEST.replace(f'app: {{from: "{APP}"}}', f'app: {{from: "{APP}", pull: never}}'))
    assert bench.lock() == {DB: "new"}


def test_apply_takes_what_is_locked_though_the_tag_has_moved(bench: Bench) -> None:
    bench.lock()
    bench.publish(APP, CC)
    bench.machine.registry["host.test/app:old"] = Published(digest=AA)
    bench.apply()
    assert {thing.made.image for thing in bench.machine.containers.values()} == {AA, BB}


def test_no_registry_is_asked_for_what_is_locked_and_here(bench: Bench) -> None:
    bench.manifest.write_text(MANIFEST.replace(f'app: {{from: "{APP}"}}', f'app: {{from: "{APP}", pull: always}}'))
    bench.lock()
    bench.apply()
    bench.machine.registry_answers = False
    assert bench.plan() == "nothing to do"
    bench.apply()


def test_plan_says_that_a_tag_has_moved_where_it_may_ask(bench: Bench) -> None:
    bench.lock()
    bench.apply()
    bench.publish(APP, CC)
    assert bench.plan(ask_tags=True) == (
        "  image/blog/app  the tag has moved since it was locked: sha256:aaaaaaaaaaaa → sha256:cccccccccccc;"
        " `reconcile lock --update` takes that\nnothing to do"
    )
    assert bench.plan() == "nothing to do"
    bench.machine.registry_answers = False
    assert bench.plan(ask_tags=True) == "nothing to do"
    bench.machine.registry_answers = True
    bench.lock(ALL)
    assert "1 update   image/blog/app" in bench.plan(ask_tags=True)
    bench.apply()
    assert bench.plan(ask_tags=True) == "nothing to do"


def test_plan_says_what_is_locked_and_gone_and_what_is_new_and_open(bench: Bench) -> None:
    bench.lock()
    bench.apply()
    bench.publish("host.test/db:2", CC)
    bench.manifest.write_text(MANIFEST.replace(DB, "host.test/db:2"))
    lines = [line for line in bench.plan().splitlines() if "stack.yaml.lock" in line]
    assert lines == [
        "  image/blog/host.test/db:1  stack.yaml.lock names it, and the manifest does not:"
        " `reconcile lock stack.yaml` takes it out",
        "  image/blog/host.test/db:2  stack.yaml.lock does not name it: `reconcile lock stack.yaml` adds it",
    ]


def test_locking_what_runs_replaces_no_container(bench: Bench) -> None:
    bench.apply()
    pids = [thing.pid for thing in bench.machine.containers.values()]
    bench.lock()
    assert "2 actions: 2 update" in bench.plan()
    bench.apply()
    assert [thing.pid for thing in bench.machine.containers.values()] == pids


def test_digest_that_is_gone_from_the_registry_names_the_way_out(bench: Bench) -> None:
    bench.lock()
    bench.publish(APP, CC)
    with pytest.raises(RegistryError) as caught:
        bench.plan()
    assert caught.value.brief == f"{APP}@{AA}: read its manifest: no such image"
    assert caught.value.hint.replace(f"{bench.folder}/", "") == (
        "stack.yaml.lock names that digest: where it is gone,"
        " `reconcile lock --update host.test/app:1 stack.yaml` takes what the tag names now"
    )


def test_plan_says_that_a_tag_is_gone_though_what_it_named_is_here(bench: Bench) -> None:
    bench.lock()
    bench.apply()
    del bench.machine.registry[APP]
    assert bench.plan(ask_tags=True) == (
        "  image/blog/app  whether the tag has moved since it was locked can't be told:"
        " host.test/app:1: ask for its digest: no such image\nnothing to do"
    )
