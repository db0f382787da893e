"""`run`, `attach`, `wait`: a command line that becomes a container of the stack `run`, and what passes between the two."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.terminal import Terminal
from lab.world import World, wait_until

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"


def script(text: str) -> tuple[str, ...]:
    return (BOX, "sh", "-c", text)


def started(world: World, *arguments: str) -> str:
    """A detached container; what `run -d` printed."""
    result = world.run("run", "-d", *arguments, check=0)
    assert re.fullmatch(r"run/[a-z0-9.-]+\n", result.out), str(result)
    return result.out.strip()


def phase(world: World, name: str) -> str:
    found = world.records().get(f"container/{name}/1")
    return found["status"]["phase"] if found else "gone"


def runs_anew(world: World, name: str, pid: int) -> bool:
    """Race: one look, for between two it may have ended."""
    status = world.record(name)["status"]
    return status["phase"] == "running" and status["pid"] != pid


@contextmanager
def running(world: World, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that is left running; ended at the end where it has not."""
    process = world.popen(*arguments)
    try:
        yield process
    finally:
        if process.poll() is None:
            world.signal(process)
        process.communicate(timeout=20)


# --- attached ---


def test_streams_come_apart_and_the_exit_code_is_the_commands(world: World):
    result = world.run("run", "--rm", *script("echo out; echo err >&2; exit 7"), check=7)
    assert result.out == "out\n"
    assert result.err.endswith("err\n")
    assert "downloading" in result.err, "the pull is shown, and not on standard output"
    assert world.records() == {}


def test_nothing_of_the_first_moment_and_of_the_last_is_lost(world: World):
    result = world.run("run", "--rm", *script("seq 1 200000; echo last >&2"), check=0)
    assert result.out.splitlines() == [str(number) for number in range(1, 200001)]
    assert result.err.endswith("last\n")


def test_standard_input_goes_through_only_where_asked_and_its_end_too(world: World):
    text = "x" * 99 + "\n"
    assert world.run("run", "--rm", "-i", BOX, "cat", stdin=text * 20000, check=0).out == text * 20000
    assert world.run("run", "--rm", BOX, "cat", stdin="for nobody\n", check=0).out == ""


def test_command_that_is_not_there_or_not_executable_leaves_nothing(world: World):
    missing = world.run("run", BOX, "/no/such", check=127)
    assert "/no/such" in missing.err
    assert world.run("run", BOX, "/etc/passwd", check=126).err
    assert world.run("run", "127.0.0.1:5000/nobody:1", "true", check=125).err
    assert world.records() == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(world: World, number: signal.Signals):
    loop = f"trap 'echo got; exit 9' {number.name[3:]}; echo up; while :; do sleep 0.05; done"
    with running(world, "run", "--rm", *script(loop)) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        world.signal(process, number)
        assert process.stdout.readline() == b"got\n"
        assert process.wait(30) == 9
    assert world.records() == {}


def test_reader_that_goes_away_ends_it(world: World):
    with running(world, "run", "--rm", BOX, "yes") as process:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        process.stdout = None
    assert world.records() == {}


def test_terminal_has_our_size_and_passes_keys_on(world: World):
    world.run("pull", BOX, check=0)
    loop = "stty size; while read line; do echo got $line; stty size; done; exit 3"
    terminal = Terminal(world, "run", "--rm", "-it", *script(loop), size=(33, 99))
    terminal.expect("33 99")
    terminal.type("word\r")
    terminal.expect("got word")
    terminal.resize(44, 111)
    wait_until(lambda: terminal.says("\r", "44 111"), "its size follows", lambda: terminal.shown)
    terminal.type("\x04")
    assert terminal.end() == 3
    assert world.records() == {}


def test_ctrl_c_is_a_key_of_the_containers_terminal(world: World):
    world.run("pull", BOX, check=0)
    loop = "trap 'echo caught; exit 5' INT; echo up; while :; do sleep 0.05; done"
    terminal = Terminal(world, "run", "--rm", "-it", *script(loop))
    terminal.expect("up")
    terminal.type("\x03")
    terminal.expect("caught")
    assert terminal.end() == 5


