"""`reconcile serve --git` as a process, on the real kernel: a branch of three stacks, and all that may become of it."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.gitlab import Pushed
from lab.serving import Serving
from lab.world import World, wait_until

pytestmark = pytest.mark.root

MANIFEST = """\
apiVersion: reconcile/v1
name: {name}
networks: {{front: {{}}}}
containers:
  web: {{image: "127.0.0.1:5000/web:{tag}", networks: [front], ports: ["127.0.0.1:{port}:8080"]{more}}}
"""
SECRET = "what-the-git-host-knows"
PORTS = {"blog": 8081, "shop": 8082, "wiki": 8083}


def manifest(name: str, more: str = "", tag: str = "1") -> str:
    return MANIFEST.format(name=name, port=PORTS[name], more=more, tag=tag)


class Served(Serving):
    """A world in which a controller serves a branch."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.pushed = Pushed(world.folder)

    def start(self) -> None:
        """Serve the branch, which nobody asks for but who is told of a push."""
        secret = self.world.folder / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        settings = {
            "apiVersion": "reconcile/v1",
            "sources": [{"git": self.pushed.url, "branch": "main", "interval": "1h"}],
            "webhook": {"listen": "127.0.0.1:9324", "secret_file": str(secret)},
        }
        self.launch("--config", str(self.world.write(settings, "serve.yaml")))

    def tell(self) -> None:
        """What a git host does after a push."""
        request = urllib.request.Request("http://127.0.0.1:9324/hooks/push", b"{}", headers={"X-Gitlab-Token": SECRET})
        with self.world.network(), urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 202

    def push(self, subject: str, **stacks: str | None) -> str:
        return self.pushed.commit(subject, {f"{name}.yaml": text for name, text in stacks.items()})

    def state(self) -> dict:
        """What the controller says of itself, as `status` reads it."""
        try:
            return json.loads((self.world.root / "controller.json").read_text())
        except FileNotFoundError:
            return {"sources": [], "stacks": []}

    def stale(self) -> str:
        return self.state()["sources"][0]["stale"]

    def is_up(self, name: str) -> bool:
        return self.serves(PORTS[name])

    def is_at(self, commit: str) -> bool:
        stacks = self.state()["stacks"]
        return bool(stacks) and all(one["synced"] and (one["running"] or {}).get("id") == commit for one in stacks)

    def pids(self) -> dict[str, int]:
        return {name: self.world.pid(f"{name}/web") for name in PORTS}


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    made = Served(world)
    yield made
    made.end()


def test_h3_x5_x8_branch_is_followed_and_what_goes_wrong_with_it_disturbs_nothing(served: Served) -> None:
    first = served.push("three stacks", **{name: manifest(name) for name in PORTS})
    served.start()
    served.wait(lambda: served.is_at(first), "all are as of the first commit")
    assert all(map(served.is_up, PORTS))
    pids = served.pids()

    # A good commit: only what it changes is replaced.
    second = served.push("blog answers louder", blog=manifest("blog", ', env: {LOUD: "1"}'))
    served.tell()
    served.wait(lambda: served.is_at(second), "all are as of the second")
    now = served.pids()
    assert [name for name in PORTS if now[name] != pids[name]] == ["blog"]
    told = served.world.run("history", "blog").out
    assert f"blog.yaml at {second[:12]} blog answers louder" in told
    changes = served.world.run("events", "--changes", "--stack", "blog", "-o", "json").out
    assert second in changes

    # One that does not run goes back, and is told; its revert is taken.
    bad = served.push("broken", blog=manifest("blog", ', command: [sh, -c, "echo no such table; exit 3"]'))
    served.tell()
    served.wait(lambda: any(one["problem"] for one in served.state()["stacks"]), "it went back")
    assert served.is_up("blog")
    told = served.world.run("status", check=2).out
    assert f"wanted {bad[:12]} “broken”" in told
    assert f"as of {second[:12]} “blog answers louder”" in told
    assert "no such table" in told
    served.pushed.git("revert", "--no-edit", bad)
    served.pushed.push()
    served.tell()
    third = served.pushed.head
    served.wait(lambda: served.is_at(third), "the revert is taken")
    served.world.run("status", check=0)

    # Pushed back, deleted, gone, killed, started anew: what was taken stays.
    pids = served.pids()
    served.pushed.git("push", "-q", "--force", "origin", f"{first}:refs/heads/main")
    served.tell()
    served.wait(lambda: "was pushed back" in served.stale() or "taken before" in served.stale(), "it is told")
    served.pushed.git("config", "receive.denyDeleteCurrent", "ignore", cwd=served.pushed.bare)
    served.pushed.git("push", "-q", "origin", ":main")
    served.tell()
    served.wait(lambda: "no branch main any more" in served.stale(), "that is told too")
    served.pushed.bare.rename(served.world.folder / "aside")
    served.tell()
    served.wait(lambda: "does not appear to be a git repository" in served.stale(), "and that it does not answer")
    served.stop(signal.SIGKILL)
    served.world.kill(pids["wiki"])
    served.start()
    served.wait(lambda: served.is_at(third), "another controller finds what was taken")
    assert "it answered last" not in served.world.run("status", check=2).out, "it never answered this one"
    assert {name: pid for name, pid in served.pids().items() if name != "wiki"} == {
        name: pid for name, pid in pids.items() if name != "wiki"
    }
    (served.world.folder / "aside").rename(served.pushed.bare)
    served.pushed.push()
    served.tell()
    served.wait(lambda: not served.stale(), "the branch is back")
    served.world.run("status", check=0)


