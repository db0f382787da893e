"""Configs, secrets, env files and bound files on the real kernel: seen, rotated, rolled back, and in clear nowhere else."""

import re
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lab.world import REPOSITORY, World, wait_until

pytestmark = pytest.mark.root

BOX = "127.0.0.1:5000/busybox:1"
LISTEN = ["sh", "-c", "trap 'echo got it' HUP; echo listening; while :; do sleep 0.05; done"]


def web(**properties: Any) -> dict[str, Any]:
    return {"image": BOX, "command": ["pause"], "stop_grace": "1s", **properties}


def stack(containers: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {"apiVersion": "reconcile/v1", "name": "one", **sections, "containers": containers}


def inside(world: World, script: str, name: str = "web") -> str:
    return world.run("exec", name, "sh", "-c", script, check=0).out


@pytest.fixture
def site(world: World) -> World:
    """`web` with a config from a file and one inline, a secret from a file and one from a variable, and a bound file."""
    world.env["PASSWORD"] = "planted-variable"
    world.write("listen 80\n", "app.conf")
    world.write("planted-token", "token")
    world.write("welcome\n", "motd")
    world.write(
        stack(
            {
                "web": web(
                    command=LISTEN,
                    configs=["app", {"source": "inline", "target": "/etc/inline.conf", "mode": "0440", "gid": 82}],
                    secrets=["token", {"source": "password", "uid": 82, "on_change": "nothing", "signal": "HUP"}],
                    mounts=["./motd:/etc/motd:ro"],
                )
            },
            configs={"app": {"file": "./app.conf"}, "inline": {"content": "level = info\n"}},
            secrets={"token": {"file": "./token"}, "password": {"env": "PASSWORD"}},
        )
    )
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def test_files_are_where_they_should_be_and_nobody_can_write_them(site: World):
    assert inside(site, "cat /app /etc/inline.conf /etc/motd") == "listen 80\nlevel = info\nwelcome\n"
    assert inside(site, "cat /run/secrets/token /run/secrets/password") == "planted-tokenplanted-variable"
    listed = inside(site, "stat -c '%n %u %g %a' /app /etc/inline.conf /run/secrets/*")
    assert listed.splitlines() == [
        "/app 0 0 444",
        "/etc/inline.conf 0 82 440",
        "/run/secrets/password 82 0 400",
        "/run/secrets/token 0 0 400",
    ]
    assert "Read-only file system" in inside(site, "echo x >/app 2>&1 || true; chmod 666 /run/secrets/token 2>&1 || true")
    assert site.plan("stack.yaml")["actions"] == []
    kinds = {item["kind"] for item in site.records().values()}
    assert {"config", "secret"} <= kinds


def test_file_that_changes_on_the_host_changes_nothing_until_it_is_applied(site: World):
    site.write("another\n", "motd")
    site.write("listen 81\n", "app.conf")
    assert inside(site, "cat /app /etc/motd") == "listen 80\nwelcome\n"
    [config, container] = site.plan("stack.yaml")["actions"]
    assert (config["verb"], config["key"]) == ("update", "config/one/app")
    assert (container["verb"], container["reason"]) == ("replace", "field-changed")
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(site, "cat /app /etc/motd") == "listen 81\nanother\n"


def test_rotated_secret_is_there_at_once_with_the_same_pid_and_a_signal(site: World):
    pid = site.pid("one/web")
    wait_until(lambda: "listening" in site.run("logs", "web").out, "it listens")
    site.env["PASSWORD"] = "planted-rotated"
    plan = site.run("plan", "stack.yaml", check=2).out
    assert "/secrets/~1run~1secrets~1password/digest  (sensitive) → (sensitive, changed)  (in-place)" in plan
    assert "is sent SIGHUP" in plan
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(site, "cat /run/secrets/password") == "planted-rotated"
    assert site.pid("one/web") == pid
    wait_until(lambda: site.run("logs", "web").out.count("got it") == 1, "it was sent one signal")
    assert site.plan("stack.yaml")["actions"] == []


def test_replacement_that_does_not_like_its_config_leaves_the_old_one_with_the_old_file(world: World):
    box = web(command=["sh", "-c", "grep -q good /app && exec sleep 1000; exit 3"], configs=["app"])
    world.write(stack({"web": box}, configs={"app": {"file": "./app.conf"}}))
    world.write("good\n", "app.conf")
    world.run("apply", "stack.yaml", "--yes", check=0)
    pid = world.pid("one/web")
    world.write("bad\n", "app.conf")
    failed = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "the old one runs again" in failed.out + failed.err
    assert inside(world, "cat /app") == "good\n"
    assert world.pid("one/web") != pid
    # Killed, it comes back by its exit command with the file that it had.
    world.kill(world.pid("one/web"))
    wait_until(lambda: world.record("one/web")["status"]["restarts"] == 1, "it runs again", seconds=20)
    assert inside(world, "cat /app") == "good\n"
    world.write("good again\n", "app.conf")
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(world, "cat /app") == "good again\n"


def test_stop_start_and_reboot_need_no_file_any_more(site: World):
    for name in ("app.conf", "token", "motd", "stack.yaml"):
        (site.folder / name).unlink()
    site.env.pop("PASSWORD")
    site.run("stop", "web", check=0)
    site.run("start", "web", check=0)
    read = "cat /app /etc/inline.conf /etc/motd /run/secrets/token /run/secrets/password"
    before = inside(site, read)
    site.reboot()
    site.run("boot", check=0)
    assert inside(site, read) == before
    assert "planted-token" in before


def test_lost_database_comes_back_with_what_the_containers_see(site: World):
    (site.root / "reconcile.db").unlink()
    site.run("recover", check=0)
    assert site.plan("stack.yaml", "--take-over")["actions"] == []
    read = "cat /app /run/secrets/token"
    before = inside(site, read)
    site.reboot()
    site.run("boot", check=0)
    assert inside(site, read) == before


def test_example_runs_and_shows_a_new_page_by_the_same_process(world: World):
    shutil.copytree(REPOSITORY / "examples/contents", world.folder, dirs_exist_ok=True)
    world.edit(world.folder / "stack.yaml", "/demo/busybox:1", "/busybox:1")
    world.run("apply", "stack.yaml", "--yes", check=0)
    address = "http://127.0.0.1:8094/"
    wait_until(lambda: "It works" in world.fetch(address), "the page is shown")
    pid = world.pid("contents/web")
    (world.folder / "page.html").write_text("<h1>Another</h1>")
    world.run("apply", "stack.yaml", "--yes", check=0)
    wait_until(lambda: "Another" in world.fetch(address), "the new page is shown")
    assert world.pid("contents/web") == pid


def test_altered_and_removed_copies_are_drift_that_an_apply_mends(site: World):
    pid = site.pid("one/web")
    [folder] = Path(f"/proc/{site.holder}/root/run/reconcile").glob("*/bundles/*/contents")
    [app] = [path for path in folder.iterdir() if path.read_bytes() == b"listen 80\n"]
    app.write_bytes(b"listen 666\n")
    assert inside(site, "cat /app") == "listen 666\n"
    told = site.run("drift", check=2).out
    assert "container/one/web/1  contents: /app as written → /app changed by others  (apply: update)" in told
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(site, "cat /app") == "listen 80\n"
    assert site.pid("one/web") == pid
    app.unlink()
    assert "contents: present → missing  (apply: restart)" in site.run("drift", check=2).out
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert site.run("drift", check=0).out == "no drift\n"
    assert inside(site, "cat /app") == "listen 80\n"


def test_what_a_container_sees_no_more_is_gone_from_its_bundle(site: World):
    site.write(stack({"web": web(command=LISTEN, configs=["app"])}, configs={"app": {"file": "./app.conf"}}))
    site.run("apply", "stack.yaml", "--yes", check=0)
    run = Path(f"/proc/{site.holder}/root/run/reconcile")
    assert [path.read_bytes() for path in run.glob("*/bundles/*/contents/*")] == [b"listen 80\n"]
    assert not {item["kind"] for item in site.records().values()} & {"secret"}


def test_missing_and_unfit_files_are_bad_manifests_with_their_place(site: World):
    (site.folder / "token").unlink()
    said = site.run("apply", "stack.yaml", "--yes", check=65).err
    assert re.search(r"stack\.yaml:\d+:\d+ secrets\.token\.file: no such file: \S+/token", said), said
    assert site.record("one/web")["status"]["phase"] == "running"


def test_file_over_a_folder_of_the_image_is_refused_before_the_old_one_stops(site: World):
    pid = site.pid("one/web")
    site.write(stack({"web": web(configs=["etc"])}, configs={"etc": {"content": "x"}}))
    failed = site.run("apply", "stack.yaml", "--yes", check=1)
    assert "etc can't be mounted at /etc: the image has a folder there" in failed.out + failed.err
    assert site.pid("one/web") == pid


def test_file_may_lie_on_a_tmpfs_a_volume_and_a_read_only_root(world: World):
    config = {"source": "run", "target": "/deep/er/run.sh", "mode": "0555"}
    box = web(
        read_only=True,
        configs=[config, {"source": "run", "target": "/data/run.sh"}],
        secrets=["token"],
        mounts=["data:/data", {"type": "tmpfs", "target": "/run"}],
    )
    sections = {
        "configs": {"run": {"content": "#!/bin/sh\necho it ran\n"}},
        "secrets": {"token": {"env": "TOKEN"}},
        "volumes": {"data": {}},
    }
    world.env["TOKEN"] = "planted-token"
    world.write(stack({"web": box}, **sections))
    world.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(world, "/deep/er/run.sh; sh /data/run.sh; cat /run/secrets/token") == "it ran\nit ran\nplanted-token"


def test_large_file_stays_a_bind_mount_and_the_plan_says_so(world: World):
    world.write(stack({"web": web(mounts=["./big:/big:ro"])}))
    world.write(b"x" * (1 << 20 | 1), "big")
    said = world.run("apply", "stack.yaml", "--yes", check=0).out
    assert "/big is not kept with the revision" in said
    (world.folder / "big").write_bytes(b"y")
    assert inside(world, "cat /big") == "y"


def test_contents_that_no_revision_names_any_more_are_gone(site: World):
    def count() -> int:
        with closing(sqlite3.connect(site.root / "reconcile.db")) as sql:
            return int(sql.execute("SELECT count(*) FROM contents").fetchone()[0])

    assert count() == 5
    site.write("listen 81\n", "app.conf")
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert count() == 6, "the one of the first revision is kept"
    site.run("delete", "one", "--yes", check=0)
    assert count() == 0


# ---------------------------------------------------------------- sealed


PLANTED = ("planted-file", "planted-secret", "planted-envfile", "planted-inline", "planted-variable")


@pytest.fixture
def sealed(world: World) -> World:
    """A stack with a value planted in each of the ways that there are, written but not applied."""
    world.env |= {"SECRET": "planted-secret", "VALUE": "planted-variable", "INLINE": "planted-inline"}
    world.write("planted-file", "token")
    world.write("FROM_FILE=planted-envfile\n", "web.env")
    own = {"env": {"INTERPOLATED": "${VALUE}"}, "env_file": "./web.env"}
    box = web(**own, configs=["inline"], secrets=["file", "env"])
    world.write(
        stack(
            {"web": box},
            configs={"inline": {"content": "password = ${INLINE}\n"}},
            secrets={"file": {"file": "./token"}, "env": {"env": "SECRET"}},
        )
    )
    return world


def own_processes(world: World) -> dict[str, bytes]:
    """Command lines and environments of all that is ours in this world: conmon, aardvark; what runs in containers has its
    own mounts."""
    found = {}
    for pid, command in world.processes().items():
        place = world.proc / str(pid)
        if (place / "ns/mnt").readlink() != (world.proc / "1/ns/mnt").readlink():
            continue
        found[command] = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
    return found


def look_for_planted(world: World, *more: Path) -> list[str]:
    """Where a planted value stands in clear though it must not."""
    files = [path for path in (*world.root.rglob("*"), *more) if path.is_file()]
    said = {str(result.command): result.out + result.err for result in world.transcript}
    return [
        *(f"{path}: {value}" for path in files for value in PLANTED if value.encode() in path.read_bytes()),
        *(f"said by {command}: {value}" for command, text in said.items() for value in PLANTED if value in text),
        *(
            f"process {command}: {value}"
            for command, data in own_processes(world).items()
            for value in PLANTED
            if value.encode() in data
        ),
    ]


def test_planted_values_are_in_clear_in_the_bundle_only(sealed: World):
    plan = sealed.folder / "saved.plan"
    sealed.run("plan", "stack.yaml", check=2)
    sealed.run("plan", "stack.yaml", "-o", "json", check=2)
    sealed.run("apply", "stack.yaml", "--yes", check=0)
    path = sealed.folder / "stack.yaml"
    path.write_text(path.read_text().replace('"pause"', '"/no/such/program"'))
    sealed.run("plan", "stack.yaml", "--out", str(plan), check=2)
    sealed.run("apply", str(plan), "--yes", check=1)
    sealed.run("apply", "stack.yaml", "--yes", "-o", "json", check=1)
    for command in (
        ("get", "-o", "json"),
        ("get", "-o", "yaml"),
        ("describe", "container/web", "-o", "json"),
        ("describe", "secret/file"),
        ("drift",),
        ("drift", "-o", "json"),
        ("history", "one"),
        ("events",),
        ("events", "-o", "json"),
        ("logs", "web"),
        ("plan", "stack.yaml", "--why", "container/one/web"),
    ):
        sealed.run(*command)
    assert look_for_planted(sealed, plan) == []
    # What was looked for is there where it belongs: the search above could have found it.
    assert "planted-file" in inside(sealed, "cat /run/secrets/file")
    assert any("planted" in found for found in look_for_planted(sealed, plan))
    run = Path(f"/proc/{sealed.holder}/root/run/reconcile")
    assert any(b"planted-secret" in path.read_bytes() for path in run.glob("*/bundles/*/contents/*"))
    for place in (run.parent, run):
        assert place.stat().st_mode & 0o022 == 0
    for root in run.iterdir():
        assert root.stat().st_mode & 0o777 == 0o700


CRASH = "import ctypes, os; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True); os.abort()"  # PR_GET_DUMPABLE
OPENED = f"""
import sys
from pathlib import Path
from reconciler.verbs.root import opened_root
with opened_root(Path(sys.argv[1]), create=True):
    {CRASH}
"""


@pytest.mark.parametrize(("program", "dumpable"), [(CRASH, True), (OPENED, False)], ids=["another", "ours"])
def test_process_that_has_opened_a_root_leaves_no_core(world: World, program: str, dumpable: bool):
    """It holds what is sealed in there; another program that crashes in the same place does leave one."""
    script = 'ulimit -c unlimited; exec "$0" -c "$@"'
    result = world.nsenter("sh", "-c", script, sys.executable, program, str(world.root), check=False)
    assert (result.code, result.out) == (-signal.SIGABRT, f"{int(dumpable)}\n"), result
    cores_lie_beside = "/" not in Path("/proc/sys/kernel/core_pattern").read_text().replace("|", "/")
    assert bool(list(world.folder.glob("core*"))) == (dumpable and cores_lie_beside)


def test_rollback_over_a_rotated_secret_brings_all_files_of_the_revision_back(site: World):
    read = "cat /app /etc/inline.conf /etc/motd /run/secrets/token /run/secrets/password"
    before = inside(site, read)
    for name in ("app.conf", "token", "motd"):
        site.write("another", name)
    site.env["PASSWORD"] = "planted-rotated"
    site.run("apply", "stack.yaml", "--yes", check=0)
    assert inside(site, read) == "anotherlevel = info\nanotheranotherplanted-rotated"
    for name in ("app.conf", "token", "motd", "stack.yaml"):
        (site.folder / name).unlink()
    site.env.pop("PASSWORD")
    said = site.run("rollback", "one", "--yes", check=0)
    assert inside(site, read) == before
    assert "planted" not in said.out + said.err
