"""`reconcile serve` as a process, on the real kernel: files that change, things that drift, a controller that dies."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.serving import Serving
from lab.world import World, wait_until

pytestmark = pytest.mark.root

MANIFEST = """\
apiVersion: reconcile/v1
name: {name}
networks: {{front: {{}}}}
containers:
  web: {{image: "127.0.0.1:5000/web:1", networks: [front], ports: ["127.0.0.1:{port}:8080"]{more}}}
"""


class Served(Serving):
    """A world in which a controller serves one folder."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.folder = world.folder / "stacks"
        self.folder.mkdir()

    def start(self, *flags: str) -> None:
        self.launch(*([] if "--config" in flags else ["--watch", str(self.folder)]), *flags)

    def hang_up(self) -> None:
        assert self.running is not None
        self.world.signal(self.running, signal.SIGHUP)

    def write(self, name: str, port: int, more: str = "") -> None:
        path = self.folder / f"{name}.yaml"
        staged = path.with_suffix(".new")
        staged.write_text(MANIFEST.format(name=name, port=port, more=more))
        staged.rename(path)

    def asks(self, path: str) -> str:
        return self.world.nsenter("curl", "-s", "-m", "5", f"http://127.0.0.1:9323/{path}").out.strip()


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    made = Served(world)
    yield made
    made.end()


def test_files_become_stacks_and_what_is_wrong_is_in_the_status(served: Served) -> None:
    served.write("blog", 8081)
    served.start()
    served.wait(lambda: served.serves(8081), "blog is up")
    pid = served.world.pid("blog/web")
    served.write("shop", 8082)
    served.wait(lambda: served.serves(8082), "shop is up, as soon as its file is there")
    assert served.world.pid("blog/web") == pid
    served.wait(lambda: served.world.run("status").out.count("synced") == 2, "both are done")
    assert served.world.run("status").code == 0
    served.write("shop", 8082, ', memry: "1G"')
    served.wait(lambda: served.status()["controller"]["sources"][0]["problems"], "the status says it")
    told = served.world.run("status", check=2).out
    assert "shop.yaml: invalid, its last version stays" in told
    assert re.search(r"^shop +failed ", told, re.MULTILINE), "what runs is not what the file says"
    assert "shop.yaml is invalid by now" in told
    assert "1 of 2 stacks as it wants them" in told
    assert "memry: unknown key" in told
    assert served.serves(8082)
    (served.folder / "shop.yaml").unlink()
    served.wait(lambda: any(one["gone"] for one in served.status()["controller"]["stacks"]), "it is told to be gone")
    told = served.world.run("status", check=2).out
    assert re.search(r"^shop +held ", told, re.MULTILINE), "nobody says what is to become of it"
    assert "`reconcile delete shop --take-over`" in told
    assert served.serves(8082)
    code, err = served.stop()
    assert code == 0
    assert "containers run on" in err
    assert served.serves(8081)
    assert served.world.run("status", "-o", "json").json()["controller"] is None
    told = served.world.run("status", check=0)  # Who stops one knows of it.
    assert re.search(r"nobody serves, .* \(pid \d+\) was stopped \S+ ago", told.out)


