"""What ends again and again is told once, and once that it is over; who waits for what came back waits no longer."""

import time

from controller.conftest import Controlled
from controller.test_controller_probes import CHECK, MANIFEST, Probed
from reconciler.controller.storms import find_storms
from reconciler.model.key import container_key
from reconciler.model.observation import End, Observation, Phase, Status

WEB = container_key("blog", "web")
BOX = "apiVersion: reconcile/v1\nname: {name}\ncontainers:\n  web: {{image: 'box:1', command: [a], networks: [n]}}\n"


def seen(**status: object) -> Observation:
    return Observation(statuses={WEB: Status(**status)})  # type: ignore[arg-type]


def test_storm_begins_with_the_third_end_and_is_over_once_a_run_lasts() -> None:
    ends = (End(98.0, 1.0), End(99.0, 0.9), End(100.0, 0.9))
    waits = {"phase": Phase.EXITED, "exit_code": 3, "restarting": True}
    assert find_storms(seen(**waits, ends=ends[:2]), now=100.0) == {}
    [words] = find_storms(seen(**waits, ends=ends), now=100.0).values()
    assert words.startswith("container/blog/web/1 ends again and again (with 3)")
    assert words.endswith("`reconcile logs blog/web` may say why")
    runs = seen(phase=Phase.RUNNING, started_at=101.0, ends=ends)
    assert find_storms(runs, now=101.5).keys() == {WEB}
    assert find_storms(runs, now=111.5) == {}
    assert find_storms(seen(phase=Phase.EXITED, gave_up=True, ends=ends), now=102.0) == {}


def test_storm_is_told_once_and_looked_at_until_it_is_over(controlled: Controlled) -> None:
    controlled.write("blog")
    controlled.run(3)
    controlled.notes()
    controlled.machine.exit(WEB, 3, restarting=True)
    [thing] = controlled.machine.find(WEB)
    thing.ends = (End(time.time(), 0.1),) * 3
    assert controlled.keeper.work("all") == 10.0
    assert controlled.keeper.work("all") == 10.0
    told = [note for note in controlled.notes() if "again and again" in note]
    assert len(told) == 1
    thing.phase, thing.pid, thing.restarting = Phase.RUNNING, controlled.machine.next_pid(), False
    thing.started_at = 1.0  # long ago
    assert controlled.keeper.work("all") == controlled.policy.resync
    assert f"{WEB} does not end any more" in controlled.notes()


def test_who_borrows_is_tried_again_at_once_when_the_owner_is_there(controlled: Controlled) -> None:
    (controlled.folder / "guest.yaml").write_text(BOX.format(name="guest") + "networks: {n: {from: owner}}\n")
    controlled.run(100)  # It has failed often by now.
    assert controlled.commands() == {}
    (controlled.folder / "owner.yaml").write_text(BOX.format(name="owner") + "networks: {n: {}}\n")
    controlled.write("other")
    controlled.queue.add(f"source {controlled.folder}", controlled.now)
    controlled.run(1)
    assert controlled.commands().keys() == {"guest", "owner", "other"}


def test_stack_that_failed_is_tried_again_when_one_of_its_own_becomes_healthy(controlled: Controlled) -> None:
    (controlled.folder / "blog.yaml").write_text(MANIFEST + CHECK.format(more=""))
    controlled.run(3)
    probed = Probed(controlled)
    woken: list[str] = []
    probed.probes._well = woken.append
    probed.run(5)
    assert woken == ["blog"]
    probed.sicken()
    probed.run(8)
    woken.clear()
    probed.sicken(healthy=True)
    probed.run(8)
    assert woken == ["blog"]
    held = controlled.keeper.standings.get("blog")
    assert held is not None
    controlled.keeper.unblock("blog")  # It is as it is wanted: nobody is to look.
    assert "stack blog" not in controlled.queue._due
    held.problem, held.reached = "its database was not there", ""
    controlled.keeper.unblock("blog")
    assert "stack blog" in controlled.queue._due
