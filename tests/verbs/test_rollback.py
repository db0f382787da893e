"""Going back, by hand and by itself, on the memory engine: what is there afterwards, what is recorded, what is said."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from plan.builders import container, stack, volume_at
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.errors import ConvergeFailed, Failed, NotFound, ReconcileError, RolledBack
from reconciler.model.events import AnyEvent
from reconciler.model.key import container_key
from reconciler.model.observation import Phase
from reconciler.model.record import Stack
from reconciler.model.spec import Healthcheck, Mount, Update, VolumeSpec
from reconciler.plan.past import summarize_differences
from reconciler.store.store import open_store
from reconciler.verbs import history as past
from reconciler.verbs.apply import Applied, ApplyOptions, apply
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish, plan
from reconciler.verbs.rollback import Return, plan_rollback, rollback
from reconciler.verbs.root import Root

WEB, DB, NEW = (container_key("blog", name) for name in ("web", "db", "new"))
CHECK = Healthcheck(test=("CMD", "true"), interval=1.0, retries=1)
GOOD, BAD = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Bench(Root):
    """A root on a machine of values, whose clock is the machine's."""

    def __init__(self, path: Path) -> None:
        self.machine = Machine()
        self.machine.registry["registry.test/app:1"] = Published(digest=GOOD)
        self.machine.registry["registry.test/bad:1"] = Published(digest=BAD, healthy=False)
        store = open_store(path, create=True)
        engine = MemoryEngine(self.machine, read_content=store.read_content)
        super().__init__(path, root_id="aaaaa", store=store, engine=engine)
        self.events: list[AnyEvent] = []
        self.shown: list[Any] = []
        self.face = Face(emit=self.events.append, show=self.shown.append)

    def ground(self, created=None):  # type: ignore[no-untyped-def]
        made = super().ground(created)
        return structs.replace(made, clock=lambda: self.machine.now, pause=lambda _: None)

    def apply(self, wanted: Stack, *, resume: bool = False, **options: Any) -> Applied:
        wish = Wish(stacks=(wanted,), resume=resume)
        return apply(self, wish, ApplyOptions(yes=True, allow_delete=True, **options), face=self.face)

    def rollback(self, number: int = 0, **options: Any) -> Applied:
        wish = Return(stack="blog", number=number, note="it leaks")
        return rollback(self, wish, ApplyOptions(yes=True, allow_delete=True, **options), face=self.face)

    def running(self) -> dict[str, tuple[str, ...] | None]:
        """By name, what each container that runs was told to run."""
        live = [thing.made for thing in self.machine.containers.values() if thing.phase is Phase.RUNNING]
        return {made.key.split("/")[2]: made.spec.command for made in live}  # type: ignore[union-attr]

    def results(self) -> list[tuple[int, str, str]]:
        return [(one.revision.number, one.revision.source, one.revision.result) for one in past.history(self, "blog")]

    def hold(self) -> Any:
        with self.store.read() as tx:
            return tx.stacks()["blog"].hold


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "root")
    yield made
    made.close()


def blog(command: str, image: str = "app", on_failure: str = "rollback", **others: Any) -> Stack:
    update = Update(on_failure=on_failure)
    web = container(image, command=(command,), healthcheck=CHECK, update=update)
    made = stack(web=web, db=container(command=(f"db-{command}",), healthcheck=CHECK), **others)
    return structs.replace(made, sources=None)


# --- by itself ---


def test_failed_apply_takes_the_whole_stack_back(bench: Bench) -> None:
    bench.apply(blog("one"))
    with pytest.raises(RolledBack) as raised:
        bench.apply(blog("two", "bad", new=container(healthcheck=CHECK)))
    assert raised.value.exit_code == 4
    assert raised.value.brief == "stack blog is back at revision 1: the apply failed"
    assert "1 failed (container/blog/web/1)" in raised.value.detail
    assert bench.running() == {"web": ("one",), "db": ("db-one",)}
    assert bench.results() == [
        (1, "blog.yaml", "done"),
        (2, "blog.yaml", "rolled back to 1: container/blog/web/1: unhealthy after 1 tries: made unhealthy"),
        (3, "rollback to 1", "done"),
    ]
    assert bench.hold() is None
    assert [plan.summary["replace"] for plan in bench.shown] == [0, 2, 1]
    assert bench.apply(blog("one")).result is None


