"""By hand: logs, exec, stop, start, restart, kill, of a container, of one index, of a whole stack."""

import json
import re
import signal
import sys

import pytest
from stacks import Machine, container

from lab.world import wait_until

pytestmark = pytest.mark.root
RECONCILE = (sys.executable, "-m", "reconciler.cli.main")


@pytest.fixture(scope="module")
def talk(machine: Machine) -> str:
    """A stack with `talker`, which has said ten lines and an error, and `other`."""
    script = "for i in $$(seq 10); do echo line $$i; done; echo oops >&2; exec pause"
    name = machine.applied({"talker": container("sh", "-c", script), "other": container(user="www", env={"A": "1"})})
    wait_until(lambda: "oops" in machine.run("logs", "talker").err, "it has spoken")
    return name


def phases(machine: Machine, name: str) -> dict[str, str]:
    found = machine.records().items()
    return {key.split("/")[2]: one["status"]["phase"] for key, one in found if key.startswith(f"container/{name}/")}


# --- get, describe


def test_get_takes_a_stack(machine: Machine, talk: str) -> None:
    found = json.loads(machine.run("get", talk, "-o", "json", check=0).out)
    assert {one["stack"] for one in found} == {talk}
    assert {one["kind"] for one in found} == {"container", "network", "image"}
    names = [one["name"] for one in json.loads(machine.run("get", "containers", talk, "-o", "json", check=0).out)]
    assert names == ["other", "talker"]


def test_described_fields_are_as_a_manifest_has_them(machine: Machine) -> None:
    check = {"test": ["CMD", "true"], "interval": "90s"}
    name = machine.applied({"seen": container(healthcheck=check, resources={"memory": "64M"})})
    said = machine.run("describe", f"{name}/seen", check=0).out
    assert "interval: 1m30s" in said
    assert "memory: 64M" in said
    assert re.search(r"started_at: '?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", said), said


# --- logs


def test_logs_by_every_way_to_name_it(machine: Machine, talk: str) -> None:
    wanted = machine.run("logs", "talker", check=0).out
    assert wanted == "".join(f"line {n}\n" for n in range(1, 11))
    for name in ("talker/1", "talker-1", f"{talk}/talker", f"{talk}/talker/1", f"container/{talk}/talker/1"):
        assert machine.run("logs", name, check=0).out == wanted


def test_tail_counts_lines_of_both_streams(machine: Machine, talk: str) -> None:
    result = machine.run("logs", "talker", "-n", "3", check=0)
    assert (result.out, result.err) == ("line 9\nline 10\n", "oops\n")
    assert machine.run("logs", "talker", "--tail", "0", check=0).out == ""


def test_since_takes_durations_and_times(machine: Machine, talk: str) -> None:
    assert "line 1\n" in machine.run("logs", "talker", "--since", "1h", check=0).out
    assert machine.run("logs", "talker", "--since", "2999-01-01T00:00:00", check=0).out == ""
    assert "line 1\n" in machine.run("logs", "talker", "--since", "2020-01-01", check=0).out


def test_timestamps_and_json_say_when(machine: Machine, talk: str) -> None:
    stamped = machine.run("logs", "-t", "talker", check=0).out.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line \d+$", line) for line in stamped), stamped
    said = [json.loads(line) for line in machine.run("logs", "talker", "-o", "json", check=0).out.splitlines()]
    assert [one["text"] for one in said if one["stream"] == "stderr"] == ["oops"]
    assert {one["key"] for one in said} == {f"container/{talk}/talker/1"}
    assert all(one["at"].endswith("Z") for one in said)


