"""Prepare, start, stop, update, delete: what each leaves, and that each may come twice."""

import io
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from grounds import Ground, this_apply
from msgspec import structs

from reconciler.model.errors import Failed, ReconcileError
from reconciler.model.events import silent
from reconciler.model.observation import Health, Phase
from reconciler.model.record import Made
from reconciler.model.spec import Healthcheck, Mount, Resources


def lone(ground: Ground, name: str = "web", **spec: object) -> Made:
    """A container on a network of its own, which is there; itself it is not."""
    image, network = ground.image(), ground.network()
    ground.up(image, network)
    return ground.container(name, image, network, **spec)


def test_before_prepare_it_is_missing(ground: Ground) -> None:
    web = lone(ground)
    assert ground.status(web).phase is Phase.MISSING
    assert ground.engine.containers.states([web])[web.incarnation].phase is Phase.MISSING


def test_prepare_makes_everything_but_runs_nothing_and_may_come_twice(ground: Ground) -> None:
    web = lone(ground)
    for _ in range(2):
        ground.prepare(web)
        status = ground.status(web)
        assert (status.phase, status.pid, status.incarnation) == (Phase.CREATED, 0, web.incarnation)


def unjoined(ground: Ground, **spec: object) -> tuple[Made, Made]:
    """A container that was made before its network, and that network."""
    image, network = ground.image(), ground.network()
    ground.up(image)
    web = ground.container("web", image, network, **spec)
    ground.engine.containers.premake(web, uses=ground.uses)
    assert ground.engine.containers.states([web])[web.incarnation].phase is Phase.CREATED
    return web, network


def test_what_was_made_before_its_network_runs_on_it(ground: Ground) -> None:
    web, network = unjoined(ground)
    ground.up(network, web)
    assert ground.status(web).phase is Phase.RUNNING
    assert ground.status(web).started_at > 0
    assert ground.drifted() == []


def test_what_was_made_before_its_network_and_as_something_else_is_made_anew(ground: Ground) -> None:
    web, network = unjoined(ground)
    other = ground.change(web, env={"COLOUR": "red"})
    ground.up(network, other)
    assert ground.status(other).phase is Phase.RUNNING
    assert ground.drifted() == []


@pytest.mark.parametrize("stopped", [True, False])
def test_what_was_made_before_its_network_and_never_runs_is_removed(ground: Ground, *, stopped: bool) -> None:
    web, _ = unjoined(ground)
    if stopped:
        ground.stop(web, "gone")
    ground.delete(web)
    assert ground.engine.containers.states([web])[web.incarnation].phase is Phase.MISSING
    ground.forget(web)
    assert ground.observe().strays == ()


def test_start_runs_it_and_leaves_one_that_runs_alone(ground: Ground) -> None:
    web = lone(ground)
    ground.prepare(web)
    first = ground.start(web)
    assert first.phase is Phase.RUNNING
    assert first.pid > 0
    assert first.started_at > 0
    again = ground.start(web)
    assert (again.pid, again.started_at) == (first.pid, first.started_at)
    assert ground.status(web).pid == first.pid