BACK = {
    # which container says so, and which one fails: what becomes of the apply
    ("web", "web"): RolledBack,
    ("web", "db"): ConvergeFailed,
    ("", "web"): ConvergeFailed,
}


@pytest.mark.parametrize(("says", "fails"), BACK)
def test_who_says_rollback_and_who_fails(bench: Bench, says: str, fails: str) -> None:
    def version(command: str) -> Stack:
        specs = {
            name: container(
                command=(command,), healthcheck=CHECK, update=Update(on_failure="rollback" if name == says else "")
            )
            for name in ("web", "db")
        }
        return structs.replace(stack(**specs), sources=None)

    bench.apply(version("one"))
    bench.machine.fail_next("start", container_key("blog", fails))
    with pytest.raises(BACK[says, fails]):
        bench.apply(version("two"))
    other = "db" if fails == "web" else "web"
    assert bench.running()[other] == (("one",) if BACK[says, fails] is RolledBack else ("two",))


def test_skipped_container_that_says_rollback_takes_its_stack_back(bench: Bench) -> None:
    def version(command: str) -> Stack:
        db = container(command=(command,), healthcheck=CHECK)
        web = container(command=(command,), depends_on={"db": "healthy"}, update=Update(on_failure="rollback"))
        return structs.replace(stack(web=web, db=db), sources=None)

    bench.apply(version("one"))
    bench.machine.fail_next("start", DB)
    with pytest.raises(RolledBack):
        bench.apply(version("two"))
    assert bench.running() == {"web": ("one",), "db": ("one",)}


def test_first_apply_that_fails_has_nothing_to_go_back_to(bench: Bench) -> None:
    with pytest.raises(Failed) as raised:
        bench.apply(blog("one", "bad"))
    assert raised.value.exit_code == 1
    assert "there is no revision to go back to: none was ever reached" in raised.value.detail
    assert [result for _, _, result in bench.results()] == ["failed"]
    assert bench.running()["db"] == ("db-one",)


