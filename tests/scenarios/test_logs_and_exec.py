"""Logs and exec: looking into containers that run."""

import pytest

from lab.world import World, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def talker(world: World) -> World:
    box = {"image": "127.0.0.1:5000/busybox:1", "stop_grace": "0s"}
    script = "for i in $$(seq 30); do echo line $$i; done; echo oops >&2; printf unfinished; exec pause"
    world.write(
        {
            "apiVersion": "reconcile/v1",
            "name": "talk",
            "containers": {
                "talker": {**box, "command": ["sh", "-c", script]},
                "user": {**box, "command": ["pause"], "user": "www", "workdir": "/tmp", "env": {"A": "1"}},
            },
        }
    )
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def test_logs_have_every_line_in_order_on_their_stream(talker: World):
    result = talker.run("logs", "talker", check=0)
    assert result.out.splitlines()[:30] == [f"line {n}" for n in range(1, 31)]
    assert "unfinished" in result.out
    assert result.err == "oops\n"


def test_tail_since_and_times(talker: World):
    assert talker.run("logs", "talker", "--tail", "2", check=0).out.splitlines()[-1] == "unfinished"
    assert len(talker.run("logs", "talker", "--tail", "5").out.splitlines()) <= 5
    assert "line 1" in talker.run("logs", "talker", "--since", "5m", check=0).out
    assert talker.run("logs", "talker", "-t", check=0).out.startswith("20")


def test_follow_shows_lines_as_they_come_and_ends_with_the_container(talker: World):
    process = talker.popen("logs", "-f", "--tail", "2", "talker")
    assert process.stdout
    told = b""
    while not told.endswith(b"unfinished"):  # From here on it follows.
        told += process.stdout.read(1)
    talker.run("exec", "talker", "sh", "-c", "echo more >/proc/1/fd/1", check=0)
    assert b"more" in process.stdout.readline()
    talker.run("stop", "talker", check=0)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_exec_runs_as_the_container_does_and_returns_its_exit_code(talker: World):
    shown = talker.run("exec", "user", "sh", "-c", "id -u; pwd; echo $A; hostname", check=0)
    assert shown.out.split() == ["82", "/tmp", "1", "user"]
    assert talker.run("exec", "user", "sh", "-c", "exit 42").code == 42
    assert talker.run("exec", "user", "--", "sh", "-c", "exit 42").code == 42
    assert talker.run("exec", "user", "/no/such").code == 127
    assert talker.run("exec", "user", "/etc/passwd").code == 126
    assert talker.run("exec", "-i", "user", "cat", stdin="through\n", check=0).out == "through\n"


def test_exec_and_logs_of_nobody_name_who_is_meant(talker: World):
    result = talker.run("exec", "talkre", "true")
    assert result.code in (1, 125), str(result)
    assert "talker" in result.err
    assert "talker" in talker.run("logs", "talkre", check=1).err


def test_log_of_a_container_that_ended_stays_until_it_is_deleted(talker: World):
    talker.run("stop", "talker", check=0)
    wait_until(lambda: talker.record("talk/talker")["status"]["phase"] == "exited", "it has ended")
    assert "line 30" in talker.run("logs", "talker", check=0).out