def test_detached_by_keys_it_goes_on_and_can_be_attached_again(world: World):
    world.run("pull", BOX, check=0)
    loop = "while read line; do echo got $line; [ $line = end ] && exit 6; done"
    terminal = Terminal(world, "run", "-it", "--name", "shell", *script(loop))
    terminal.wait_attached()
    terminal.type("one\r")
    terminal.expect("got one")
    terminal.type("\x10\x11")
    assert terminal.end() == 0
    assert phase(world, "run/shell") == "running"
    again = Terminal(world, "attach", "--detach-keys", "ctrl-x,x", "shell")
    again.wait_attached()
    again.type("\x10two\x11\r")  # keys like any other now
    again.expect("two")
    again.type("\x18x")
    assert again.end() == 0
    last = Terminal(world, "attach", "shell")
    last.wait_attached()
    last.type("end\r")
    last.expect("got end")
    assert last.end() == 6


# --- what it is made with ---


def test_flags_mean_what_they_say(world: World):
    (world.folder / "shown").mkdir()
    (world.folder / "shown" / "file").write_text("of the host\n")
    (world.folder / "some.env").write_text("FROM_FILE=file\n")
    flags = ["-e", "PLAIN=a b", "-e", "TOKEN", "-e", "NOT_SET", "--env-file", "some.env", "-u", "www", "-w", "/srv"]
    flags += ["-h", "box", "-v", "./shown:/shown:ro", "-v", "kept:/kept"]
    text = "echo $PLAIN $TOKEN ${NOT_SET-unset} $FROM_FILE; id -u; pwd; hostname; cat /shown/file"
    text += "; touch /shown/no 2>/dev/null || echo ro"
    result = world.run("run", "--rm", *flags, *script(text), env={"TOKEN": "planted-secret"}, check=0)
    assert result.out.split("\n")[:-1] == ["a b planted-secret unset file", "82", "/srv", "box", "of the host", "ro"]
    records = world.records()
    assert list(records) == ["volume/run/kept"], "a named volume stays, as with docker"
    assert "planted-secret" not in world.run("events", check=0).out + world.run("history", "run", check=0).out


def test_limits_capabilities_and_read_only_root(world: World):
    text = "grep CapEff /proc/self/status; touch /x 2>&1"
    plain = world.run("run", "--rm", *script(text), check=0).out
    other = world.run("run", "--rm", "--cap-drop", "ALL", "--read-only", *script(text), check=1).out
    assert plain != other
    assert "0000000000000000" in other
    assert "Read-only" in other
    name = started(world, "-m", "64m", "--cpus", "0.5", "--init", "-l", "team=web", "--stop-signal", "INT", BOX, "pause")
    spec = world.record(name)["spec"]
    assert spec["resources"] == {"memory": 64 << 20, "cpus": 0.5}
    assert (spec["labels"], spec["init"], spec["stop_signal"], spec["restart"]) == ({"team": "web"}, True, "SIGINT", "no")


def test_published_port_answers_and_is_closed_with_it(world: World):
    name = started(world, "-p", "127.0.0.1:8088:80", BOX, "httpd", "-f", "-p", "80", "-h", "/etc")
    wait_until(lambda: "root:" in world.fetch("http://127.0.0.1:8088/passwd"), "it answers")
    refused = world.run("run", "-p", "127.0.0.1:8088:80", BOX, "pause", check=125)
    assert name in refused.err
    world.run("delete", f"container/{name}/1", "--yes", check=0)
    assert world.fetch("http://127.0.0.1:8088/passwd") == ""
    assert world.records() == {}, "its image and its network went with it"


def test_containers_on_one_network_of_run_find_each_other_by_name(world: World):
    started(world, "--network", "lab", "--name", "one", BOX, "pause")
    assert world.run("run", "--rm", "--network", "lab", BOX, "nslookup", "one", check=0).out
    assert world.run("run", "--rm", BOX, "nslookup", "-timeout=1", "one").code != 0, "the default network is another"
    alone = world.run("run", "--rm", "--network", "none", *script("ls /sys/class/net"), check=0)
    assert alone.out.split() == ["lo"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-p", "80"], "--publish"),
        (["-v", "/no/such/source:/x"], "/no/such/source"),
        (["-v", "x:/proc/y"], "--volume"),
        (["-m", "1k"], "--memory"),
        (["--name", "Bad Name"], "--name"),
        (["--network", "nobody/front"], "nobody/front"),
        (["--env-file", "no.env"], "no.env"),
        (["--pull", "never"], "never"),
    ],
)
def test_what_does_not_fit_is_told_of_its_flag_and_changes_nothing(world: World, flags: list[str], says: str):
    result = world.run("run", *flags, BOX, "true", check=125)
    assert says in result.err, str(result)
    assert world.records() == {}