def test_configuration_is_read_anew_on_sighup_and_a_bad_one_changes_nothing(served: Served) -> None:
    served.write("blog", 8081)
    config = served.world.folder / "serve.yaml"
    metrics = "metrics: {listen: 127.0.0.1:9323}\n"
    head = f"apiVersion: reconcile/v1\n{metrics}sources:\n  - watch: {served.folder}\n"
    config.write_text(head)
    assert "is right" in served.world.run("serve", "--config", str(config), "--check", check=0).out
    served.start("--config", str(config))
    served.wait(lambda: served.serves(8081), "blog is up")
    pid = served.world.pid("blog/web")
    applied = 'reconcile_changes_total{result="done",verb="apply"} 1.0'
    served.wait(lambda: applied in served.asks("metrics"), "it is applied")
    served.wait(lambda: served.asks("readyz") == "ok", "it is ready")
    served.wait(lambda: "reconcile_container_cpu_seconds_total{" in served.asks("metrics"), "it was looked at since")
    lines = served.asks("metrics").splitlines()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}
    of_it = '{container="web/1",stack="blog"}'
    for name in ("cpu_seconds_total", "memory_bytes", "pids", "network_receive_bytes_total", "running"):
        assert values[f"reconcile_container_{name}{of_it}"] > 0, name
    socket = served.status()["controller"]["socket"]
    over_socket = served.world.nsenter("curl", "-s", "--unix-socket", socket, "http://localhost/metrics").out
    assert f"reconcile_container_running{of_it} 1.0" in over_socket
    config.write_text(head + "drifft: warn\n")
    served.world.run("serve", "--config", str(config), "--check", check=65)
    served.hang_up()
    served.wait(lambda: served.status()["controller"]["problem"], "the status says it")
    told = served.world.run("status", check=2).out
    assert "its configuration has a mistake; what was read before stays in force" in told
    assert "serve.yaml:5:1 drifft: unknown key" in told
    assert "did you mean drift?" in told
    more = served.world.folder / "more"
    more.mkdir()
    (more / "shop.yaml").write_text(MANIFEST.format(name="shop", port=8082, more=""))
    config.write_text(head.replace(str(served.folder), str(more)))
    served.hang_up()
    served.wait(lambda: served.serves(8082), "what the new source has is up")
    assert [one["name"] for one in served.status()["controller"]["sources"]] == [str(more)]
    assert served.status()["controller"]["problem"] == ""
    told = f"{served.folder} is not served any more; what runs stays, and is mended as it is recorded: blog"
    assert told in served.world.run("events").out
    for words in ([], ["blog"]):
        told = served.world.run("status", *words, check=0).out
        assert f"{served.folder}  not served: nobody follows what it wants of blog" in told
    assert served.world.pid("blog/web") == pid


def test_version_that_does_not_run_is_rolled_back_and_waits_for_another(served: Served) -> None:
    served.write("blog", 8081)
    served.start()
    served.wait(lambda: served.serves(8081), "it is up")
    served.write("blog", 8081, ', command: [sh, -c, "echo no such table; exit 3"]')
    served.wait(lambda: "waits for another version" in served.world.run("events").out, "it went back")
    assert served.serves(8081)
    told = served.world.run("status", check=2).out
    assert "held: rollback by serve" in told
    assert "another version ends it" in told
    assert f"mend it in {served.folder}: its next version is tried" in told
    assert "no such table" in told
    served.write("blog", 8081, ', env: {MENDED: "1"}')
    served.wait(lambda: served.world.run("status").code == 0, "the next version is taken, and all is well")


def test_x8_controller_killed_at_work_is_followed_by_one_that_goes_on(served: Served) -> None:
    for number in range(3):
        served.write(f"s{number}", 8081 + number)
    served.start()
    served.stop(signal.SIGKILL)
    served.start()
    served.wait(lambda: all(served.serves(8081 + number) for number in range(3)), "all are up")
    pids = [served.world.pid(f"s{number}/web") for number in range(3)]
    served.stop(signal.SIGKILL)
    assert all(served.serves(8081 + number) for number in range(3))
    told = served.world.run("status", check=2)
    assert "nobody serves, and what sources want is not followed" in told.out
    assert "is gone without having been stopped" in told.out
    served.start()
    served.wait(lambda: all(one["synced"] for one in served.status()["controller"]["stacks"]), "all is looked at")
    assert [served.world.pid(f"s{number}/web") for number in range(3)] == pids


def test_e4_flushed_firewall_and_what_was_killed_are_mended_unasked(served: Served) -> None:
    served.write("blog", 8081)
    served.start()
    served.wait(lambda: served.serves(8081), "it is up")
    pid = served.world.pid("blog/web")
    served.world.nsenter("nft", "flush", "ruleset")
    served.wait(lambda: served.serves(8081), "the rules are back")
    assert served.world.pid("blog/web") == pid
    link = next(one for one in served.world.nsenter("ls", "/sys/class/net").out.split() if one.startswith("b"))
    served.world.nsenter("ip", "link", "set", link, "down")
    served.wait(lambda: served.serves(8081), "the bridge is up again")
    assert served.world.pid("blog/web") == pid


