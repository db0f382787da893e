"""What is done by hand with a container, through the socket of the controller: terminals, streams, files, the audit."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lab.serving import Serving
from lab.terminal import Terminal
from lab.world import Result, open_world, wait_until
from reconciler.api import asks
from reconciler.api.client import Client
from reconciler.api.files import FarSide
from reconciler.api.line import Ends
from reconciler.api.sessions import Attach, Exec, Run, Session
from reconciler.model.errors import ProgramFailed, ReconcileError
from reconciler.model.events import silent
from reconciler.schema.load import load_schema
from reconciler.verbs import copying

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"
MANIFEST = f"""\
apiVersion: reconcile/v1
name: box
containers:
  box: {{image: "{BOX}", command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]}}
"""
LARGE = 48 << 20
QUICK = ("--stop-signal", "KILL")


class Hands(Serving):
    """A world with a controller, which commands reach by its socket alone."""

    @property
    def far(self) -> tuple[str, str]:
        [name] = [name for name in self.world.nsenter("ls", "/run/reconcile").out.split() if name.endswith(".sock")]
        return "--host", f"unix:///run/reconcile/{name}"

    def run(self, *words: str, stdin: str = "", check: int | None = None) -> Result:
        return self.world.run(*self.far, *words, stdin=stdin, check=check)

    @property
    def client(self) -> Client:
        """As others have it, from outside."""
        return Client(f"/proc/{self.world.holder}/root{self.far[1].removeprefix('unix://')}")

    def code(self, ask: Session) -> int:
        """What a command of the command line would end with."""
        with Path("/dev/null").open("wb") as nothing:
            try:
                return self.client.join(ask, Ends(stdout=nothing.fileno(), stderr=nothing.fileno()))["exit_code"]
            except ProgramFailed as error:
                return error.code
            except ReconcileError:
                return 125

    def delete(self, name: str) -> None:
        self.client.call(asks.Delete(what=f"container/{name}/1", manifests=asks.Manifests(paths=()), yes=True))

    def popen(self, *words: str) -> "subprocess.Popen[bytes]":
        return self.world.popen(*self.far, *words)

    def terminal(self, *words: str) -> Terminal:
        found = Terminal(self.world, *self.far, *words)
        found.wait_attached()
        return found

    def has(self, text: str) -> bool:
        """Whether a process in a container has this in its command line."""
        return any(text in command and "reconcile" not in command for command in self.world.processes().values())

    def changes(self) -> list[dict]:
        return [json.loads(line) for line in self.world.run("events", "--changes", "-o", "json", check=0).out.splitlines()]


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Iterator[Hands]:
    world = open_world(tmp_path_factory.mktemp("hands"), lab_storage)
    made = Hands(world)
    folder = world.folder / "stacks"
    folder.mkdir()
    (folder / "box.yaml").write_text(MANIFEST)
    made.launch("--watch", str(folder))
    made.wait(lambda: made.run("exec", "box", "true").code == 0, "the box runs")
    yield made
    made.end()
    world.assert_nothing_left()
    world.close()


def test_terminal_of_exec_has_our_size_our_keys_and_the_exit_code(hands: Hands) -> None:
    found = hands.terminal("exec", "-it", "box", "sh")
    found.type("stty size\n")
    found.expect("24 80")
    found.resize(50, 132)
    found.type("stty size; sleep 7000\n")
    found.expect("50 132")
    wait_until(lambda: hands.has("sleep 7000"), "it has the terminal")
    found.type("\x03")
    found.expect("/ #")
    found.type("echo sta''tus $?\n")
    found.expect("status 130")
    found.type("exit 7\n")
    assert found.end() == 7


def test_exit_codes_are_the_commands_or_ours(hands: Hands) -> None:
    commands = [("sh", "-c", "exit 3"), ("/nothere",), ("/etc/passwd",)]
    assert [hands.code(Exec(name="box", command=words)) for words in commands] == [3, 127, 126]
    assert [hands.code(Run(image=BOX, command=words, remove=True)) for words in commands] == [3, 127, 126]
    assert hands.code(Exec(name="nothere", command=("true",))) == 125
    assert hands.code(Run(image=BOX, command=("true",), networks=("nothere/net",))) == 125


def test_run_shows_its_pull_and_keeps_its_streams_apart(hands: Hands) -> None:
    found = hands.run("run", "--rm", "-i", BOX, "sh", "-c", "cat; echo err >&2; exit 5", stdin="through it")
    assert (found.code, found.out, found.err) == (5, "through it", "err\n")
    shown = hands.run("run", "--rm", "127.0.0.1:5000/web:1", "true", check=0).err
    assert "127.0.0.1:5000/web:1" in shown
    name = hands.run("run", "-d", "-e", "A=1", *QUICK, BOX, "sh", "-c", "echo $A; sleep 600", check=0).out.strip()
    wait_until(lambda: hands.run("logs", name).out == "1\n", "it wrote")
    hands.delete(name)
    assert "run" not in json.dumps(list(hands.world.records()))


def test_terminal_of_run_is_let_go_of_and_joined_again(hands: Hands) -> None:
    found = hands.terminal("run", "-it", "--rm", "--name", "shell", BOX, "sh")
    found.type("echo he''re\n")
    found.expect("here")
    found.type("\x10\x11")
    assert found.end() == 0
    again = hands.terminal("attach", "shell")
    again.type("exit 6\n")
    assert again.end() == 6
    hands.code(Run(image=BOX, command=("true",), remove=True))  # It was let go of: whoever comes next removes it.
    wait_until(lambda: "container/run/shell/1" not in hands.world.records(), "it is removed")


def test_client_that_is_killed_leaves_no_process_and_no_container(hands: Hands) -> None:
    deaf = hands.popen("exec", "box", "sh", "-c", "trap '' HUP; sleep 7001; sleep 7001")
    shell = hands.terminal("exec", "-it", "box", "sh")
    shell.type("sleep 7002\n")
    attended = hands.popen("run", "--rm", "--name", "attended", *QUICK, BOX, "sleep", "7003")
    left = hands.popen("run", "--name", "left", *QUICK, BOX, "sleep", "7004")
    for number in (7001, 7002, 7003, 7004):
        wait_until(lambda number=number: hands.has(f"sleep {number}"), f"{number} runs", seconds=30)
    for process in (deaf, attended, left):
        hands.world.signal(process, signal.SIGKILL)
        process.communicate(timeout=20)
    os.kill(shell.pid, signal.SIGKILL)
    shell.end()
    for number in (7002, 7003, 7001):
        wait_until(lambda number=number: not hands.has(f"sleep {number}"), f"{number} is gone", seconds=30)
    wait_until(lambda: "container/run/attended/1" not in hands.world.records(), "its container too", seconds=30)
    assert hands.has("sleep 7004")
    hands.delete("run/left")


def test_large_files_go_both_ways_in_bounded_memory(hands: Hands, tmp_path: Path) -> None:
    assert hands.running is not None
    data = os.urandom(1 << 20) * (LARGE >> 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    pid = int(Path(f"/proc/{hands.running.pid}/task/{hands.running.pid}/children").read_text().split()[0])
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    before = read_peak(pid)
    hands.run("cp", str(source), "box:/large", check=0)
    hands.run("cp", "box:/large", str(target), check=0)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(data).digest()
    assert read_peak(pid) - before < 24 << 20
    hands.code(Exec(name="box", command=("rm", "/large")))


def read_peak(pid: int) -> int:
    """Bytes of memory that a process had at most since that was reset."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_D1_files_go_through_and_no_path_leads_out_of_the_container(hands: Hands, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a").write_text("one")
    hands.run("cp", f"{tmp_path}/here", "box:/copied", check=0)
    assert hands.run("exec", "box", "cat", "/copied/a", check=0).out == "one"
    hands.run("exec", "box", "ln", "-s", str(tmp_path), "/out", check=0)
    hands.run("cp", f"{tmp_path}/here/a", "box:/out/planted", check=1)
    assert not (tmp_path / "planted").exists()
    (tmp_path / "secret").write_text("secret")
    hands.run("cp", "box:/out/secret", str(tmp_path / "got"), check=1)
    assert not (tmp_path / "got").exists()
    assert "no such file" in hands.run("cp", f"box:/{'../' * 9}{tmp_path}/secret", "-", check=1).err
    line = " ".join([sys.executable, "-m", "reconciler.cli.main", *hands.far])
    listed = hands.world.nsenter("sh", "-c", f"{line} cp box:/copied - | tar -tf -")
    assert listed.out.split() == ["copied/", "copied/a"]
    hands.world.nsenter("sh", "-c", f"tar -C {tmp_path}/here -c a | {line} cp - box:/tmp")
    assert hands.run("exec", "box", "cat", "/tmp/a", check=0).out == "one"


