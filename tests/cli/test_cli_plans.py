"""Plans as people handle them: planning changes nothing, saved ones go stale, rules refuse, locks name their holder."""

import signal
import sys
import time
from pathlib import Path

import pytest
from stacks import Machine, container, stack, tree

from lab.world import wait_until

pytestmark = pytest.mark.root


def test_plan_on_a_root_that_does_not_exist_makes_nothing(machine: Machine) -> None:
    path = machine.write(machine.name(), {"web": container()})
    root = machine.world.folder / "nowhere" / "root"
    for verb in (("plan", path), ("apply", path, "--dry-run")):
        machine.run(*verb, "--root", str(root), check=2)
    for verb in (("get",), ("drift",), ("events",), ("images", "ls"), ("images", "prune")):
        machine.run(*verb, "--root", str(root), check=0)
    assert not root.parent.exists()


def test_plan_changes_no_file_of_the_root(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    machine.write(name, {"web": container("sh", "-c", "exec pause"), "more": {"image": "127.0.0.1:5000/web:1"}})
    before = tree(machine.world.root)
    for verb in (("plan", f"{name}.yaml"), ("apply", f"{name}.yaml", "--dry-run"), ("drift",), ("get",)):
        machine.run(*verb)
    after = tree(machine.world.root)
    changed = {Path(path).name for path in before.keys() ^ after.keys()}
    changed |= {Path(path).name for path in before.keys() & after.keys() if before[path] != after[path]}
    # Folders change their time when SQLite's own two files come and go.
    assert changed <= {"reconcile.db-wal", "reconcile.db-shm", "root"}, changed
    assert machine.run("images", "ls", check=0).out.count("web:1") == 0


def test_dry_run_says_what_plan_says(machine: Machine) -> None:
    path = machine.write(machine.name(), {"web": container()})
    plan, dry = machine.run("plan", path, check=2), machine.run("apply", path, "--dry-run", check=2)
    assert plan.out == dry.out


def test_why_and_why_not(machine: Machine) -> None:
    name = machine.applied({"web": container(), "other": container()})
    machine.write(name, {"web": container("sh", "-c", "exec pause"), "other": container()})
    assert "command" in machine.run("plan", f"{name}.yaml", "--why", f"{name}/web", check=2).out
    assert machine.run("plan", f"{name}.yaml", "--why", f"{name}/other", check=2).out.strip()
    machine.refused(1, "plan", f"{name}.yaml", "--why", "othre", says=["othre", "did you mean other"])


# --- saved plans


def saved(machine: Machine, name: str) -> str:
    """A stack of two that is applied, and a plan that replaces `web`, saved as NAME.plan."""
    path = machine.write(name, {"web": container(), "db": container()})
    machine.run("apply", path, "--yes", "--no-wait", check=0)
    machine.write(name, {"web": container("sh", "-c", "exec pause"), "db": container()})
    machine.run("plan", path, "--out", f"{name}.plan", check=2)
    return f"{name}.plan"


def test_saved_plan_is_applied_as_it_was_seen(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    assert (machine.world.folder / plan).stat().st_mode & 0o777 == 0o600
    machine.write(name, {"web": container("/something/else")})
    machine.run("apply", plan, "--yes", "--no-wait", check=0)
    spec = machine.record(f"{name}/web")["spec"]
    assert spec["command"] == ["sh", "-c", "exec pause"]
    machine.refused(3, "apply", plan, "--yes", says=["stale", "serial"])


def test_pids_and_times_never_make_a_plan_stale(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    pid = machine.pid(f"{name}/web")
    machine.run("kill", f"{name}/web", check=0)
    wait_until(lambda: machine.record(f"{name}/web")["status"]["pid"] not in (None, pid), "it is back")
    machine.run("apply", plan, "--yes", "--no-wait", check=0)


def test_plan_is_stale_once_the_stack_was_changed(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    other = machine.write(name, {"web": container("sleep", "1000"), "db": container()})
    machine.run("apply", other, "--yes", "--no-wait", check=0)
    before = machine.pid(f"{name}/web")
    machine.refused(3, "apply", plan, "--yes", says=["stale", "serial", "plan --out"])
    assert machine.pid(f"{name}/web") == before


def test_plan_is_stale_once_the_stack_belongs_to_another_manifest(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    moved = machine.world.write(stack(name, {"web": container(), "db": container()}), f"{name}-moved.yaml").name
    machine.refused(3, "apply", moved, says=[name, f"{name}.yaml", f"{name}-moved.yaml", "--take-over"])
    machine.run("apply", moved, "--take-over", "--yes", check=0)
    machine.refused(3, "apply", plan, "--yes", says=["stale", "belonged to"])


def test_plan_is_stale_once_what_it_names_does_not_run_any_more(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    machine.run("stop", f"{name}/web", check=0)
    machine.refused(3, "apply", plan, "--yes", says=["stale"])


def test_plan_is_stale_once_a_part_of_what_it_names_is_gone(machine: Machine) -> None:
    name = machine.name()
    plan = saved(machine, name)
    link = machine.record(f"network/{name}/default")["status"]["link"]
    machine.world.nsenter("ip", "link", "set", link, "down")
    machine.refused(3, "apply", plan, "--yes", says=["stale", "network"])


def test_plan_of_another_root_and_damaged_plans_are_refused(machine: Machine) -> None:
    name = machine.name()
    plan = machine.world.folder / saved(machine, name)
    machine.refused(64, "apply", plan.name, "--root", str(machine.world.folder / "other"), says=["another root"])
    assert not (machine.world.folder / "other" / "containers").exists()
    plan.write_bytes(plan.read_bytes()[:-40])
    machine.refused(1, "apply", plan.name, says=["damaged", "plan --out"])


# --- rules


def test_delete_needs_a_yes_where_nobody_can_be_asked(machine: Machine) -> None:
    name = machine.applied({"web": container(), "old": container()})
    path = machine.write(name, {"web": container()})
    machine.refused(3, "apply", path, says=["deletes 1 container", "--yes"])
    assert machine.pid(f"{name}/old")
    machine.refused(3, "delete", name, says=["--yes"])
    machine.run("apply", path, "--no-prune", "--no-wait", check=0)
    assert machine.pid(f"{name}/old")
    machine.run("apply", path, "--yes", "--no-wait", check=0)
    assert f"container/{name}/old/1" not in machine.records()


def test_most_of_what_runs_is_deleted_only_with_allow_delete(machine: Machine) -> None:
    name = machine.applied({one: container() for one in ("a", "b", "c")})
    path = machine.write(name, {"a": container()})
    machine.refused(3, "apply", path, "--yes", says=["2 of 3", "--allow-delete"])
    assert machine.pid(f"{name}/c")
    machine.run("apply", path, "--yes", "--allow-delete", "--no-wait", check=0)


def test_volumes_are_deleted_only_by_name_and_with_a_yes(machine: Machine) -> None:
    name = machine.applied({"web": container(mounts=["data:/data"])}, volumes={"data": {}})
    machine.run("exec", f"{name}/web", "sh", "-c", "echo precious >/data/file", check=0)
    machine.refused(3, "delete", name, "--volumes", says=["lost"])
    machine.run("delete", name, "--yes", check=0)
    assert list(machine.records()).count(f"volume/{name}/data") == 1
    machine.run("apply", f"{name}.yaml", "--yes", "--no-wait", check=0)
    assert "precious" in machine.run("exec", f"{name}/web", "cat", "/data/file", check=0).out
    machine.refused(1, "delete", name, "--volume", "dota", "--yes", says=["dota"])
    machine.run("delete", name, "--volume", "data", "--yes", check=0)
    assert f"volume/{name}/data" not in machine.records()


def test_terminal_is_asked_and_no_is_3(machine: Machine) -> None:
    name = machine.applied({"web": container()})
    path = machine.write(name, {"web": container("sh", "-c", "exec pause")})
    pid = machine.pid(f"{name}/web")
    command = (sys.executable, "-m", "reconciler.cli.main", "apply", path, "--no-wait")
    code, shown = machine.on_terminal(*command, keys=[("Go on?", "n\n")])
    assert code == 3, shown
    assert "replaces 1 container" in shown
    assert machine.pid(f"{name}/web") == pid
    code, shown = machine.on_terminal(*command, keys=[("Go on?", "y\n")])
    assert code == 0, shown
    assert machine.pid(f"{name}/web") != pid


def test_delete_of_volumes_asks_for_the_stacks_name(machine: Machine) -> None:
    name = machine.applied({"web": container(mounts=["data:/data"])}, volumes={"data": {}})
    command = (sys.executable, "-m", "reconciler.cli.main", "delete", name, "--volumes")
    code, shown = machine.on_terminal(*command, keys=[("name to go on", "other\n")])
    assert code == 3, shown
    assert f"volume/{name}/data" in machine.records()
    code, shown = machine.on_terminal(*command, keys=[("name to go on", f"{name}\n")])
    assert code == 0, shown
    assert not [key for key in machine.records() if key.split("/")[1] == name]


# --- errors from outside, each with resource, words and hint


def test_errors_name_resource_words_and_what_to_do(machine: Machine) -> None:
    name = machine.name()
    cases = {
        "tag": ({"web": container(image="127.0.0.1:5000/busybox:nope")}, ["127.0.0.1:5000/busybox:nope", "hint:"]),
        "archless": ({"web": container(image="127.0.0.1:5000/foreign:1")}, ["foreign:1"]),
        "program": ({"web": container("/no/such")}, [f"container/{name}/web/1", "/no/such", "hint:"]),
        "bind": ({"web": container(mounts=["/no/such/folder:/x"])}, [f"container/{name}/web/1", "/no/such/folder"]),
    }
    for containers, words in cases.values():
        path = machine.write(name, containers)
        result = machine.run("apply", path, "--yes", check=1)
        for word in words:
            assert word in result.err + result.out, str(result)
        assert "mistake in reconcile" not in result.err, str(result)


def test_names_that_nobody_has_are_suggested(machine: Machine) -> None:
    name = machine.applied({"webserver": container()})
    for verb in (("logs", "websrever"), ("stop", "websrever"), ("kill", "websrever"), ("describe", "container/websrever")):
        machine.refused(1, *verb, says=["websrever", "webserver"])
    machine.refused(1, "history", "nosuchstack", says=["nosuchstack"])
    machine.refused(1, "delete", "nosuchstack", "--yes", says=["nosuchstack"])
    machine.refused(1, "drift", "nosuchstack", says=["nosuchstack"])
    machine.refused(1, "get", f"container/{name}/nobody", says=["nobody"])


def test_name_in_two_stacks_must_be_told_apart(machine: Machine) -> None:
    first, second = (machine.applied({"twin": container()}) for _ in range(2))
    machine.refused(1, "stop", "twin", says=[f"{first}/twin", f"{second}/twin", "STACK/NAME"])


# --- locks


def test_stack_that_is_locked_is_5_and_names_who_holds_it(machine: Machine) -> None:
    name = machine.name()
    slow = {"test": ["CMD", "false"], "interval": "1s", "start_period": "60s", "start_interval": "1s"}
    path = machine.write(name, {"web": container(healthcheck=slow)})
    holder = machine.world.popen("apply", path, "--yes")
    try:
        wait_until(lambda: f"container/{name}/web/1" in machine.records(), "it is at work")
        began = time.monotonic()
        result = machine.refused(5, "apply", path, "--yes", "--lock-timeout", "300ms", says=[f"stack {name}"])
        assert time.monotonic() - began < 10
        inner = [pid for pid, command in machine.world.processes().items() if "apply" in command and path in command]
        assert any(f"pid {pid}" in result.err for pid in inner), f"{inner}\n{result}"
        assert "apply" in result.err
        machine.run("stop", f"{name}/web", check=0)
    finally:
        machine.world.signal(holder, signal.SIGINT)
        holder.communicate(timeout=20)


# --- interrupted


def test_interrupted_apply_leaves_a_root_that_the_next_one_converges(machine: Machine) -> None:
    name = machine.name()
    slow = {"test": ["CMD", "false"], "interval": "1s", "start_period": "60s", "start_interval": "1s"}
    path = machine.write(name, {"a": container(healthcheck=slow), "b": container(depends_on={"a": "healthy"})})
    process = machine.world.popen("apply", path, "--yes")
    wait_until(lambda: f"container/{name}/a/1" in machine.records(), "the first is on its way")
    machine.world.signal(process, signal.SIGINT)
    out, err = (text.decode() for text in process.communicate(timeout=20))
    assert process.returncode in (1, 130), out + err
    assert "interrupted" in out + err
    assert "Traceback" not in out + err
    path = machine.write(name, {"a": container(), "b": container(depends_on={"a": "started"})})
    machine.run("apply", path, "--yes", "--no-wait", check=0)
    machine.run("plan", path, check=0)
    assert {machine.record(f"{name}/{one}")["status"]["phase"] for one in "ab"} == {"running"}


@pytest.mark.parametrize("after", [0.3, 0.6])
def test_killed_apply_leaves_a_root_that_the_next_one_converges(machine: Machine, after: float) -> None:
    name = machine.name()
    path = machine.write(name, {one: container() for one in "abc"})
    process = machine.world.popen("apply", path, "--yes")
    time.sleep(after)  # the moment is what is tried: in the imports, in the plan, in the middle of the work
    machine.world.signal(process, signal.SIGKILL)
    process.communicate(timeout=20)
    machine.run("apply", path, "--yes", "--no-wait", check=0)
    machine.run("plan", path, check=0)
    machine.run("drift", name, check=0)


def test_database_of_another_making_is_told_and_not_touched(machine: Machine) -> None:
    root = machine.world.folder / "strange"
    root.mkdir()
    (root / "reconcile.db").write_bytes(b"this is no database, but somebody's file" * 100)
    before = (root / "reconcile.db").read_bytes()
    machine.refused(1, "get", "--root", str(root), says=["reconcile.db"])
    assert (root / "reconcile.db").read_bytes() == before
    assert [entry.name for entry in root.iterdir()] == ["reconcile.db"]
