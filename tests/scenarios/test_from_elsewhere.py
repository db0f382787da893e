"""Commands of who is not root but in the group `reconcile`, and over a real sshd: manifests of theirs, errors in words."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.people import PORT, People
from lab.serving import Serving
from lab.terminal import Terminal
from lab.world import open_world, wait_until

pytestmark = pytest.mark.root
NEEDS_SSHD = pytest.mark.skipif(
    not Path("/usr/sbin/sshd").exists(), reason="skipped because openssh-server is not installed"
)

MANIFEST = """\
apiVersion: reconcile/v1
name: {name}
configs: {{page: {{file: ./page.html}}}}
secrets: {{token: {{file: ./token}}}}
containers:
  web:
    image: 127.0.0.1:5000/web:1
    configs: [page]
    secrets: [token]
    mounts: ["./motd:/motd:ro"]
    env_file: web.env
    command: [sh, -c, "echo hello; exec sleep 1000"]
"""
BOX = "127.0.0.1:5000/busybox:1"
SHOW = ("cat", "/page", "/run/secrets/token", "/motd")
HOST = f"ssh://ann@127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Iterator[People]:
    """One world, one controller of the default root, for all tests of this module."""
    world = open_world(tmp_path_factory.mktemp("people") / "world", lab_storage)
    serving = Serving(world)
    try:
        made = People(world)
        stacks = world.folder / "stacks"
        stacks.mkdir()
        serving.launch("--watch", str(stacks))
        yield made
        serving.end()
        world.assert_nothing_left()
    finally:
        serving.end()
        world.close()


def write(people: People, user: str, name: str) -> str:
    """A manifest and what it names, all closed to others; its path."""
    texts = {"page.html": "hello ", "token": "swordfish ", "motd": "hi", "web.env": "A=1\n"}
    for file, text in {**texts, "stack.yaml": MANIFEST.format(name=name)}.items():
        people.write(user, f"{name}/{file}", text)
    return f"{name}/stack.yaml"


def complete(people: People, user: str, line: str) -> list[str]:
    """What the shell is told; it may be known with the next key only."""
    words = {
        "COMP_WORDS": f"reconcile {line}",
        "COMP_CWORD": str(len(line.split(" "))),
        "_RECONCILE_COMPLETE": "bash_complete",
    }
    told = people.run(user, **words, check=0)
    assert told.err == ""
    return [one.partition(",")[2] for one in told.out.splitlines() if one]


def test_member_of_the_group_does_what_root_does_with_files_of_his(people: People) -> None:
    path = write(people, "ann", "mine")
    assert "done: 5 actions" in people.run("ann", "apply", path, "--yes", check=0).out
    assert people.run("ann", "exec", "mine/web", "--", *SHOW, check=0).out == "hello swordfish hi"
    assert people.run("ann", "logs", "mine/web", check=0).out == "hello\n"
    assert "container/mine/web/1" in people.run("ann", "get", "-o", "json", check=0).out
    assert "nothing to do" in people.run("ann", "apply", "mine", check=0).out
    wait_until(lambda: complete(people, "ann", "logs we") == ["web"], "the shell knows names")
    wait_until(lambda: complete(people, "ann", "history mi") == ["mine"], "and stacks")
    assert complete(people, "bob", "logs we") == []
    # Root owns the same file by the same origin.
    assert "nothing to do" in people.world.run("apply", f"/mnt/ann/{path}", check=0).out
    assert "apply mine by ann (uid 4242): done" in people.run("ann", "events", check=0).out
    assert "this needs root" in people.run("ann", "backup", "/tmp/x.tar", check=1).err


def test_member_of_the_group_lays_hands_on_containers_and_is_in_the_audit(people: People) -> None:
    people.write("ann", "private", "swordfish")
    people.run("ann", "run", "-d", "--name", "hands", "--stop-signal", "KILL", BOX, "sleep", "600", check=0)
    people.run("ann", "cp", "private", "hands:/tmp/it", check=0)
    assert people.run("ann", "exec", "hands", "sha1sum", "/tmp/it", check=0).out.startswith("4f57181d")
    people.run("ann", "cp", "hands:/tmp/it", "back", check=0)
    assert people.world.nsenter("stat", "-c", "%U", "/mnt/ann/back").out == "ann\n"
    assert people.run("ann", "run", "--rm", "-i", BOX, "cat", stdin="through", check=0).out == "through"
    told = people.run("ann", "events", "--changes", check=0).out
    assert "cp run by ann (uid 4242): done (cp container/run/hands/1: in /tmp" in told
    assert "exec run by ann (uid 4242): done (exec container/run/hands/1: sha1sum" in told
    people.run("ann", "delete", "container/run/hands/1", "--yes", check=0)


def test_f6_member_has_no_file_read_that_he_may_not_read(people: People) -> None:
    secret = people.world.folder / "root-only"
    secret.write_text("swordfish")
    secret.chmod(0o600)
    people.world.nsenter("sh", "-c", f"cp -p {secret} /mnt/secret && cp -p {secret} /mnt/secret.yaml")
    text = "apiVersion: reconcile/v1\nname: x\nconfigs: {c: {file: /mnt/secret}}\n"
    people.write("ann", "x.yaml", text)
    told = people.run("ann", "apply", "x.yaml", check=65)
    assert "/mnt/secret can't be read: Permission denied" in told.out + told.err
    line = text.replace("\n", "\\n")
    for body in (
        f'{{"manifests": {{"paths": ["-"], "stdin": "{line}"}}}}',
        '{"manifests": {"paths": ["/mnt/secret.yaml"]}}',
    ):
        curl = ["curl", "-s", "--unix-socket", "/run/reconcile/api.sock", "-H", "Content-Type: application/json"]
        answer = people.world.nsenter(*people.enter("ann"), *curl, "-d", body, "http://reconcile/v1/plan").out
        assert '"status":422' in answer
        assert "a controller opens no file that a client names" in answer
        assert "swordfish" not in answer


def test_who_is_not_a_member_is_told_what_to_do(people: People) -> None:
    told = people.run("bob", "get", check=1).err
    assert "/run/reconcile/api.sock: this user may not ask the controller" in told
    assert "the group `reconcile`" in told


@NEEDS_SSHD
def test_host_by_a_real_sshd_has_manifests_and_files_of_this_one(people: People) -> None:
    path = write(people, "bob", "far")
    node = people.world.nsenter("uname", "-n").out.strip()
    with people.sshd():
        assert "done: 5 actions" in people.run("bob", "--host", HOST, "apply", path, "--yes", check=0).out
        assert "nothing to do" in people.run("bob", "--host", HOST, "apply", path, check=0).out
        assert people.run("bob", "--host", HOST, "exec", "far/web", "--", *SHOW, check=0).out == "hello swordfish hi"
        assert f"file:bob@{node}:/mnt/bob/{path}" in people.run("bob", "--host", HOST, "status").out
        wait_until(
            lambda: complete(people, "bob", f"--host {HOST} history fa") == ["far"], "the shell knows stacks of there"
        )
        people.run("bob", "context", "add", "db1", HOST, check=0)
        people.run("bob", "context", "use", "db1", check=0)
        wait_until(lambda: complete(people, "bob", "history fa") == ["far"], "and of the context in use")
        people.run("bob", "context", "rm", "db1", check=0)
        _follow(people)
        _sit_at_a_terminal(people)


def _sit_at_a_terminal(people: People) -> None:
    """Whose other end is killed: nothing of it is left there."""
    reconcile = [*people.enter("bob"), "TERM=xterm", "reconcile", "--host", HOST]
    shell = Terminal(people.world, "exec", "-it", "far/web", "sh", reconcile=reconcile)
    shell.wait_attached()
    shell.resize(50, 132)
    shell.type("stty size; sleep 7100\n")
    shell.expect("50 132")
    wait_until(lambda: "sleep 7100" in people.world.processes().values(), "it sleeps")
    os.kill(shell.pid, signal.SIGKILL)
    shell.end()
    wait_until(lambda: "sleep 7100" not in people.world.processes().values(), "nothing of it is left", seconds=20)


def _follow(people: People) -> None:
    """What is written while somebody looks is seen, and a look ends with Ctrl-C."""
    events = people.start("bob", "--host", HOST, "events", "--follow", "--stack", "far")
    assert events.stdout is not None
    assert b"create" in events.stdout.readline()
    process = people.start("bob", "--host", HOST, "logs", "-f", "far/web")
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\n"
    people.run("ann", "exec", "far/web", "--", "sh", "-c", "echo more >/proc/1/fd/1", check=0)
    assert process.stdout.readline() == b"more\n"
    for each in (process, events):
        people.world.signal(each, signal.SIGINT)
        each.communicate(timeout=20)
    wait_until(lambda: not any("dial" in line for line in people.world.processes().values()), "the far end has gone")


@NEEDS_SSHD
def test_what_ssh_says_is_said_with_what_to_do(people: People) -> None:
    folder = people.world.folder
    with people.sshd():
        told = people.run("bob", "--host", f"ssh://bob@127.0.0.1:{PORT}", "get", check=1).err
        assert "this user may not ask the controller" in told
        assert "what stands above was said there" in told
        people.know("bob", "other")
        told = people.run("bob", "--host", HOST, "get", check=1).err
        assert "Host key verification failed." in told
        assert f"{HOST}: no answer" in told
        assert f"`ssh {HOST} true` must work first" in told
        people.know("bob", "host")
        people.write("bob", ".ssh/id_ed25519", (folder / "other").read_text())
        assert "Permission denied (publickey" in people.run("bob", "--host", HOST, "get", check=1).err
    with people.sshd("SetEnv=PATH=/usr/bin:/bin"):
        told = people.run("bob", "--host", HOST, "get", check=1).err
        assert "no reconcile is installed there" in told
    told = people.run("bob", "--host", HOST, "get", check=1).err
    assert "Connection refused" in told
    told = people.run("bob", "--host", HOST, "backup", "x", check=64).err
    assert f"it writes a file beside the root): `ssh {HOST} reconcile backup …`" in told