# --- one of many ---


def test_run_leaves_the_others_of_its_stack_alone_and_is_recorded_like_everything_else(world: World):
    first = started(world, "--name", "first", BOX, "pause")
    pid = world.pid(first)
    second = started(world, "--name", "second", BOX, "pause")
    taken = world.run("run", "--name", "first", BOX, "true", check=125)
    assert "delete container/run/first/1" in taken.err
    assert world.pid(first) == pid
    assert "reconcile run" in world.run("history", "run", check=0).out
    assert "create container/run/second/1" in world.run("events", check=0).out
    world.kill(world.pid(second))
    wait_until(lambda: phase(world, second) == "exited", "it ended, and restart is `no`")
    assert world.run("drift", "run").code == 0
    world.write({"apiVersion": "reconcile/v1", "name": "run", "containers": {"first": {"image": BOX}}})
    assert "reserved" in world.run("apply", "stack.yaml", "--yes", check=65).err
    world.run("delete", "container/run/second/1", "--yes", check=0)
    assert world.pid(first) == pid
    assert "network/run/default" in world.records()


def test_restart_policy_holds_for_what_was_run(world: World):
    name = started(world, "--restart", "always", BOX, "pause")
    pid = world.pid(name)
    world.kill(pid)
    wait_until(lambda: runs_anew(world, name, pid), "it runs again")


def test_detached_with_rm_is_removed_by_whoever_comes_next(world: World):
    name = started(world, "--rm", BOX, "true")
    wait_until(lambda: phase(world, name) == "exited", "it ended")
    assert world.run("run", "--rm", BOX, "echo", "next", check=0).out == "next\n"
    assert world.records() == {}


def test_killed_run_leaves_its_container_to_go_on_and_rm_to_the_next(world: World):
    with running(world, "run", "--rm", "--name", "left", *script("echo up; sleep 1; exit 4")) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        world.signal(process, signal.SIGKILL)
        process.wait(20)
    assert world.run("wait", "run/left", check=0).out == "4\n"
    world.run("run", "--rm", BOX, "true", check=0)
    assert world.records() == {}


def test_end_of_an_attended_container_is_not_taken_from_who_waits_for_it(world: World):
    with running(world, "run", "--rm", "--name", "slow", *script("echo up; sleep 0.5; exit 4")) as process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        world.signal(process, signal.SIGSTOP)
        wait_until(lambda: phase(world, "run/slow") == "exited", "it ended while nobody looked")
        world.run("run", "--rm", BOX, "true", check=0)
        assert phase(world, "run/slow") == "exited"
        process.send_signal(signal.SIGCONT)  # nsenter has stopped with its child, and wakes it
        assert process.wait(30) == 4
    assert world.records() == {}


def test_volumes_of_the_image_go_with_rm(world: World):
    world.run("run", "--rm", "-v", "/own", BOX, "touch", "/own/file", check=0)
    assert world.records() == {}
    assert not list((world.root / "volumes").glob("*"))


# --- attach and wait ---


def test_attach_shows_what_comes_and_ends_with_its_exit_code(world: World):
    name = started(world, "-i", *script("while read line; do echo got $line; done; exit 8"))
    result = world.run("attach", name, stdin="a\nb\n", check=8)
    assert result.out == "got a\ngot b\n"
    refused = world.run("attach", name, check=1)
    assert "exited" in refused.err


def test_wait_prints_exit_codes_and_says_who_never_ends(world: World):
    slow = started(world, *script("sleep 0.7; exit 3"))
    gone = started(world, BOX, "false")
    assert world.run("wait", slow, gone, check=0).out == "3\n1\n"
    held = started(world, BOX, "pause")
    world.run("stop", held, "--note", "on purpose", check=0)
    result = world.run("wait", held, check=0)
    assert result.out.strip().isdigit()
    assert "on purpose" in result.err
    assert "no container" in world.run("wait", "nobody", check=1).err


def test_wait_ends_when_it_is_stopped_and_not_when_it_restarts(world: World):
    name = started(world, "--restart", "always", BOX, "pause")
    with running(world, "wait", name) as process:
        pid = world.pid(name)
        world.kill(pid)
        wait_until(lambda: runs_anew(world, name, pid), "it runs again")
        assert process.poll() is None
        world.run("stop", name, check=0)
        out, _ = process.communicate(timeout=30)
        assert out.strip().isdigit()