def test_what_was_good_and_is_the_same_is_no_way_back(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.machine.vanish(WEB)
    bench.machine.fail_next("start", WEB)
    with pytest.raises(Failed, match="could not go back") as raised:
        bench.apply(blog("one"))
    assert "the last revision that was reached, 1, is the same" in raised.value.detail


def test_going_back_that_fails_too_says_both(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.machine.fail_next("prepare", WEB)

    def break_db(shown: Any) -> None:
        if len(bench.shown) == 3:
            bench.machine.fail_next("prepare", DB, "no disk")
        bench.shown.append(shown)

    bench.face = structs.replace(bench.face, show=break_db)
    bench.shown.append("the first apply's is not counted")
    with pytest.raises(Failed) as raised:
        bench.apply(blog("two"))
    assert raised.value.exit_code == 1
    assert "going back to revision 1 failed too: container/blog/db/1: prepare failed" in raised.value.detail
    assert [result for _, _, result in bench.results()] == ["done", "failed", "failed"]
    bench.face = structs.replace(bench.face, show=bench.shown.append)
    assert bench.apply(blog("two")).result is not None


def test_last_good_revision_is_kept_however_many_fail(bench: Bench) -> None:
    bench.apply(blog("one"))
    for number in range(4):
        with pytest.raises(ReconcileError):
            bench.apply(blog(f"bad-{number}", "bad", on_failure=""), keep=2)
    assert [number for number, _, _ in bench.results()] == [1, 4, 5]
    with pytest.raises(RolledBack, match="revision 1"):
        bench.apply(blog("two", "bad"), keep=2)


# --- by hand ---


def test_rollback_holds_until_the_manifest_changes(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    bench.rollback()
    assert bench.running()["web"] == ("one",)
    assert bench.results()[-1] == (3, "rollback to 1", "done")
    assert (bench.hold().kind, bench.hold().why) == ("rollback", "it leaks")
    for _ in range(2):
        assert bench.apply(blog("two")).result is None
        assert "is held at revision 1 by a rollback of" in bench.shown[-1].remarks[0]
        assert bench.running()["web"] == ("one",)
    bench.apply(blog("three"))
    assert bench.running()["web"] == ("three",)
    assert "what is applied has changed since" in bench.shown[-1].remarks[0]
    assert bench.hold() is None


def test_resume_ends_a_rollback(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    bench.rollback()
    bench.apply(blog("two"), resume=True)
    assert bench.running()["web"] == ("two",)
    assert bench.hold() is None


def test_held_stack_is_mended_as_it_is_held(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    bench.rollback()
    bench.machine.vanish(WEB)
    bench.apply(blog("two"))
    assert bench.running()["web"] == ("one",)
    assert bench.apply(blog("two")).result is None
    assert bench.hold() is not None


def test_manifest_that_comes_to_what_it_is_held_at_ends_the_hold_though_nothing_is_to_do(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    bench.rollback()
    assert bench.apply(blog("one")).result is None
    assert bench.hold() is None


def test_rollback_brings_back_what_was_deleted_and_the_digest_that_was_applied(bench: Bench) -> None:
    bench.apply(blog("one", new=container(healthcheck=CHECK)))
    bench.machine.registry["registry.test/app:1"] = Published(digest=BAD)
    bench.machine.registry["registry.test/old:1"] = Published(digest=GOOD)
    always = blog("two")
    app = next(key for key in always.specs if key == "image/blog/app")
    moved = structs.replace(always, specs={**always.specs, app: structs.replace(always.specs[app], pull="always")})
    bench.apply(moved)
    assert {thing.made.image for thing in bench.machine.containers.values()} == {BAD}
    bench.rollback(1)
    assert {thing.made.image for thing in bench.machine.containers.values()} == {GOOD}
    assert set(bench.running()) == {"web", "db", "new"}


def test_volumes_never_go_back(bench: Bench) -> None:
    bench.apply(blog("one"))
    wanted = blog("two", new=container(healthcheck=CHECK, mounts=volume_at("/data", "data")))
    bench.apply(wanted)
    [volume] = bench.machine.volumes.values()
    volume.data["row"] = b"1"
    bench.rollback(1)
    assert set(bench.running()) == {"web", "db"}
    assert [thing.data for thing in bench.machine.volumes.values()] == [{"row": b"1"}]
    assert any("kept: no longer in the manifest" in line.text for line in bench.shown[-1].lines)
    bench.rollback(2)
    assert [thing.data for thing in bench.machine.volumes.values()] == [{"row": b"1"}]


def with_volume(command: str, name: str, image: str = "app", **fields: Any) -> Stack:
    stateful = container(image, command=(command,), healthcheck=CHECK, mounts=volume_at("/data", name))
    made = stack(db=structs.replace(stateful, update=Update(on_failure="rollback")), volumes={name: VolumeSpec(**fields)})
    return structs.replace(made, sources=None)


def test_volume_that_was_renamed_since_gets_its_former_name_again(bench: Bench) -> None:
    """By hand, and forth again: whoever mounts it finds its data."""
    bench.apply(with_volume("one", "data"))
    [volume] = bench.machine.volumes.values()
    volume.data["row"] = b"1"
    bench.apply(with_volume("two", "rows", moved="data"))
    bench.rollback()
    assert bench.running() == {"db": ("one",)}
    bench.apply(with_volume("two", "rows", moved="data"), resume=True)
    assert bench.running() == {"db": ("two",)}
    assert [thing.data for thing in bench.machine.volumes.values()] == [{"row": b"1"}]


def test_failed_apply_that_renamed_a_volume_goes_back_to_the_name_too(bench: Bench) -> None:
    bench.apply(with_volume("one", "data"))
    [volume] = bench.machine.volumes.values()
    volume.data["row"] = b"1"
    with pytest.raises(RolledBack):
        bench.apply(with_volume("two", "rows", "bad", moved="data"))
    assert bench.apply(with_volume("one", "data")).result is None
    assert [thing.data for thing in bench.machine.volumes.values()] == [{"row": b"1"}]


def test_what_cannot_be_had_any_more_is_said_before_anything_changes(bench: Bench, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    bench.apply(blog("one", new=container(healthcheck=CHECK, mounts={"/x": Mount(type="bind", source=str(gone))})))
    bench.machine.registry["registry.test/app:1"] = Published(digest=BAD)
    two = blog("two")
    moved = {**two.specs, "image/blog/app": structs.replace(two.specs["image/blog/app"], pull="always")}
    bench.apply(structs.replace(two, specs=moved))
    del bench.machine.content[GOOD]
    gone.rmdir()
    before = dict(bench.machine.containers)
    for attempt in (lambda: bench.rollback(1), lambda: plan_rollback(bench, Return(stack="blog", number=1), now=0.0)):
        with pytest.raises(Failed, match="can't go back to revision 1: what it needs is gone") as raised:
            attempt()
        assert f"{gone}, mounted at /x, is not there" in raised.value.detail
        assert f"image/blog/app: {GOOD[:19]} is not here" in raised.value.detail
        assert raised.value.exit_code == 1
    assert bench.machine.containers == before
    assert bench.hold() is None
    assert bench.results()[-1][0] == 2


def test_rollback_that_fails_stays_held_and_goes_nowhere_else(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    bench.machine.fail_next("prepare", WEB)
    with pytest.raises(ConvergeFailed):
        bench.rollback(1)
    assert bench.hold() is not None
    bench.apply(blog("two"))
    assert bench.running() == {"web": ("one",), "db": ("db-one",)}


def test_numbers_and_names_that_are_not_there(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.rollback()
    bench.apply(blog("one"))
    with pytest.raises(Failed, match="no revision to go back to"):
        bench.rollback()
    with pytest.raises(Failed, match="has no revision 7"):
        bench.rollback(7)


def test_dry_run_changes_nothing(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two"))
    made, found = plan_rollback(bench, Return(stack="blog"), now=0.0)
    assert (made.summary["replace"], found.number) == (2, 1)
    assert bench.running()["web"] == ("two",)
    assert len(bench.results()) == 2
    assert plan(bench, Wish(stacks=(blog("two"),)), now=0.0)[0].actions == ()


# --- history ---


def test_history_says_what_each_revision_changed(bench: Bench) -> None:
    bench.apply(blog("one"))
    bench.apply(blog("two", new=container(healthcheck=CHECK)))
    bench.rollback()
    changed = [summarize_differences(one.changed or []) for one in past.history(bench, "blog")]
    assert changed == [
        "+image app; +db; +web",
        "db: command; +new; web: command",
        "db: command; -new; web: command",
    ]
    assert past.diff(bench, "blog", 1, 3) == []
    assert [(one.key, one.what) for one in past.diff(bench, "blog", 1, 2)] == [
        (DB, "changed"),
        (NEW, "added"),
        (WEB, "changed"),
    ]


def test_sensitive_values_are_not_in_a_difference(bench: Bench) -> None:
    from reconciler.model.spec import Sensitive
    from reconciler.plan.past import render_differences

    for word in ("hunter1", "hunter2"):
        bench.apply(structs.replace(stack(web=container(env={"T": Sensitive(word)}, healthcheck=CHECK)), sources=None))
    lines = render_differences(past.diff(bench, "blog", 1, 2))
    assert lines == ["changed  container/blog/web/1", "      /env/T  (sensitive) → (sensitive, changed)  (replace)"]


def test_images_of_kept_revisions_are_not_pruned(bench: Bench) -> None:
    from reconciler.verbs.images import prune

    bench.apply(blog("one"))
    bench.machine.registry["registry.test/app:1"] = Published(digest=BAD)
    two = blog("two")
    moved = {**two.specs, "image/blog/app": structs.replace(two.specs["image/blog/app"], pull="always")}
    bench.apply(structs.replace(two, specs=moved))
    prune(bench, all_=False, dry_run=False)
    assert set(bench.machine.content) == {GOOD, BAD}
    past.drop(bench, "blog", keep=1)
    prune(bench, all_=False, dry_run=False)
    assert set(bench.machine.content) == {BAD}