def test_follow_shows_what_comes_and_ends_at_ctrl_c(machine: Machine, talk: str) -> None:
    process = machine.world.popen("logs", "-f", "--tail", "1", "talker")
    machine.run("exec", "talker", "sh", "-c", "echo more >/proc/1/fd/1", check=0)
    assert process.stdout is not None
    assert process.stdout.readline() == b"more\n"
    machine.world.signal(process, signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"Traceback" not in err


# --- exec


def test_exec_codes_are_the_commands_own(machine: Machine, talk: str) -> None:
    for command, code in ((["true"], 0), (["sh", "-c", "exit 3"], 3), (["/etc/passwd"], 126), (["/no/such"], 127)):
        result = machine.run("exec", "other", *command, check=code)
        assert bool(result.err) == (code > 3), str(result)
    machine.refused(125, "exec", "nobody", "true", says=["nobody"])
    machine.refused(125, "exec", "-u", "nosuchuser", "other", "true", says=["nosuchuser"])


def test_exec_code_of_a_signal_is_128_and_its_number(machine: Machine, talk: str) -> None:
    machine.run("exec", "other", "sh", "-c", "kill -TERM $$", check=143)


def test_exec_has_users_folders_variables_and_streams(machine: Machine, talk: str) -> None:
    shown = machine.run("exec", "other", "sh", "-c", "id -u; pwd; echo $A$B", check=0)
    assert shown.out.split() == ["82", "/", "1"]
    flags = ("-u", "root", "-w", "/tmp", "-e", "B=2")
    assert machine.run("exec", *flags, "other", "sh", "-c", "id -u; pwd; echo $A$B").out.split() == ["0", "/tmp", "12"]
    result = machine.run("exec", "-i", "other", "sh", "-c", "cat; echo bad >&2", stdin="through\n", check=0)
    assert (result.out, result.err) == ("through\n", "bad\n")
    assert machine.run("exec", "other", "cat", stdin="not asked for\n", check=0).out == ""


def test_exec_of_flags_that_are_the_commands_own(machine: Machine, talk: str) -> None:
    assert machine.run("exec", "other", "echo", "-o", "--root", "-h", check=0).out == "-o --root -h\n"


def test_exec_with_a_terminal_is_a_terminal_with_its_size(machine: Machine, talk: str) -> None:
    script = "tty; stty size; read word; echo got $word; exit 7"
    code, shown = machine.on_terminal(
        *RECONCILE, "exec", "-it", "other", "sh", "-c", script, keys=[("33 99", "hello\r")], size=(33, 99)
    )
    assert code == 7, shown
    assert "/dev/pts/" in shown
    assert "got hello" in shown


def test_ctrl_c_in_a_terminal_goes_to_the_command(machine: Machine, talk: str) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 1; done"
    code, shown = machine.on_terminal(*RECONCILE, "exec", "-it", "other", "sh", "-c", script, keys=[("ready", "\x03")])
    assert "caught" in shown
    assert code == 9, shown


def test_terminal_is_as_before_after_an_exec(machine: Machine, talk: str) -> None:
    program = " ".join(RECONCILE)
    code, shown = machine.on_terminal("sh", "-c", f"stty -a >/tmp/b; {program} exec -it other true; stty -a | cmp - /tmp/b")
    assert code == 0, shown


def test_exec_with_a_terminal_where_there_is_none_is_refused(machine: Machine, talk: str) -> None:
    result = machine.run("exec", "-it", "other", "true", stdin="")
    assert result.code == 64, str(result)
    assert "terminal" in result.err


# --- stop, start, restart, kill


def test_stop_start_and_restart_of_one_and_of_a_stack(machine: Machine) -> None:
    name = machine.applied({"a": container(), "b": container()})
    machine.run("stop", f"{name}/a/1", check=0)
    assert phases(machine, name) == {"a": "exited", "b": "running"}
    machine.refused(125, "exec", f"{name}/a", "true", says=["not running", "start"])
    machine.run("start", f"{name}/a", check=0)
    assert phases(machine, name) == {"a": "running", "b": "running"}
    machine.run("stop", name, check=0)
    assert phases(machine, name) == {"a": "exited", "b": "exited"}
    machine.run("stop", name, check=0)
    machine.run("start", name, check=0)
    before = {one: machine.pid(f"{name}/{one}") for one in "ab"}
    machine.run("restart", name, check=0)
    after = {one: machine.pid(f"{name}/{one}") for one in "ab"}
    assert all(before[one] != after[one] for one in "ab")
    machine.run("plan", f"{name}.yaml", check=0)


def test_hold_is_shown_survives_apply_and_is_ended_by_resume(machine: Machine) -> None:
    name = machine.applied({"web": container(ports=["127.0.0.1:8091:80"])})
    machine.run("stop", f"{name}/web", "--note", "disk is being replaced", check=0)
    assert "held" in machine.run("get", check=0).out
    held = machine.record(f"{name}/web")["status"]["held"]
    assert (held["kind"], held["why"]) == ("stop", "disk is being replaced")
    shown = machine.run("plan", f"{name}.yaml", check=0).out
    assert "disk is being replaced" in shown
    machine.run("apply", f"{name}.yaml", "--yes", check=0)
    machine.run("restart", f"{name}/web", check=1)
    assert phases(machine, name) == {"web": "exited"}
    assert machine.run("drift", name).code == 0
    machine.run("plan", f"{name}.yaml", "--resume", check=2)
    machine.run("apply", f"{name}.yaml", "--resume", "--yes", "--no-wait", check=0)
    assert phases(machine, name) == {"web": "running"}
    machine.run("plan", f"{name}.yaml", check=0)


def test_port_of_what_is_held_refuses_at_once(machine: Machine) -> None:
    web = {"image": "127.0.0.1:5000/web:1", "ports": ["127.0.0.1:8092:8080"], "stop_grace": "0s"}
    name = machine.applied({"web": web})
    wait_until(lambda: "It works" in machine.world.fetch("http://127.0.0.1:8092/"), "it answers")
    machine.run("stop", f"{name}/web", check=0)
    asked = machine.world.nsenter("busybox", "nc", "-w", "2", "127.0.0.1", "8092", check=False)
    assert "refused" in asked.err.lower(), asked
    machine.run("start", f"{name}/web", check=0)
    wait_until(lambda: "It works" in machine.world.fetch("http://127.0.0.1:8092/"), "it answers again")


def test_kill_sends_a_signal_and_holds_nothing(machine: Machine) -> None:
    name = machine.applied({"web": container("sh", "-c", "trap 'echo hup' HUP; while :; do sleep 0.05; done")})
    pid = machine.pid(f"{name}/web")
    machine.run("kill", "-s", "HUP", f"{name}/web", check=0)
    wait_until(lambda: "hup" in machine.run("logs", f"{name}/web").out, "it got the signal")
    assert machine.pid(f"{name}/web") == pid
    machine.run("kill", f"{name}/web", check=0)
    wait_until(lambda: machine.record(f"{name}/web")["status"]["restarts"] == 1, "it was started again")
    assert "137" in machine.run("events", "--stack", name, check=0).out
    machine.run("stop", name, check=0)
    machine.refused(1, "kill", f"{name}/web", says=[f"container/{name}/web/1"])


def test_stop_time_is_how_long_it_may_take(machine: Machine) -> None:
    stubborn = container("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", stop_grace="60s")
    name = machine.applied({"web": stubborn})
    machine.run("stop", "-t", "100ms", f"{name}/web", check=0)
    assert machine.record(f"{name}/web")["status"]["exit_code"] == 137