def test_second_controller_is_refused_and_names_the_first(served: Served) -> None:
    served.start()
    other = served.world.run("serve", "--watch", str(served.folder), check=5)
    assert "is locked by pid" in other.err
    assert "(serve)" in other.err


def test_folder_that_is_not_there_is_told_and_waited_for(served: Served) -> None:
    served.folder.rmdir()
    served.start("--poll", "1s")
    served.wait(lambda: "can't be read" in json.dumps(served.status()), "it is told")
    served.folder.mkdir()
    served.write("blog", 8081)
    served.wait(lambda: served.serves(8081), "what is in it now runs")
    served.stop()
    (served.folder / "blog.yaml").unlink()
    served.start("--poll", "1h")
    served.write("shop", 8082)
    served.wait(lambda: served.serves(8082), "an empty folder is watched too")


def test_ready_and_the_watchdog_are_told_to_systemd(served: Served) -> None:
    """A socket stands for systemd's."""
    script = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM);s.bind(sys.argv[1]);"
        "[print(s.recv(99).decode(),flush=True) for _ in range(3)]"
    )
    path = served.world.folder / "notify"
    hears = served.world.spawn(["python3", "-c", script, str(path)])
    wait_until(path.exists, "somebody listens")
    served.running = served.world.popen(
        "serve", "--watch", str(served.folder), env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
    )
    out, _ = hears.communicate(timeout=60)
    assert out.decode().split() == ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "give --watch DIR"),
        (("--git", "https://ann:secret@git.test/x"), "holds a name or password"),
        (("--git", "ext::sh -c true"), "holds spaces"),
        (("--git", "https://git.test/x", "--branch", "--upload-pack=/bin/sh"), "no name that git allows"),
        (("--branch", "main"), "--branch is for a repository"),
        (("--watch", "x", "--resync", "0s"), "--resync: expected more than 0s"),
    ],
)
def test_what_it_can_not_serve_is_a_usage_error(world: World, flags: tuple[str, ...], words: str) -> None:
    assert words in world.run("serve", *flags, check=64).err
    assert not Path(world.root).exists()


def test_unhealthy_container_is_restarted_and_told_and_one_that_says_nothing_is_left(served: Served) -> None:
    check = ', healthcheck: {{test: [CMD, test, "!", -e, /dev/shm/sick], interval: 500ms, retries: 2{more}}}'
    served.write("blog", 8081, check.format(more=""))
    served.write("shop", 8082, check.format(more=", on_unhealthy: nothing"))
    served.start()
    served.wait(lambda: served.serves(8081) and served.serves(8082), "both are up")
    for name in ("blog", "shop"):
        served.wait(
            lambda name=name: served.world.record(f"{name}/web")["status"]["health"] == "healthy", f"{name} is probed"
        )
    pids = {name: served.world.pid(f"{name}/web") for name in ("blog", "shop")}
    for name in pids:
        served.world.run("exec", f"{name}/web", "touch", "/dev/shm/sick", check=0)
    served.wait(lambda: served.world.record("blog/web")["status"]["pid"] not in (None, 0, pids["blog"]), "it is restarted")
    served.wait(lambda: served.world.record("blog/web")["status"]["health"] == "healthy", "and well again")
    events = served.world.run("events").out
    assert "container/blog/web/1: unhealthy" in events
    assert "it is restarted" in events
    served.wait(lambda: "container/shop/web/1: unhealthy" in served.world.run("events").out, "the other is told")
    assert served.world.pid("shop/web") == pids["shop"]
    assert "unhealthy: its health check fails" in served.world.run("status", check=2).out


def test_what_a_source_changes_waits_until_it_is_approved(served: Served) -> None:
    served.start("--approve")
    served.write("blog", 8081)
    source = str(served.folder)
    served.wait(lambda: any(one["waits"] for one in served.status()["controller"]["stacks"]), "it waits")
    told = served.world.run("status", check=2).out
    assert f"blog: waits for approval: 3 actions (3 create): `reconcile approve {source} --stack blog`" in told
    assert not served.serves(8081)
    assert "nobody can be asked" in served.world.run("approve", source, check=3).err
    assert "create container/blog/web/1" in served.world.run("approve", source, "--stack", "blog", "--yes", check=0).out
    served.wait(lambda: served.world.run("status").code == 0, "the controller has seen it")
    assert served.serves(8081)
    assert "approved 3 actions (3 create) of stack blog" in served.world.run("events", check=0).out
    assert f"serve {source}, approved by" in served.world.run("history", "blog", check=0).out
    assert "no source with something that waits" in served.world.run("approve", source, check=1).err


