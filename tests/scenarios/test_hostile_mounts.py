"""Mounts whose targets an image or a neighbour bends: nothing is mounted, made or read outside, masks hold. B5, D2, D3."""

from pathlib import Path
from typing import Any

import pytest

from lab import images as lab
from lab.world import World, wait_until
from scenarios.hostile import BUSYBOX, apply, interpreter, probe

pytestmark = pytest.mark.root


def host_mounts(world: World) -> set[str]:
    """Where something is mounted on the world's host, but for the run directory."""
    lines = Path(f"/proc/{world.holder}/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines if not line.split()[4].startswith("/run/reconcile")}


def bent_image(world: World, **links: str) -> dict[str, Any]:
    """The lab's busybox with links in the place of what is mounted over, as an archive beside the manifest."""
    base = lab.lab_images()["busybox:1"]
    entries = [lab.Entry(name, link=target) for name, target in links.items()]
    image = lab.Image((*base.layers, lab.layer(*entries)), {"Cmd": ["pause"]})
    lab.save_docker(world.folder / "bent.tar", "bent:1", image)
    return {"bent": {"archive": "./bent.tar"}}


@pytest.fixture
def outside(world: World) -> Path:
    """A folder of the host with a file in it that must stay what it is, and alone."""
    folder = world.folder / "outside"
    folder.mkdir()
    (folder / "canary").write_text("the host's own")
    return folder


def assert_untouched(outside: Path) -> None:
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "the host's own"


MASKED = ("keys", "timer_list", "firmware", "core_pattern", "sysrq-trigger", "sys/power", "kcore", "overcommit")


def test_b5_links_of_an_image_where_we_mount_end_inside_it(world: World, outside: Path):
    binds, _ = interpreter()
    up = "../" * 20 + str(outside).lstrip("/")
    links = {"etc/hosts": f"{outside}/canary", "etc/resolv.conf": f"/{up}/canary", "etc/hostname": "../canary"}
    links |= {
        "vol": str(outside),
        "mem": up,
        "conf": f"{outside}/conf",
        "run/secrets": str(outside),
        "dev/null": "/proc/kcore",
    }
    links |= {"made": "/proc/self/cwd", "dev/shm": str(outside), "dev/console": f"{outside}/canary"}
    images = bent_image(world, **links)
    before = host_mounts(world)
    mounts = [*binds, "data:/vol/sub", {"type": "tmpfs", "target": "/mem/sub"}, "other:/made/sub"]
    it = {"image": "bent", "stop_grace": "0s", "mounts": mounts, "configs": [{"source": "conf", "target": "/conf"}]}
    sections = {"images": images, "volumes": {"data": {}, "other": {}}, "configs": {"conf": {"content": "a config"}}}
    world.write({"apiVersion": "reconcile/v1", "name": "one", **sections, "containers": {"it": it}})
    tried = world.run("apply", "stack.yaml", "--yes")
    assert tried.code in (0, 1), str(tried)
    assert_untouched(outside)
    assert host_mounts(world) == before
    # Without the target that only /proc could resolve, which the runtime may refuse, it must run, and masked.
    mounts.pop()
    world.write({"apiVersion": "reconcile/v1", "name": "one", **sections, "containers": {"it": it}})
    world.run("apply", "stack.yaml", "--yes", check=0)
    answers = probe(world, "it", *MASKED)["answers"]
    assert set(answers) == set(MASKED)
    assert not [name for name, answer in answers.items() if answer.startswith("done")]
    assert world.run("exec", "it", "cat", "/conf", check=0).out == "a config"
    seen = world.run("exec", "it", "stat", "-c", "%t:%T", "/dev/null", check=0).out
    assert seen == "1:3\n", "/dev/null is not the kernel's"
    assert_untouched(outside)
    assert host_mounts(world) == before


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_b5_image_whose_proc_sys_or_dev_is_a_link_is_refused(world: World, outside: Path, name: str):
    base = lab.lab_images()["busybox:1"]
    gone = lab.Entry(f".wh.{name}")
    image = lab.Image((*base.layers, lab.layer(gone), lab.layer(lab.Entry(name, link=str(outside)))), {"Cmd": ["pause"]})
    lab.save_docker(world.folder / "bent.tar", "bent:1", image)
    before = host_mounts(world)
    it = {"image": "bent", "restart": "no"}
    images = {"bent": {"archive": "./bent.tar"}}
    world.write({"apiVersion": "reconcile/v1", "name": "one", "images": images, "containers": {"it": it}})
    tried = world.run("apply", "stack.yaml", "--yes", check=1)
    assert f"container/one/it/1: /{name} of the image is no folder" in tried.err + tried.out
    assert_untouched(outside)
    assert host_mounts(world) == before


def test_d3_setuid_programs_and_devices_on_a_named_volume_are_neither(world: World):
    binds, python = interpreter()
    it = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": [*binds, "data:/data"]}
    apply(world, {"it": it}, volumes={"data": {}})
    script = f"for f in /data/py /tmp/py; do cp {python[0]} $f; chmod 4755 $f; done; mknod -m 666 /data/null c 1 3"
    world.run("exec", "it", "sh", "-c", script, check=0)

    def user(program: str) -> str:
        words = [
            "--user",
            "www",
            "--env",
            "PYTHONHOME=/python",
            "it",
            program,
            "-S",
            "-c",
            "import os; print(os.geteuid())",
        ]
        return world.run("exec", *words, check=0).out.strip()

    # Compat: in the image's own file system setuid works, as in Docker (no-new-privileges is off): su and sudo live by it.
    assert (user("/tmp/py"), user("/data/py")) == ("0", "82")
    assert world.run("exec", "it", "sh", "-c", "echo >/data/null", check=1).err.count("Permission denied") == 1
    assert world.run("exec", "it", "sh", "-c", "echo >/dev/null", check=0).out == ""


def test_b8_who_is_not_root_finds_no_program_that_only_root_may_reach(world: World):
    apply(world, {"it": {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s"}})
    world.run("exec", "it", "cp", "/bin/busybox", "/root/true", check=0)
    world.run("exec", "it", "/root/true", check=0)
    assert "permission denied" in world.run("exec", "--user", "www", "it", "/root/true", check=126).err


def test_b5_d2_mount_point_that_a_neighbour_swaps_for_a_link_is_never_followed_out(world: World, outside: Path):
    before = host_mounts(world)
    binds, python = interpreter()
    box: dict[str, Any] = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "restart": "no"}
    targets = ["shared:/data", "other:/data/x/new/deep", {"type": "tmpfs", "target": "/data/x/sub"}]
    containers = {"flipper": {**box, "mounts": [*binds, "shared:/data"]}, "victim": {**box, "mounts": targets}}
    apply(world, containers, volumes={"shared": {"access": "shared"}, "other": {}})
    world.run("stop", "victim", check=0)
    link = f"ln -s {'../' * 20}{str(outside).lstrip('/')} /data/y"
    world.run("exec", "flipper", "sh", "-c", link, check=0)
    names = ["/data/x", "/data/y", "new/deep", "new", "sub"]
    flipping = world.popen("exec", "flipper", *python, "/lab/escapes.py", "flip", *names)
    for _ in range(12):
        world.run("start", "victim")
        assert host_mounts(world) == before
        assert_untouched(outside)
        world.run("kill", "victim")
    world.run("exec", "flipper", "touch", "/tmp/stop", check=0)
    assert int(flipping.communicate(timeout=60)[0]) > 1000


def test_b5_mounts_in_a_mount_are_what_they_were_meant_to_be_and_fresh_at_each_start(world: World):
    it: dict[str, Any] = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s"}
    it["mounts"] = ["data:/data", "other:/data/in/deep", {"type": "tmpfs", "target": "/data/mem", "size": "1M"}]
    it["mounts"] += [{"source": "third", "target": "/data/mem/third", "read_only": True}]
    it["configs"] = [{"source": "conf", "target": "/data/conf/app.conf"}]
    sections = {"volumes": {"data": {}, "other": {}, "third": {}}, "configs": {"conf": {"content": "a config"}}}
    apply(world, {"it": it}, **sections)

    def sh(script: str, code: int = 0) -> str:
        return world.run("exec", "it", "sh", "-c", script, check=code).out

    sh("echo data >/data/file; echo other >/data/in/deep/file; echo mem >/data/mem/file; chmod 700 /data")
    options = {line.split()[4]: line.split()[5] for line in sh("cat /proc/self/mountinfo").splitlines()}
    assert options["/data"].startswith("rw,nosuid,nodev")
    assert options["/data/in/deep"].startswith("rw,nosuid,nodev")
    assert options["/data/mem"].startswith("rw,nosuid,nodev,noexec")
    assert options["/data/mem/third"].startswith("ro,nosuid,nodev")
    assert options["/data/conf/app.conf"].startswith("ro,nosuid,nodev")
    world.run("restart", "it", check=0)
    assert sh("cat /data/file /data/in/deep/file /data/conf/app.conf; ls /data/mem") == "data\nother\na configthird\n"
    volumes = {path.name for path in (world.root / "volumes").glob("*/data/*")}
    assert volumes == {"file", "in", "mem", "conf"}
    world.kill(world.pid("one/it"))
    wait_until(lambda: world.record("one/it")["status"]["restarts"] == 1, "the exit command has restarted it")
    assert sh("cat /data/in/deep/file; ls /data/mem") == "other\nthird\n"
    assert world.plan("stack.yaml")["actions"] == []


def test_b5_container_whose_own_links_lead_a_mount_into_a_shared_volume_does_not_start_again(world: World):
    it = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": ["data:/data", "other:/made/v"]}
    apply(world, {"it": it}, volumes={"data": {}, "other": {}})
    world.run("exec", "it", "sh", "-c", "mkdir /data/x && mv /made /old && ln -s /data/x /made", check=0)
    world.kill(world.pid("one/it"))
    bundles = Path(f"/proc/{world.holder}/root/run/reconcile/{world.root_ids()[0]}/bundles")
    wait_until(lambda: list(bundles.glob("*/error")), "the exit command has said why not")
    words = next(bundles.glob("*/error")).read_text()
    assert "links of its own lead /made/v into what is mounted at /data" in words
    assert list(next((world.root / "volumes").glob("*/data/x")).iterdir()) == []
    # By hand it is prepared anew: what its links make of the target is a folder of its own volume, found there by us.
    world.run("start", "it", check=0)
    assert world.run("exec", "it", "ls", "/data/x", check=0).out == "v\n"


def test_b5_folder_that_is_missing_in_a_read_only_bind_is_said_and_not_made_on_the_host(world: World, outside: Path):
    it: dict[str, Any] = {"image": BUSYBOX, "command": ["pause"]}
    it["mounts"] = [{"type": "bind", "source": str(outside), "target": "/host", "read_only": True}, "data:/host/new"]
    world.write({"apiVersion": "reconcile/v1", "name": "one", "volumes": {"data": {}}, "containers": {"it": it}})
    tried = world.run("apply", "stack.yaml", "--yes", check=1)
    assert "mount at /host/new: there is no such file or folder in the read-only mount" in tried.out + tried.err
    assert_untouched(outside)


def test_d1_path_that_flickers_between_a_folder_and_a_link_out_is_copied_inside_or_refused(world: World, outside: Path):
    binds, python = interpreter()
    # Paths that would be the test's own on the host too, for the day on which they are not resolved inside.
    first, second = f"{world.folder}/top", f"{world.folder}/volume"
    it = {"image": BUSYBOX, "command": ["pause"], "stop_grace": "0s", "mounts": [*binds, f"data:{second}"]}
    apply(world, {"it": it}, volumes={"data": {}})
    (world.folder / "tree/x").mkdir(parents=True)
    for evil in ("evil", "tree/x/canary", "tree/x/new"):
        (world.folder / evil).write_text("evil")
    for top, link in {first: str(outside), second: "../" * 20 + str(outside).lstrip("/")}.items():
        script = f"mkdir -p {top}/x; echo inside >{top}/x/canary; ln -s {link} {top}/y; rm -f /tmp/stop"
        world.run("exec", "it", "sh", "-c", script, check=0)
        flipping = world.popen("exec", "it", *python, "/lab/escapes.py", "flip", f"{top}/x", f"{top}/y")
        got = world.folder / f"got-{Path(top).name}"
        got.mkdir()
        codes = []
        for turn in range(2):
            codes.append(world.run("cp", "-L", f"it:{top}/x/canary", str(got / f"file{turn}")).code)
            codes.append(world.run("cp", "-L", f"it:{top}/x", str(got / f"folder{turn}")).code)
            codes.append(world.run("cp", f"it:{top}/.", str(got / f"all{turn}")).code)
            for source, target in (("evil", "x/canary"), ("evil", "x/new"), ("tree/.", "")):
                codes.append(world.run("cp", source, f"it:{top}/{target}").code)
            assert_untouched(outside)
            assert not Path(top).exists(), "it was made on the host"
        assert 0 in codes, "nothing was ever copied"
        found = [path for path in got.rglob("*") if path.is_file() and not path.is_symlink()]
        assert [
            path for path in found if path.read_text() == "the host's own" and outside not in path.resolve().parents
        ] == []
        world.run("exec", "it", "touch", "/tmp/stop", check=0)
        assert int(flipping.communicate(timeout=60)[0]) > 1000