def test_once_looks_once_and_says_by_its_exit_code_how_it_went(served: Served) -> None:
    once = ("serve", "--git", served.pushed.url, "--once")
    assert "has no default branch" in served.world.run(*once, check=1).err
    served.push("good", blog=manifest("blog"))
    served.world.run(*once, check=0)
    assert served.is_up("blog")
    served.push("typo", blog=manifest("blog", ', memry: "1G"'))
    assert "memry: unknown key" in served.world.run(*once, check=65).err
    served.push("broken", blog=manifest("blog", ", command: [sh, -c, exit 3]"))
    assert "waits for another version" in served.world.run(*once, check=4).err
    assert served.is_up("blog")
    served.push("no such image", blog=manifest("blog", tag="nowhere"))
    served.world.run(*once, check=1)
    assert served.is_up("blog")


def test_g2_stack_of_a_repository_borrows_nothing_and_takes_over_nothing_of_others(served: Served) -> None:
    world = served.world
    text = manifest("shop").replace("networks: {front: {}}", "networks: {front: {}}\nvolumes: {data: {}}\norigin: by-hand")
    world.run("apply", str(world.write(text)), check=0)
    borrowed = manifest("blog", ', mounts: ["theirs:/x:ro"]') + "volumes: {theirs: {from: shop/data}}\n"
    served.push("greedy", blog=borrowed, shop=text.replace(":8082:", ":8084:"))
    err = world.run("serve", "--git", served.pushed.url, "--once", check=3).err
    assert "volume/shop/data is of a stack that is not of the same source (name:by-hand)" in err
    assert "stack shop belongs to name:by-hand" in err
    assert served.is_up("shop")
    assert not served.is_up("blog")


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="skipped because openssh-server is not installed")
def test_repository_over_ssh_by_a_key_and_only_from_a_host_that_is_known(served: Served) -> None:
    world, folder = served.world, served.world.folder
    for name in ("host", "other", "my key 100%"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "my key 100%.pub", folder / "authorized")
    (folder / "authorized").chmod(0o600)
    config = [
        f"HostKey={folder}/host",
        f"AuthorizedKeysFile={folder}/authorized",
        "StrictModes=no",
        "UsePAM=no",
        "Port=2222",
    ]
    world.nsenter("mkdir", "-p", "/run/sshd")
    words = [word for line in config for word in ("-o", line)]
    sshd = world.spawn(["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-E", str(folder / "sshd.log"), *words])
    try:
        served.push("by ssh", blog=manifest("blog"))
        known, url = folder / "known hosts", f"ssh://root@127.0.0.1:2222{served.pushed.bare}"
        flags = ("--git", url, "--ssh-key", str(folder / "my key 100%"), "--known-hosts", str(known), "--once")
        known.write_text(f"[127.0.0.1]:2222 {(folder / 'other.pub').read_text()}")
        wait_until((folder / "sshd.log").exists, "sshd listens")
        told = world.run("serve", *flags, check=1).err
        assert "Host key verification failed" in told
        assert f"put it into {known}" in told
        known.write_text(f"[127.0.0.1]:2222 {(folder / 'host.pub').read_text()}")
        world.run("serve", *flags, check=0)
        assert served.is_up("blog")
        [revision] = json.loads(world.run("history", "blog", "-o", "json").out)
        assert revision["commit"]["url"] == url
        told = world.run("serve", *(str(folder / "other") if "100%" in flag else flag for flag in flags), check=1).err
        assert "Permission denied (publickey" in told
        assert "hint: give --ssh-key FILE" in told
    finally:
        world.signal(sshd)
        sshd.communicate(timeout=20)


def test_x5_repositories_that_hang_keep_no_stack_waiting_and_nobody_who_stops_it(served: Served) -> None:
    world = served.world
    with world.network():
        hangs = socket.create_server(("127.0.0.1", 9999))  # Nobody ever accepts: the kernel alone says hello.
    with hangs:
        (world.folder / "stacks").mkdir()
        sources = [{"git": f"http://127.0.0.1:9999/r{number}"} for number in range(5)]
        settings = {"apiVersion": "reconcile/v1", "sources": [*sources, {"watch": str(world.folder / "stacks")}]}
        served.running = world.popen("serve", "--config", str(world.write(settings, "serve.yaml")))
        served.wait(lambda: any("ls-remote" in line for line in world.processes().values()), "they are asked")
        world.write(manifest("blog"), "stacks/blog.yaml")
        wait_until(lambda: served.is_up("blog"), "the folder's stack is up", served.said, seconds=30)
        begun = time.monotonic()
        served.stop()
        assert time.monotonic() - begun < 20
    left = [line for line in world.processes().values() if "127.0.0.1:9999" in line]
    assert left == []
