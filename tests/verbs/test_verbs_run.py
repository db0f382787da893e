"""`run` on the memory engine: one container added to the stack `run`, and what of it goes when."""

import threading
from typing import Any

import pytest

from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine
from reconciler.manifest.command import Flags
from reconciler.model.errors import Failed, ReconcileError, Usage
from reconciler.model.events import silent
from reconciler.model.key import Key, container_key
from reconciler.model.observation import Phase
from reconciler.verbs.apply import ApplyOptions
from reconciler.verbs.attach import Ended, attach, wait
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.end import Attended, remove
from reconciler.verbs.face import Face
from reconciler.verbs.root import Root
from reconciler.verbs.run import Started, start

BOX, DONE, KEEPER = "box:1", "done:1", "keeper:1"
DEFAULT, IMAGE = Key("network/run/default"), Key("image/run/docker.io/library/box:1")


def machine(root: Root) -> Machine:
    assert isinstance(root.engine, MemoryEngine)
    return root.engine.machine


def run(root: Root, image: str = BOX, name: str = "", *, at: bool = False, rm: bool = False, **written: Any) -> Started:
    networks = tuple(written.pop("networks", ()))
    flags = Flags(name=name, image=image, written={"restart": "no", **written}, networks=networks, remove=rm)
    return start(root, flags, environment={"TOKEN": "planted"}, attach=at, face=Face())


def records(root: Root) -> set[str]:
    with root.store.read() as tx:
        return set(tx.records())


def test_run_adds_one_container_with_what_it_needs_and_touches_no_other(root: Root):
    first = run(root, name="first")
    before = machine(root).find(first.key)[0]
    second = run(root)
    assert records(root) == {first.key, second.key, DEFAULT, IMAGE}
    assert machine(root).find(first.key)[0] is before
    calls = [call for call in machine(root).calls if call.endswith("first/1")]
    assert calls == [f"{verb} container/run/first/1" for verb in ("prepare", "create", "start")]
    with root.store.read() as tx:
        revisions = tx.revisions("run")
    assert [revision.source for revision in revisions] == ["reconcile run"] * 2


def test_name_that_is_taken_is_refused_with_the_way_out(root: Root):
    run(root, name="web")
    with pytest.raises(Failed, match="already") as refused:
        run(root, name="web")
    assert "delete container/run/web/1" in refused.value.hint
    with pytest.raises(Failed, match="another way to say web/2"):
        run(root, name="web-2")
    assert records(root) == {container_key("run", "web"), DEFAULT, IMAGE}


def test_attached_before_it_begins_everything_and_its_end_come(root: Root, capsys: pytest.CaptureFixture[str]):
    started = run(root, DONE, at=True)
    assert started.line is not None
    assert started.line.relay(stdin=False).exit_code == 3
    started.close()
    assert capsys.readouterr().out == "bye\n"


def test_remove_takes_the_container_its_unnamed_volumes_and_what_nobody_else_uses(root: Root):
    other = run(root, name="other")
    started = run(root, KEEPER, rm=True, mounts=["named:/n", "/bare"], networks=["lab"])
    name = started.name.partition("/")[2]
    assert {f"volume/run/{name}-1@/data", f"volume/run/{name}-1@/bare", "network/run/lab"} <= records(root)
    machine(root).exit(started.key, 0)
    remove(root, started.key, emit=silent)
    assert records(root) == {other.key, DEFAULT, IMAGE, "volume/run/named"}


def test_deleted_by_hand_its_volumes_stay_and_its_image_goes(root: Root):
    started = run(root, KEEPER, name="db")
    delete(root, Doomed(stack="run", keys=(started.key,)), ApplyOptions(yes=True), face=Face())
    assert records(root) == {"volume/run/db-1@/data"}


def test_start_that_fails_leaves_nothing(root: Root):
    machine(root).fail_next("start", container_key("run", "bad"), "exec: no such file")
    with pytest.raises(ReconcileError) as failed:
        run(root, name="bad", at=True)
    assert "no such file" in failed.value.detail
    assert records(root) == set()
    assert machine(root).containers == {}
    assert machine(root).networks == {}


def test_what_rm_left_goes_with_the_next_run_unless_somebody_waits_for_it(root: Root):
    left = run(root, DONE, name="left", rm=True)
    attended = run(root, DONE, name="attended", rm=True, at=True)
    run(root, name="next")
    assert left.key not in records(root)
    assert attended.key in records(root)
    attended.close()
    run(root, name="last")
    assert attended.key not in records(root)
    assert list((root.path / "locks").glob("attended-*")) == []


def test_attended_is_one_at_a_time(root: Root):
    run(root)
    held = Attended(root, container_key("run", "x"), timeout=0)
    with pytest.raises(TimeoutError):
        Attended(root, container_key("run", "x"), timeout=0)
    held.close()
    Attended(root, container_key("run", "x"), timeout=0).close()


def test_sensitive_value_of_our_environment_is_in_no_spec_that_is_shown(root: Root):
    started = run(root, env=["TOKEN"])
    with root.store.read() as tx:
        record = tx.record(started.key)
    assert record is not None
    assert "planted" not in repr(record)


def test_attach_to_one_that_has_ended_is_refused(root: Root):
    run(root, DONE, name="over")
    with pytest.raises(Failed, match="attach"):
        attach(root, "over", stdin=False, keys=b"", signals=False)


def test_wait_ends_when_the_container_does(root: Root):
    started = run(root, name="slow")
    ends = threading.Timer(0.05, machine(root).exit, (started.key, 7))
    ends.start()
    assert list(wait(root, ["slow"])) == [Ended(key=started.key, exit_code=7)]
    ends.join()


def test_wait_says_who_was_never_there_to_end(root: Root):
    started = run(root, name="gone")
    machine(root).vanish(started.key)
    (ended,) = wait(root, ["gone"])
    assert ended.error is not None
    assert "not on the machine" in ended.error.brief


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({"ports": ["80"]}, "--publish: "),
        ({"mounts": ["x:relative"]}, "--volume: "),
        ({"resources": {"memory": "1k"}}, "--memory: "),
        ({"cap_add": ["NO_SUCH"]}, "--cap-add: "),
        ({"env": ["=x"]}, "--env: "),
        ({"workdir": "relative"}, "--workdir: "),
        ({"hostname": "-"}, "--hostname: "),
        ({"restart": "sometimes"}, "--restart: "),
        ({"networks": ["UPPER"]}, "--network: "),
        ({"networks": ["host"], "ports": ["80:80"]}, "--publish: "),
        ({"image": "UPPER:1"}, "IMAGE: "),
    ],
)
def test_flag_that_does_not_fit_is_named(root: Root, written: dict[str, Any], says: str):
    with pytest.raises(Usage) as refused:
        run(root, **written)
    assert refused.value.brief.startswith(says)
    assert records(root) == set()


def test_all_wrong_flags_are_told_at_once(root: Root):
    with pytest.raises(Usage) as refused:
        run(root, ports=["80"], mounts=["/proc:/proc"])
    assert [line.partition(":")[0] for line in refused.value.detail.splitlines()] == ["--publish", "--volume"]


def test_borrowed_network_that_is_not_there_is_refused(root: Root):
    with pytest.raises(Failed, match="edge/front"):
        run(root, networks=["edge/front"])
    assert machine(root).containers == {}


def test_one_that_runs_is_seen_running(root: Root):
    assert machine(root).find(run(root).key)[0].phase is Phase.RUNNING