def test_copy_whose_client_is_killed_leaves_the_old_file_and_no_half_one(hands: Hands) -> None:
    process = begin_copy(hands)
    hands.world.signal(process, signal.SIGKILL)
    process.communicate(timeout=20)
    wait_until(lambda: "failed" in hands.run("events", "--changes").out, "it is told")
    assert hands.run("exec", "box", "sh", "-c", "cat /half; ls / | grep new-", check=1).out == "old\n"


@pytest.mark.parametrize("way", ["killed", "no more comes"])
def test_copy_that_breaks_off_between_two_files_has_failed(hands: Hands, way: str) -> None:
    name = f"first-{way.replace(' ', '-')}"
    header = tarfile.TarInfo(name)
    header.size = 20480  # So much is read at once, after a header.
    process = hands.popen("cp", "-", "box:/tmp")
    assert process.stdin is not None
    process.stdin.write(header.tobuf() + b"x" * header.size)
    process.stdin.flush()
    if way == "killed":
        wait_until(lambda: hands.run("exec", "box", "test", "-e", f"/tmp/{name}").code == 0, "one is there", seconds=30)
        hands.world.signal(process, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    wait_until(lambda: [one["result"] for one in hands.changes() if one["verb"] == "cp"][-1] == "failed", "it is told")
    assert hands.changes()[-1]["why"].endswith("the tar breaks off: its end is missing")
    if way != "killed":
        assert (process.returncode, b"breaks off" in err) == (1, True)


def begin_copy(hands: Hands) -> "subprocess.Popen[bytes]":
    """A tar of one file that is there already, of which a part was sent."""
    hands.run("exec", "box", "sh", "-c", "echo old >/half", check=0)
    process = hands.popen("cp", "-", "box:/")
    header = tarfile.TarInfo("half")
    header.size = 32 << 20
    assert process.stdin is not None
    process.stdin.write(header.tobuf() + bytes(8 << 20))
    process.stdin.flush()
    return process


def test_audit_has_who_what_and_how_it_ended_and_no_secret(hands: Hands, tmp_path: Path) -> None:
    first = max((one["number"] for one in hands.changes()), default=0)
    hands.run("exec", "-e", "TOKEN=planted", "box", "sh", "-c", "exit 3 # planted", check=3)
    hands.world.run("--local", "exec", "box", "/bin/echo", "planted", check=0)
    client, side = hands.client, FarSide(hands.client, "box", emit=silent)
    name = client.join(Run(image=BOX, command=("sleep", "1"), detach=True), Ends())["name"]
    client.join(Attach(name=name), Ends())
    hands.delete(name)
    copying.copy_from(side, "/etc/passwd", str(tmp_path), archive=False, follow=False, emit=silent)
    client.call(asks.Pull(references=("127.0.0.1:5000/web:1",)))
    with pytest.raises(ReconcileError):
        client.call(asks.Pull(references=("127.0.0.1:5000/nothere:1",)))
    client.call(asks.RemoveImage(image="127.0.0.1:5000/web:1"))
    client.call(asks.Prune())
    mine = [
        one for one in hands.changes() if one["number"] > first and one["verb"] not in ("run", "apply", "heal", "delete")
    ]
    assert "planted" not in json.dumps(mine)
    for one in mine:
        Draft202012Validator(load_schema("events")).validate(one)
    assert {(one["who"], one["uid"]) for one in mine} == {("root", 0)}
    assert all(one["pid"] > 0 for one in mine[:2])
    told = [(one["verb"], one["result"], one["actions"][0], one.get("why", "")) for one in mine]
    assert [line for line in told if line[0] != "pull"] == [
        ("exec", "done", "exec container/box/box/1: sh", "exit code 3"),
        ("exec", "done", "exec container/box/box/1: /bin/echo", ""),
        ("attach", "done", f"attach container/{name}/1", ""),
        ("cp", "done", "cp container/box/box/1: out /etc/passwd", ""),
        ("images rm", "done", "images rm 127.0.0.1:5000/web:1", told[-2][3]),
        ("images prune", "done", "images prune unneeded", "0 removed, 0 B"),
    ]
    assert told[-2][3].startswith("1 removed, ")
    assert [line[1:3] for line in told if line[0] == "pull"] == [
        ("done", "pull 127.0.0.1:5000/web:1"),
        ("failed", "pull 127.0.0.1:5000/nothere:1"),
    ]


def test_controller_that_is_killed_leaves_the_terminal_and_the_containers(hands: Hands) -> None:
    name = hands.run("run", "-d", *QUICK, BOX, "sleep", "7010", check=0).out.strip()
    shell, attached = hands.terminal("exec", "-it", "box", "sh"), hands.popen("attach", name)
    shell.type("echo he''re; sleep 7011\n")
    shell.expect("here")
    copy = begin_copy(hands)
    plain = hands.popen("exec", "box", "sleep", "7012")
    deaf = hands.popen("exec", "box", "sh", "-c", "trap '' HUP; sleep 7013")
    wait_until(lambda: hands.has("sleep 7012") and hands.has("sleep 7013"), "both run")
    hands.stop(signal.SIGKILL)
    wait_until(lambda: not hands.has("sleep 7012"), "what ran without a terminal has ended")
    assert all(b"hung up" in each.communicate(timeout=30)[1] for each in (plain, deaf))
    assert hands.has("sleep 7013")
    shell.expect("the controller hung up")
    assert shell.end() == 125
    assert b"hung up" in attached.communicate(timeout=30)[1]
    copy.communicate(timeout=30)
    wait_until(lambda: not hands.has("sleep 7011"), "what was on the terminal has ended")
    assert hands.has("sleep 7010")
    found = hands.world.run("exec", "box", "sh", "-c", "cat /half; ls / | grep new-", check=1)  # in process
    assert found.out == "old\n"
    hands.launch("--watch", str(hands.world.folder / "stacks"))
    assert not hands.has("sleep 7013"), "the next controller ends what did not listen"
    hands.delete(name)


def test_controller_that_stops_lets_go_at_once(hands: Hands) -> None:
    shell = hands.terminal("exec", "-it", "box", "sh")
    held = hands.popen("run", "--rm", "--name", "held", *QUICK, BOX, "sleep", "7020")
    # Race: its process is there before it is on record; a controller that stops in between ends it, as not yet begun.
    wait_until(lambda: "container/run/held/1" in hands.world.records("container"), "it runs", seconds=30)
    began = time.monotonic()
    hands.stop()
    assert time.monotonic() - began < 10
    assert shell.end() == 129
    assert b"it goes on" in held.communicate(timeout=30)[1]
    assert hands.has("sleep 7020")
    hands.world.run("delete", "container/run/held/1", "--yes", check=0)