def test_commands_go_through_the_socket_of_the_controller_and_say_the_same(served: Served) -> None:
    world = served.world
    served.write("blog", 8081)
    served.start()
    served.wait(lambda: served.serves(8081), "it is up")
    [socket] = [name for name in world.nsenter("ls", "/run/reconcile").out.split() if name.endswith(".sock")]
    assert world.nsenter("stat", "-c", "%a %U", f"/run/reconcile/{socket}").out.split()[0] in ("600", "660")
    path = world.write(MANIFEST.format(name="shop", port=8082, more=""), "shop.yaml")
    told = world.run("apply", path.name, "--yes", check=0).out
    assert "3 actions: 3 create" in told
    assert "done: 3 actions" in told
    for line in ("get networks", "plan shop.yaml", "drift", "history shop", "get nothere", "apply no.yaml"):
        words = line.split()
        far, near = world.run(*words), world.run("--local", *words)
        assert (far.code, far.out, far.err) == (near.code, near.out, near.err)
    world.run("exec", "shop/web", "sh", "-c", "echo out; echo err >&2; exit 7", check=7)
    assert world.run("exec", "-i", "shop/web", "cat", stdin="through it", check=0).out == "through it"
    assert "shop" in world.run("events", "--changes", "--stack", "shop", check=0).out
    world.run("stop", "shop", check=0)
    assert world.record("shop/web")["status"]["held"]["kind"] == "stop"
    world.run("delete", "shop", "--yes", check=0)
    _go_through_ssh(served)
    assert served.running is not None
    world.signal(served.running, signal.SIGSTOP)  # One that hangs is told, and can be gone without.
    hung = world.run("get", check=1)
    assert "does not answer" in hung.err
    assert "blog" in world.run("--local", "get", check=0).out
    world.signal(served.running, signal.SIGCONT)


SSH = """\
#!/bin/sh
echo "$@" >>{log}
for last; do :; done
reconcile() {{ {python} -m reconciler.cli.main "$@"; }}
eval "$last"
"""


def _go_through_ssh(served: Served) -> None:
    """A script stands for ssh: it runs its last argument, as the shell of the other end does."""
    world = served.world
    program, log = world.folder / "bin/ssh", world.folder / "ssh.log"
    program.parent.mkdir()
    program.write_text(SSH.format(log=log, python=sys.executable))
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:{world.environment()['PATH']}", "RECONCILE_HOST": "ssh://ann@db1:2222"}
    assert "blog" in world.run("get", env=env, check=0).out
    assert log.read_text() == f"-T -l ann -p 2222 -- db1 reconcile --root {world.root} dial\n"
    far = world.run("apply", "-", "--yes", env=env, stdin=MANIFEST.format(name="far", port=8083, more=""), check=0)
    assert "done: 3 actions" in far.out
    assert world.run("exec", "-i", "far/web", "cat", env=env, stdin="far away", check=0).out == "far away"
    assert "no container named nothere" in world.run("get", "nothere", env=env, check=1).err
    world.run("delete", "far", "--yes", env=env, check=0)
    assert "3 actions: 3 create" in world.run("plan", "shop.yaml", env=env, check=2).out
    assert "does not go through --host" in world.run("recover", env=env, check=64).err
    for name in ("ssh://-oProxyCommand=x", "ssh://a b", "tcp://db1", "ssh://db1/x", "ssh://$(id)"):
        assert "expected ssh://USER@HOST" in world.run("get", env={**env, "RECONCILE_HOST": name}, check=64).err
    program.write_text("#!/bin/sh\necho no route to host >&2; exit 255\n")
    gone = world.run("get", env=env, check=1)
    assert "no route to host" in gone.err
    assert "ssh://ann@db1:2222: no answer" in gone.err
