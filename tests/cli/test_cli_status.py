"""`reconcile status` on a real machine: one word a stack, one line for what is wrong, and what the exit code says."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from stacks import Machine, container

from lab.world import wait_until
from reconciler.schema.load import load_schema

pytestmark = pytest.mark.root


def status(machine: Machine, name: str, code: int) -> dict[str, Any]:
    """How one stack is; the whole fits its schema."""
    report = machine.run("status", name, "-o", "json", check=code).json()
    assert [error.message for error in Draft202012Validator(load_schema("status")).iter_errors(report)] == []
    assert len(report["stacks"]) == 1
    found: dict[str, Any] = report["stacks"][0]
    return found


def test_what_is_as_applied_is_synced_and_nothing_is_wrong(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    found = status(machine, name, 0)
    assert (found["state"], found["containers"], found["running"], found["findings"]) == ("synced", 1, 1, [])
    assert (found["revision"]["number"], found["revision"]["result"]) == (1, "done")
    out = machine.run("status", name, check=0).out.splitlines()
    assert len(out) == 2
    assert out[1].split()[:2] == [name, "synced"]
    assert out[1].split()[2].endswith("s"), "since when"
    assert out[1].split()[3] == "1"


def test_held_says_who_since_when_and_why(machine: Machine) -> None:
    name = machine.applied({"web": container(), "db": container()})
    machine.run("stop", f"{name}/web", "--note", "disk swap", check=0)
    found = status(machine, name, 2)
    assert (found["state"], found["running"]) == ("held", 1)
    assert [(one["what"], one["key"]) for one in found["findings"]] == [("held", f"container/{name}/web/1")]
    out = machine.run("status", name, check=2).out
    assert "held: stop by" in out
    assert "(disk swap)" in out
    machine.run("start", f"{name}/web", check=0)
    assert status(machine, name, 0)["state"] == "synced"


def test_a_container_that_gave_up_degrades_its_stack(machine: Machine) -> None:
    name = machine.applied({"web": container(), "bad": container("sh", "-c", "exit 9", restart="on-failure:1")})
    wait_until(
        lambda: status_state(machine, name) == "degraded gave-up", "it gives up", lambda: status_state(machine, name)
    )
    assert "exited (9), on-failure:1 is used up" in machine.run("status", name, check=2).out


def test_container_that_ends_again_and_again_degrades_its_stack_while_it_runs(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    key = f"container/{name}/web/1"

    def runs_again(times: int) -> bool:
        seen: dict[str, Any] = machine.records()[key]["status"]
        return seen["restarts"] == times and seen["phase"] == "running"

    for times in range(3):
        machine.world.kill(machine.records()[key]["status"]["pid"])
        wait_until(lambda: runs_again(times + 1), "it is started again")  # noqa: B023
    found = status(machine, name, 2)
    assert (found["state"], found["running"]) == ("degraded", 1)
    [finding] = found["findings"]
    assert (finding["what"], finding["key"]) == ("restarting", key)
    assert "ends again and again: exited (137 SIGKILL), runs again for" in finding["text"]
    assert "3 restarts so far, the last 3 ends within" in finding["text"]
    machine.run("restart", f"{name}/web", check=0)
    assert status(machine, name, 0)["state"] == "synced", "who starts it by hand begins its count anew"


def status_state(machine: Machine, name: str) -> str:
    found = machine.run("status", name, "-o", "json").json()["stacks"][0]
    return " ".join([found["state"], *(one["what"] for one in found["findings"])])


def test_drift_is_named_part_by_part(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    link = machine.records()[f"network/{name}/default"]["status"]["link"]
    machine.world.nsenter("ip", "link", "set", link, "mtu", "1300")
    found = status(machine, name, 2)
    assert found["state"] == "drifted"
    assert any(one["key"] == f"network/{name}/default" and "1300" in one["text"] for one in found["findings"]), found
    machine.run("apply", f"{name}.yaml", "--yes", check=0)
    assert status(machine, name, 0)["state"] == "synced"


def test_a_failed_revision_stays_said_until_what_it_wanted_is_there(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    path = machine.write(name, {"web": container(), "bad": container("/no/such/program")})
    machine.run("apply", path, "--yes", check=1)
    found = status(machine, name, 2)
    assert found["state"] == "failed"
    assert "revision 2 by" in found["findings"][0]["text"]
    assert "failed" in found["findings"][0]["text"]
    assert "nothing to do" in machine.run("apply", machine.write(name, {"web": container()}), "--yes", check=0).out
    found = status(machine, name, 0)
    assert (found["state"], found["revision"]["number"]) == ("synced", 3)


def test_a_failed_revision_has_come_true_when_there_is_nothing_left_to_do(machine: Machine) -> None:
    check = {"test": ["CMD", "test", "-e", "/ready"], "interval": "100ms", "retries": 1}
    name = machine.name()
    path = machine.write(name, {"slow": container(healthcheck=check)})
    machine.run("apply", path, "--yes", check=1)
    assert status(machine, name, 2)["state"] == "failed"
    machine.run("apply", path, "--yes", check=0)
    found = status(machine, name, 2)
    assert (found["revision"]["number"], found["revision"]["result"]) == (1, "done")
    assert (found["state"], [one["what"] for one in found["findings"]]) == ("degraded", ["unhealthy"])


def test_an_apply_at_work_is_progress_and_not_a_fault(machine: Machine) -> None:
    name = machine.name()
    check = {"test": ["CMD", "test", "-e", "/ready"], "interval": "1s", "retries": 100}
    path = machine.write(name, {"slow": container(healthcheck=check)})
    apply = machine.world.popen("apply", path, "--yes", "--timeout", "60s")
    try:
        wait_until(lambda: f"container/{name}/slow/1" in machine.records(), "it is made", seconds=20)
        found = status(machine, name, 0)
        assert (found["state"], found["findings"]) == ("progressing", [])
        assert "(apply)" in found["at_work"]
        machine.run("exec", f"{name}/slow", "touch", "/ready", check=0)
        assert apply.wait(30) == 0
    finally:
        apply.kill()
        apply.communicate()
    assert status(machine, name, 0)["state"] == "synced"


def test_an_unknown_stack_is_an_error_and_an_empty_root_is_not(machine: Machine) -> None:
    assert machine.run("status", "nobody-has-this-name").code == 1
    empty = machine.run("status", "--root", str(machine.world.folder / "nothing"), check=0)
    assert empty.out == "nothing is recorded here\n"
    assert not (machine.world.folder / "nothing").exists()


def test_all_stacks_stand_in_one_table(machine: Machine) -> None:
    names = {machine.applied({"web": container()}) for _ in range(2)}
    report = machine.run("status", "-o", "json").json()
    assert names <= {one["stack"] for one in report["stacks"]}
    table = machine.run("status").out.split("\n\n")[0]
    assert all(any(line.startswith(f"{name} ") for line in table.splitlines()) for name in names)
