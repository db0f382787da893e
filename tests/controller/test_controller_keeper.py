"""What a controller makes of folders, drift and failures, on the memory engine and with a clock of the test's own."""

import itertools

import pytest

from controller.conftest import MANIFEST, Controlled
from reconciler.controller.sources.directory import DirectorySource
from reconciler.model.errors import OriginDiffers
from reconciler.model.events import ActionDone
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.observation import missing
from reconciler.model.record import GOING_BACK
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.containers import stop
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish, load
from reconciler.verbs.status import status


def web(stack: str):
    return container_key(stack, "web")


def test_what_is_in_the_folder_runs_and_what_changes_is_applied(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.write("shop", command="s")
    controlled.run(3)
    assert controlled.commands() == {"blog": "a", "shop": "s"}
    pids = {thing.made.key: thing.pid for thing in controlled.machine.containers.values()}
    controlled.write("blog", command="b")
    controlled.run(controlled.policy.poll + 1)
    assert controlled.commands() == {"blog": "b", "shop": "s"}
    assert pids[web("shop")] in [thing.pid for thing in controlled.machine.containers.values()]
    revision = next(condition.revision for condition in status(controlled.root, "blog").stacks)
    assert revision is not None
    assert revision.who == f"serve {controlled.folder}"


def test_a_controller_that_is_started_anew_finds_all_as_it_is(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    calls = list(controlled.machine.calls)
    controlled.begin()
    controlled.run(600)
    changes = [call for call in controlled.machine.calls[len(calls) :] if not call.startswith("settle")]
    assert changes == []
    assert controlled.notes() == []


def test_drift_is_mended_within_one_resync_and_only_there(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.write("shop")
    controlled.run(3)
    pids = {thing.made.key: thing.pid for thing in controlled.machine.containers.values()}
    controlled.machine.vanish(web("blog"))
    controlled.run(controlled.policy.resync + 2)
    now = {thing.made.key: thing.pid for thing in controlled.machine.containers.values()}
    assert now.keys() == pids.keys()
    assert now[web("shop")] == pids[web("shop")]
    assert now[web("blog")] != pids[web("blog")]
    done = [event for event in controlled.events if isinstance(event, ActionDone) and event.key == web("blog")]
    assert [event.because for event in done] == ["it is new in the manifest", "it is gone from the machine"]


def test_with_warn_drift_is_told_once_and_left(open_controlled) -> None:
    controlled = open_controlled(heal=False)
    controlled.write("blog")
    controlled.run(3)
    controlled.notes()
    controlled.machine.drift(web("blog"), "monitor", missing())
    controlled.run(3 * controlled.policy.resync)
    controlled.queue.add("stack blog", controlled.now)  # as the end of a process has it looked at
    controlled.run(1)
    assert controlled.machine.find(web("blog"))[0].parts["monitor"].state == "missing"
    [told] = controlled.notes()
    assert told == "stack blog drifted, which is told only (apply: update container/blog/web/1)"


def test_version_that_fails_is_rolled_back_once_and_tried_again_only_when_it_changes(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    controlled.notes()
    controlled.write("blog", image="done:1", command="bad")
    controlled.run(controlled.policy.poll + 2)
    assert controlled.commands() == {"blog": "a"}
    told = "\n".join(controlled.notes())
    assert "stack blog waits for another version" in told
    assert "made container/blog/web/1" in told  # the last of its log
    started = [call for call in controlled.machine.calls if call.startswith("start ")]
    controlled.run(3600)
    controlled.begin()
    controlled.run(3600)
    assert [call for call in controlled.machine.calls if call.startswith("start ")] == started
    [condition] = status(controlled.root, "blog").stacks
    assert condition.stack.hold is not None
    assert condition.stack.hold.kind == "rollback"
    assert not condition.stack.source.startswith(GOING_BACK)
    controlled.write("blog", command="mended")
    controlled.run(controlled.policy.poll + 2)
    assert controlled.commands() == {"blog": "mended"}
    assert status(controlled.root, "blog").stacks[0].findings == ()


def test_stack_that_always_fails_waits_longer_each_time_and_delays_no_other(controlled: Controlled) -> None:
    controlled.write("bad", image="nowhere:1")
    controlled.write("good")
    controlled.run(900)
    tries = [at for at, key in controlled.worked if key == "stack bad"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert controlled.commands() == {"good": "a"}
    assert len([note for note in controlled.notes() if "nowhere" in note]) == 1  # told once, not with each try
    controlled.write("good", command="b")
    controlled.run(controlled.policy.poll + 1)
    assert controlled.commands() == {"good": "b"}


def test_invalid_version_leaves_the_running_one_and_says_the_line(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    controlled.notes()
    (controlled.folder / "blog.yaml").write_text("apiVersion: reconcile/v1\nname: blog\ncontainrs: {}\n")
    controlled.run(controlled.policy.poll + 1)
    assert controlled.commands() == {"blog": "a"}
    [told] = controlled.notes()
    assert "blog.yaml:3:1 containrs: unknown key" in told
    controlled.write("blog", command="b")
    controlled.run(controlled.policy.poll + 1)
    assert controlled.commands() == {"blog": "b"}
    assert "is no problem any more" in " ".join(controlled.notes())


def test_what_leaves_the_folder_stays_on_the_machine_and_is_told(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.write("shop")
    controlled.run(3)
    controlled.notes()
    (controlled.folder / "blog.yaml").unlink()
    controlled.run(controlled.policy.poll + 1)
    words = f"stack blog is no longer in {controlled.folder}: it stays until `reconcile delete blog --take-over`"
    assert controlled.notes() == [words]
    (controlled.folder / "shop.yaml").unlink()
    controlled.run(controlled.policy.poll + 1)
    assert "has no manifest in it" in controlled.notes()[0]
    assert controlled.commands() == {"blog": "a", "shop": "a"}
    controlled.machine.vanish(web("blog"))  # What nobody names is mended as it is recorded.
    controlled.run(controlled.policy.resync + 2)
    assert controlled.commands() == {"blog": "a", "shop": "a"}


def test_stack_renamed_in_its_file_is_a_new_one_beside_the_old(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    controlled.write("journal", command="j", file="blog.yaml")
    controlled.run(controlled.policy.poll + 2)
    assert controlled.commands() == {"blog": "a", "journal": "j"}


def test_what_a_person_applied_of_the_same_file_is_taken_over_and_of_another_is_not(controlled: Controlled) -> None:
    controlled.write("blog")
    elsewhere = controlled.folder.parent / "shop.yaml"
    controlled.write("shop", command="theirs", file=str(elsewhere))
    for path in (controlled.folder / "blog.yaml", elsewhere):
        stacks = load([path], variables={}, environment={})
        apply(controlled.root, Wish(stacks=stacks), ApplyOptions(yes=True), face=Face())
    controlled.write("shop", command="ours")
    controlled.run(3)
    assert controlled.commands() == {"blog": "a", "shop": "theirs"}
    told = "\n".join(controlled.notes())
    assert f"stack shop belongs to file:{elsewhere}, not to source:{controlled.folder}" in told
    [blog, _] = status(controlled.root).stacks
    assert blog.stack.origin == f"source:{controlled.folder}"
    with pytest.raises(OriginDiffers, match="belongs to source:"):
        delete(controlled.root, Doomed(stack="blog"), ApplyOptions(yes=True), face=Face())


def test_stop_by_hand_is_obeyed_however_often_it_looks(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    stop(controlled.root, "blog/web", emit=lambda _: None)
    controlled.run(3 * controlled.policy.resync)
    assert controlled.commands() == {}


def test_many_stacks_are_looked_at_with_one_observation(controlled: Controlled) -> None:
    for number in range(40):
        controlled.write(f"s{number}")
    controlled.run(5)
    assert len(controlled.commands()) == 40
    controlled.worked.clear()
    controlled.run(controlled.policy.resync + 2)
    assert [key for _, key in controlled.worked if key.startswith("stack ")] == []
    controlled.write("s7", command="b")
    controlled.run(controlled.policy.poll)
    assert [key for _, key in controlled.worked if key.startswith("stack ")] == ["stack s7"]


def test_stack_that_two_folders_have_is_the_first_ones_and_the_other_is_told(controlled: Controlled) -> None:
    other = controlled.folder.parent / "more"
    other.mkdir()
    (other / "blog.yaml").write_text(MANIFEST.format(name="blog", image="box:1", command="other"))
    controlled.write("blog")
    controlled.run(3)
    second = DirectorySource(other, variables={})
    controlled.keeper.sources[second.name] = second
    controlled.queue.add(f"source {second.name}", controlled.now)
    controlled.run(3)
    assert controlled.commands() == {"blog": "a"}
    assert controlled.notes() == [f"stack blog of {other} is in {controlled.folder} already: rename one of them"]
    (other / "blog.yaml").unlink()
    (other / "shop.yaml").write_text(MANIFEST.format(name="shop", image="box:1", command="s"))
    controlled.run(controlled.policy.poll + 1)
    assert controlled.commands() == {"blog": "a", "shop": "s"}
    assert controlled.notes() == ["stack blog is in one source only"]


def gone(controlled: Controlled, *names: str) -> None:
    for name in names:
        (controlled.folder / f"{name}.yaml").unlink()
    controlled.run(controlled.policy.poll + 2)


def test_with_prune_what_leaves_the_folder_is_deleted_and_its_volumes_stay(open_controlled) -> None:
    controlled = open_controlled(prune=True)
    controlled.write("blog")
    path = controlled.folder / "shop.yaml"
    controlled.write("shop")
    path.write_text(
        path.read_text().replace("restart: always}", 'restart: always, mounts: ["data:/data"]}') + "volumes: {data: {}}\n"
    )
    controlled.run(3)
    data = set(controlled.machine.volumes)
    assert data
    gone(controlled, "shop")
    assert controlled.commands() == {"blog": "a"}
    assert set(controlled.machine.volumes) == data
    done = [event for event in controlled.events if isinstance(event, ActionDone) and event.verb == "delete"]
    assert {event.because for event in done} == {"it is no longer in the manifest"}
    assert "stack shop was deleted" in " ".join(controlled.notes())
    calls = len(controlled.machine.calls)
    controlled.run(600)
    controlled.begin()
    controlled.run(600)
    assert controlled.notes() == []
    assert [call for call in controlled.machine.calls[calls:] if not call.startswith("settle")] == []


@pytest.mark.parametrize(("limit", "left"), [(0, 4), (1, 4), (3, 1)])
def test_prune_never_takes_more_at_once_than_it_may(open_controlled, limit: int, left: int) -> None:
    controlled = open_controlled(prune=True, max_delete=limit)
    for name in "abcd":
        controlled.write(name)
    controlled.run(3)
    gone(controlled, "a", "b", "c")
    assert len(controlled.commands()) == left
    if left == 4:
        assert f"(3 are gone at once, {limit or 1} may be deleted: --max-delete)" in " ".join(controlled.notes())


def test_prune_deletes_nothing_for_an_empty_folder_nor_beside_an_invalid_file(open_controlled) -> None:
    controlled = open_controlled(prune=True)
    for name in "abc":
        controlled.write(name)
    controlled.run(3)
    (controlled.folder / "b.yaml").write_text("name: [")
    gone(controlled, "a")
    assert len(controlled.commands()) == 3
    gone(controlled, "b", "c")
    assert len(controlled.commands()) == 3
    controlled.begin()
    controlled.run(600)
    assert len(controlled.commands()) == 3


def test_prune_after_a_restart_knows_what_was_its_own(open_controlled) -> None:
    """What left the folder while nobody served it; never what a person applied."""
    controlled = open_controlled(prune=True)
    for name in "abc":
        controlled.write(name)
    elsewhere = controlled.folder.parent / "theirs.yaml"
    controlled.write("theirs", file=str(elsewhere))
    apply(
        controlled.root, Wish(stacks=load([elsewhere], variables={}, environment={})), ApplyOptions(yes=True), face=Face()
    )
    controlled.run(3)
    controlled.begin()
    gone(controlled, "a")
    assert set(controlled.commands()) == {"b", "c", "theirs"}


def test_controller_that_is_started_over_many_stacks_looks_at_them_together(controlled: Controlled) -> None:
    names = [f"s{number}" for number in range(12)]
    for name in names:
        controlled.write(name)
    controlled.run(3)
    assert set(controlled.commands()) == set(names)
    controlled.write("s3", command="b")
    controlled.machine.vanish(web("s5"))
    stop(controlled.root, "s7", emit=lambda _: None)
    delete(controlled.root, Doomed(stack="s9", take_over=True), ApplyOptions(yes=True), face=Face())
    controlled.begin()
    controlled.run(5)
    assert controlled.commands() == {name: "b" if name == "s3" else "a" for name in names if name != "s7"}
    assert all(state.synced for state in controlled.keeper.read_state()[1])
    controlled.worked.clear()
    controlled.begin()
    controlled.run(5)
    looked_at = {key.removeprefix("stack ") for _, key in controlled.worked if key.startswith("stack ")}
    assert looked_at <= {"s7"}, "nothing is to be done for the others"


def test_one_of_many_that_can_not_be_planned_keeps_no_other_from_its_version(controlled: Controlled) -> None:
    names = [f"s{number}" for number in range(12)]
    for name in names:
        controlled.write(name)
    controlled.run(3)
    controlled.write("s3", image="nowhere:1")
    controlled.write("s4", command="b")
    controlled.worked.clear()
    controlled.begin()
    controlled.run(5)
    assert controlled.commands()["s4"] == "b"
    assert {key for _, key in controlled.worked if key.startswith("stack ")} == {"stack s3", "stack s4"}
    assert {state.stack for state in controlled.keeper.read_state()[1] if not state.synced} == {"s3"}


def test_what_can_not_be_planned_is_told_by_the_names_that_its_source_has(controlled: Controlled) -> None:
    controlled.write("blog")
    path = controlled.folder / "blog.yaml"
    path.write_text(path.read_text().replace("restart: always}", 'restart: always, mounts: ["./gone:/gone:ro"]}'))
    controlled.source.name_paths = lambda text: text.replace(f"{controlled.folder}/", "")  # type: ignore[method-assign]
    controlled.run(3)
    [state] = controlled.keeper.read_state()[1]
    assert "gone can't be read" in state.problem
    assert f"{controlled.folder}/gone" not in state.problem


def test_prune_that_fails_is_told_and_tried_again(open_controlled) -> None:
    controlled = open_controlled(prune=True)
    for name in ("blog", "shop", "mail"):
        controlled.write(name)
    controlled.run(3)
    controlled.machine.fail_next("delete", make_key(Kind.NETWORK, "blog", "default"), "the bridge is busy")
    controlled.notes()
    (controlled.folder / "blog.yaml").unlink()
    controlled.run(controlled.policy.poll + 5)
    told = "\n".join(controlled.notes())
    assert "stack blog: 1 failed (network/blog/default)" in told
    assert "a mistake of ours" not in told
    assert "stack blog was deleted" in told
