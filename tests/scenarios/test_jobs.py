"""Jobs on the real kernel: a migration before its program, run once, failing, running on, over a reboot of its records."""

from typing import Any

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"


def stack(script: str, *, web: bool = True, **job: Any) -> dict[str, Any]:
    migrate = {"image": BOX, "command": ["sh", "-c", script], "job": True, "mounts": ["rows:/data"], "stop_grace": "0s"}
    containers = {"migrate": {**migrate, **job}}
    if web:
        containers["web"] = {
            "image": BOX, "command": ["pause"], "stop_grace": "0s", "mounts": ["rows:/data"],
            "depends_on": {"migrate": "completed"},
        }  # fmt: skip
    return {"apiVersion": "reconcile/v1", "name": "shop", "volumes": {"rows": {}}, "containers": containers}


def apply(world: World, manifest: dict[str, Any], *flags: str, code: int = 0) -> str:
    world.write(manifest)
    result = world.run("apply", "stack.yaml", "--yes", *flags, check=code)
    return result.out + result.err


def runs(world: World) -> int:
    """How often the job has run, by what it wrote."""
    return int(world.run("exec", "web", "sh", "-c", "wc -l </data/runs", check=0).out)


ONCE = "echo ran >>/data/runs; sleep 0.2"


def test_job_runs_once_to_success_before_who_waits_for_it(world: World):
    apply(world, stack(ONCE))
    assert runs(world) == 1
    job, web = world.record("shop/migrate")["status"], world.record("shop/web")["status"]
    assert (job["phase"], job["exit_code"], job["completed"]) == ("exited", 0, True)
    assert job["finished_at"] <= web["started_at"]
    assert "completed" in world.run("get", "containers", check=0).out
    assert "completed: true" in world.run("describe", "container/migrate", check=0).out
    assert world.plan("stack.yaml")["actions"] == []
    apply(world, stack(ONCE))
    apply(world, stack(ONCE, labels={"a": "b"}))
    assert runs(world) == 1
    assert world.run("drift").code == 0
    apply(world, stack(ONCE, env={"A": "1"}))
    assert runs(world) == 2


def test_failed_job_fails_the_apply_with_its_last_lines_and_is_run_again(world: World):
    script = "seq 1 15; [ -e /data/ready ] && echo ran >>/data/runs"
    said = apply(world, stack(script), code=1)
    assert "ended with 1" in said
    assert "    15" in said
    assert "    6" in said
    assert "    5\n" not in said, "the last ten lines"
    assert "container/shop/web/1" not in world.records()
    assert "failed" in world.run("get", "containers", check=0).out
    assert [action["reason"] for action in world.plan("stack.yaml")["actions"]] == ["job-failed", "new"]
    assert world.run("drift").code == 0
    (volume,) = (world.root / "volumes").iterdir()
    (volume / "data/ready").touch()
    apply(world, stack(script))
    assert runs(world) == 1


def test_job_that_runs_is_waited_for_by_the_next_apply(world: World):
    slow = "until [ -e /data/go ]; do sleep 0.05; done; echo ran >>/data/runs"
    apply(world, stack(slow, web=False), "--no-wait")
    assert world.record("shop/migrate")["status"]["phase"] == "running"
    (volume,) = (world.root / "volumes").iterdir()
    world.write(stack(slow))
    waiting = world.popen("apply", "stack.yaml", "--yes", "--no-wait")
    wait_until(lambda: any("apply" in command for command in world.processes().values()), "the apply has begun")
    assert "container/shop/web/1" not in world.records()
    (volume / "data/go").touch()
    said = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    assert runs(world) == 1


def test_job_beyond_the_timeout_fails_the_apply_and_runs_on(world: World):
    said = apply(world, stack("sleep 100"), "--timeout", "1s", code=1)
    assert "not completed after 1 s; it runs on" in said
    pid = world.pid("shop/migrate")
    apply(world, stack("exit 0"))
    assert world.record("shop/migrate")["status"]["completed"] is True
    assert pid not in world.processes()


def test_newer_version_of_a_job_that_fails_does_not_run_the_older_one(world: World):
    apply(world, stack(ONCE))
    apply(world, stack("exit 4"), code=1)
    status = world.record("shop/migrate")["status"]
    assert (status["exit_code"], status["completed"]) == (4, False)
    assert runs(world) == 1
    assert world.pid("shop/web")


def test_end_that_nobody_waited_for_counts_and_start_runs_it_by_hand(world: World):
    apply(world, stack(ONCE, web=False), "--no-wait")
    wait_until(lambda: world.record("shop/migrate")["status"]["phase"] == "exited", "it has ended")
    apply(world, stack(ONCE))
    assert runs(world) == 1
    world.run("start", "migrate", check=0)
    wait_until(lambda: runs(world) == 2, "it ran once more")