def test_prepare_of_one_that_runs_leaves_it_alone(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    pid = ground.status(web).pid
    ground.prepare(web)
    assert ground.status(web).pid == pid
    assert ground.drifted() == []


def test_failed_start_leaves_it_prepared_with_the_words_of_the_failure(ground: Ground) -> None:
    web = ground.make_unstartable(lone(ground))
    ground.prepare(web)
    with pytest.raises(Failed):
        ground.start(web)
    status = ground.status(web)
    assert status.phase is Phase.CREATED
    assert "no such" in status.error.lower(), status.error
    ground.delete(web)
    assert ground.status(web).phase is Phase.MISSING


@pytest.mark.parametrize("mark", ["hold", "gone", "replaced"])
def test_stopped_with_a_mark_it_stays_down(ground: Ground, mark: str) -> None:
    web = lone(ground, restart="always")
    ground.up(web)
    stopped = ground.stop(web, mark)
    assert (stopped.phase, stopped.pid) == (Phase.EXITED, 0)
    assert stopped.exit_code is not None
    if mark != "replaced":  # who follows that exit waits for what becomes of the apply that wrote it
        ground.be_quiet(web)
    status = ground.status(web)
    assert (status.phase, status.restarting, status.restarts) == (Phase.EXITED, False, 0)
    assert ground.mark_of(web) == mark


def test_stop_without_a_mark_waits_for_the_start_that_follows(ground: Ground) -> None:
    web = lone(ground, restart="always")
    ground.up(web)
    pid = ground.status(web).pid
    stopped = ground.stop(web, "")
    assert (stopped.phase, stopped.restarting) == (Phase.EXITED, False)
    started = ground.start(web)
    assert started.phase is Phase.RUNNING
    assert started.pid != pid
    assert ground.mark_of(web) == ""


def test_stop_of_one_that_does_not_run_only_marks_it(ground: Ground) -> None:
    web = lone(ground)
    ground.prepare(web)
    assert ground.stop(web, "hold").phase is Phase.CREATED
    assert ground.mark_of(web) == "hold"
    assert ground.stop(web, "gone").phase is Phase.CREATED
    assert ground.mark_of(web) == "gone"


def test_stop_twice_keeps_the_exit_code(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    first = ground.stop(web)
    again = ground.stop(web)
    assert (again.phase, again.exit_code) == (Phase.EXITED, first.exit_code)


def test_stop_and_unmark_of_one_that_is_not_there_are_no_errors(ground: Ground) -> None:
    web = lone(ground)
    assert ground.stop(web).phase is Phase.MISSING
    ground.engine.containers.unmark(web)
    assert ground.status(web).phase is Phase.MISSING


def test_unmark_ends_the_hold_and_starts_nothing(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    ground.stop(web, "hold")
    ground.engine.containers.unmark(web)
    assert ground.mark_of(web) == ""
    assert ground.status(web).phase is Phase.EXITED
    assert ground.start(web).phase is Phase.RUNNING


def test_exit_is_told_with_its_code_and_its_end(ground: Ground) -> None:
    image, network = ground.image("short", ends=7), ground.network()
    ground.up(image, network)
    once = ground.container("once", image, network, restart="no")
    ground.prepare(once)
    ground.start(once)
    ground.wait_exited(once)
    status = ground.status(once)
    assert (status.phase, status.exit_code, status.pid, status.restarting) == (Phase.EXITED, 7, 0, False)
    assert status.finished_at >= status.started_at > 0


def test_update_in_place_keeps_the_pid(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    pid = ground.status(web).pid
    new = ground.change(web, labels={"tier": "front"}, restart="no", resources=Resources(memory=96 << 20, cpus=0.5))
    assert ground.update(web, new).pid == pid
    assert ground.drifted() == []
    assert ground.update(new, new).pid == pid
    assert ground.drifted() == []


def test_update_of_one_that_is_stopped_starts_nothing(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    ground.stop(web, "hold")
    new = ground.change(web, labels={"tier": "front"})
    assert ground.update(web, new).phase is Phase.EXITED
    assert ground.mark_of(web) == "hold"


def test_delete_takes_one_that_runs_and_what_is_gone_is_no_error(ground: Ground) -> None:
    web = lone(ground)
    ground.delete(web)
    ground.up(web)
    for _ in range(2):
        ground.delete(web)
        assert ground.status(web).phase is Phase.MISSING
    ground.forget(web)
    assert ground.observe().strays == ()


def test_half_made_container_is_removed_whole(ground: Ground) -> None:
    web = lone(ground)
    broken = ground.change(web, mounts={"/lost": Mount(type="volume", source="lost")})
    with pytest.raises(ReconcileError, match="lost"):
        ground.prepare(broken)
    ground.delete(broken)
    ground.forget(broken)
    assert ground.observe().strays == ()


def test_half_made_container_is_completed_by_the_next_prepare(ground: Ground) -> None:
    web = lone(ground)
    broken = ground.change(web, mounts={"/lost": Mount(type="volume", source="lost")})
    with pytest.raises(ReconcileError, match="lost"):
        ground.prepare(broken)
    ground.create(ground.volume("lost"))
    ground.up(broken)
    assert ground.status(broken).phase is Phase.RUNNING
    assert ground.drifted() == []


def test_prepare_without_its_network_or_image_says_so(ground: Ground) -> None:
    image, network = ground.image(), ground.network()
    ground.engine.settle(ground.view, names=False)
    web = ground.container("web", image, network)
    with pytest.raises(ReconcileError):
        ground.prepare(web)
    ground.create(image)
    with pytest.raises(ReconcileError, match="network"):
        ground.prepare(web)


def test_two_incarnations_of_one_key_stand_beside_each_other(ground: Ground) -> None:
    old = lone(ground)
    ground.up(old)
    image = next(made for made in ground.mades if made.key.startswith("image"))
    network = next(made for made in ground.mades if made.key.startswith("network"))
    pid = ground.status(old).pid
    new = ground.container("web", image, network, host=3)
    ground.prepare(new)
    seen = ground.observe()
    assert (seen.statuses[old.key].incarnation, seen.statuses[old.key].pid) == (old.incarnation, pid)
    assert seen.others[new.incarnation].phase is Phase.CREATED
    assert seen.strays == ()
    ground.stop(old, "replaced")
    ground.start(new)
    seen = ground.observe()
    assert seen.statuses[new.key].incarnation == new.incarnation
    assert seen.others[old.incarnation].phase is Phase.EXITED
    ground.delete(old)
    ground.forget(old)
    seen = ground.observe()
    assert (seen.statuses[new.key].phase, dict(seen.others), seen.strays) == (Phase.RUNNING, {}, ())


def test_replace_that_fails_is_undone_by_starting_the_old(ground: Ground) -> None:
    old = lone(ground)
    ground.up(old)
    image = next(made for made in ground.mades if made.key.startswith("image"))
    network = next(made for made in ground.mades if made.key.startswith("network"))
    new = ground.make_unstartable(ground.container("web", image, network, host=3))
    ground.prepare(new)
    ground.stop(old, "replaced")
    with pytest.raises(Failed):
        ground.start(new)
    ground.engine.containers.unmark(old)
    assert ground.start(old).phase is Phase.RUNNING
    ground.delete(new)
    ground.forget(new)
    assert ground.drifted() == []


def test_states_are_those_asked_for_without_parts(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    image, network = (next(m for m in ground.mades if m.key.startswith(kind)) for kind in ("image", "network"))
    other = ground.container("other", image, network, host=9)
    states = ground.engine.containers.states([web, other])
    assert set(states) == {web.incarnation, other.incarnation}
    assert (states[web.incarnation].phase, states[web.incarnation].parts) == (Phase.RUNNING, {})
    assert states[web.incarnation].pid == ground.status(web).pid
    assert states[other.incarnation].phase is Phase.MISSING
    assert ground.engine.containers.states([]) == {}


def test_many_containers_are_made_at_once(ground: Ground) -> None:
    image, network = ground.image(), ground.network()
    ground.up(image, network)
    several = [ground.container(f"w{n}", image, network, host=n + 2) for n in range(6)]
    ground.engine.settle(ground.view)
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(ground.prepare, several))
        list(executor.map(ground.start, several))
    assert ground.drifted() == []
    assert {ground.status(made).phase for made in several} == {Phase.RUNNING}
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(lambda made: ground.engine.containers.stop(made, mark="gone", apply=this_apply()), several))
        list(executor.map(ground.engine.containers.delete, several))
    assert {ground.status(made).phase for made in several} == {Phase.MISSING}


def test_exec_returns_the_commands_own_exit_code(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    assert ground.engine.inside.exec(web, ["true"]).exit_code == 0
    assert ground.engine.inside.exec(web, ["sh", "-c", "exit 42"]).exit_code == 42
    assert ground.engine.inside.exec(web, ["/no/such"]).exit_code == 127


def test_exec_and_probe_of_one_that_does_not_run_are_refused(ground: Ground) -> None:
    web = lone(ground)
    ground.prepare(web)
    with pytest.raises(Failed):
        ground.engine.inside.exec(web, ["true"])


def test_log_has_what_the_container_wrote(ground: Ground) -> None:
    image, network = ground.image("short", ends=0), ground.network()
    ground.up(image, network)
    once = ground.container("once", image, network, restart="no", command=("echo", "hello"))
    ground.prepare(once)
    ground.start(once)
    ground.wait_exited(once)
    lines = list(ground.engine.inside.logs(once, tail=None, since=0.0, follow=False, stop=lambda: False))
    assert [(line.stream, line.text, line.partial) for line in lines] == [("stdout", b"hello", False)]
    assert lines[0].at > 0


def test_kill_ends_what_runs(ground: Ground) -> None:
    web = lone(ground, restart="no")
    ground.up(web)
    ground.engine.inside.kill(web, 9)
    ground.wait_exited(web)
    assert ground.status(web).exit_code == 137


def test_pause_freezes_and_unpause_lets_go_on_with_the_same_pid(ground: Ground) -> None:
    web, containers = lone(ground), ground.engine.containers
    ground.up(web)
    pid = ground.status(web).pid
    for _ in range(2):
        assert (containers.pause(web).phase, ground.status(web).pid) == (Phase.PAUSED, pid)
    assert ground.mark_of(web) == "hold"
    assert ground.drifted() == []
    with pytest.raises(Failed, match="paused"):
        ground.engine.inside.exec(web, ["true"])
    for _ in range(2):
        assert (containers.unpause(web).phase, ground.status(web).pid) == (Phase.RUNNING, pid)
    assert ground.mark_of(web) == ""


def test_update_lets_go_on_what_no_hold_pauses(ground: Ground) -> None:
    web = lone(ground)
    ground.up(web)
    pid = ground.engine.containers.pause(web).pid
    held = structs.replace(web, held=True, paused=True)
    assert ground.update(held, held).phase is Phase.PAUSED
    assert (ground.update(web, web).phase, ground.status(web).pid) == (Phase.RUNNING, pid)


def test_paused_one_is_stopped_killed_started_and_deleted(ground: Ground) -> None:
    web, containers = lone(ground, restart="no"), ground.engine.containers
    ground.up(web)
    containers.pause(web)
    assert ground.stop(web).phase is Phase.EXITED
    with pytest.raises(Failed):
        containers.pause(web)
    containers.unmark(web)
    ground.start(web)
    containers.pause(web)
    assert ground.start(web).phase is Phase.RUNNING
    containers.pause(web)
    ground.engine.inside.kill(web, 9)
    ground.wait_exited(web)
    assert containers.unpause(web).phase is Phase.EXITED
    ground.start(web)
    containers.pause(web)
    ground.delete(web)
    assert ground.status(web).phase is Phase.MISSING
    assert containers.unpause(web).phase is Phase.MISSING


def test_probe_keeps_what_it_found_for_observe(ground: Ground) -> None:
    web = lone(ground, healthcheck=Healthcheck(test=("CMD", "true"), interval=0.001))
    ground.up(web)
    assert ground.status(web).health is Health.UNKNOWN
    assert ground.engine.inside.probe(web, timeout=5.0)[0] is Health.HEALTHY


def test_nothing_of_one_is_touched_by_the_others_verbs(ground: Ground) -> None:
    web = lone(ground)
    image, network = (next(m for m in ground.mades if m.key.startswith(kind)) for kind in ("image", "network"))
    ground.up(web)
    pid = ground.status(web).pid
    other = ground.container("other", image, network, host=9)
    ground.prepare(other)
    ground.start(other)
    ground.stop(other)
    ground.engine.containers.update(other, other, uses=ground.uses, emit=silent)
    ground.delete(other)
    ground.forget(other)
    assert ground.status(web).pid == pid
    assert ground.drifted() == []


def test_states_are_cheap(ground: Ground) -> None:
    """No program, no socket, no dump of the machine's mounts: a few small files for each container."""
    image, network = ground.image(), ground.network()
    several = [ground.container(f"w{n}", image, network, host=n + 2) for n in range(3)]
    ground.up()
    seen: list[str] = []
    watching = [True]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if watching and event in ("open", "socket.__new__", "subprocess.Popen", "os.posix_spawn", "os.fork"):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    ground.engine.containers.states(several)
    watching.clear()
    assert not [one for one in seen if not one.startswith("open ")], seen
    assert not [one for one in seen if "mountinfo" in one or "/proc/net" in one], seen
    assert len(seen) <= 12 * len(several), seen


def test_files_go_in_and_come_out(ground: Ground) -> None:
    web, inside = lone(ground), ground.engine.inside
    ground.up(web)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        header = tarfile.TarInfo("note")
        header.size = 4
        tar.addfile(header, io.BytesIO(b"text"))
    packed.seek(0)
    inside.copy_in(web, "/", packed, owner=(0, 0), skipped=print)
    seen = inside.look(web, "/note", follow=True)
    assert seen is not None
    assert not seen.folder
    assert inside.look(web, "/nothing", follow=True) is None
    out = io.BytesIO()
    inside.copy_out(web, "/note", out, top="kept", follow=False, skipped=print)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        file = tar.extractfile("kept")
        assert file is not None
        assert file.read() == b"text"
    with pytest.raises(Failed, match="cp"):
        inside.copy_out(web, "/nothing", io.BytesIO(), top="x", follow=False, skipped=print)
