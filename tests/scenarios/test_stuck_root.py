"""A root whose disk takes no writes: who looks sees what there is, who would change something is told, nothing is lost."""

import pytest

from lab.world import World

MANIFEST = {
    "apiVersion": "reconcile/v1",
    "name": "stuck",
    "images": {"busybox": {"from": "127.0.0.1:5000/busybox:1"}},
    "containers": {"web": {"image": "busybox", "command": ["sleep", "1000"], "init": True}},
}
LOOKS = (
    ("get",),
    ("status",),
    ("logs", "web"),
    ("plan", "stack.yaml"),
    ("drift",),
    ("describe", "web"),
    ("history", "stuck"),
)
WRITES = (("apply", "stack.yaml", "--yes"), ("stop", "web"), ("delete", "stuck", "--yes"))


@pytest.mark.root
@pytest.mark.parametrize(
    ("spoil", "mend", "words", "writes"),
    [
        ("mount --bind $0 $0 && mount -o remount,bind,ro $0", "umount $0", "read-only", WRITES),
        ("dd if=/dev/zero of=$0/fill bs=1k 2>/dev/null || true", "rm $0/fill", "disk is full", WRITES[:1]),
    ],
    ids=["read-only", "full"],
)
def test_x3_root_that_takes_no_writes(world: World, spoil: str, mend: str, words: str, writes: tuple[tuple[str, ...], ...]):
    disk = str(world.folder / "disk")
    world.nsenter("sh", "-ec", "mkdir $0 && mount -t tmpfs -o size=12m tmpfs $0", disk)
    root = ("--root", f"{disk}/root")
    try:
        world.write(MANIFEST)
        world.run("apply", "stack.yaml", "--yes", *root, check=0)
        world.nsenter("sh", "-ec", spoil, disk)
        for verb in LOOKS:
            world.run(*verb, *root, check=0)
        assert "running" in world.run("get", "containers", *root).out
        ran = world.run("exec", *root, "web", "echo", "hi", check=0)
        assert (ran.out, "exec container/stuck/web/1: it is not in the event log: " in ran.err) == ("hi\n", True)
        world.write({**MANIFEST, "containers": {"web": {**MANIFEST["containers"]["web"], "command": ["sleep", "1001"]}}})
        for verb in writes:
            said = world.run(*verb, *root, check=1).err.lower()
            assert words in said, said
            assert "hint:" in said, said
            assert "mistake in reconcile" not in said
        world.nsenter("sh", "-ec", mend, disk)
        assert "running" in world.run("get", "containers", *root).out
        world.run("apply", "stack.yaml", "--yes", *root, check=0)
        world.run("delete", "stuck", "--yes", *root, check=0)
        world.run("images", "prune", "--all", *root, check=0)
    finally:
        world.nsenter("sh", "-c", "umount -R -l $0", disk, check=False)


@pytest.mark.root
def test_x3_on_a_full_disk_what_frees_it_works_and_what_runs_goes_on(world: World):
    disk = str(world.folder / "disk")
    world.nsenter("sh", "-ec", "mkdir $0 && mount -t tmpfs -o size=24m tmpfs $0", disk)
    root = ("--root", f"{disk}/root")
    box = {"image": "127.0.0.1:5000/busybox:1", "command": ["sleep", "1000"], "init": True}
    stack = {"apiVersion": "reconcile/v1", "name": "full", "containers": {"kept": box, "stopped": box, "gone": box}}
    try:
        world.write(stack)
        world.run("apply", "stack.yaml", "--yes", *root, check=0)
        pid = world.run("get", "container/full/kept", "-o", "json", *root).json()[0]["status"]["pid"]

        def fill() -> None:
            world.nsenter(
                "sh", "-c", "dd if=/dev/zero of=$0/fill bs=1k conv=notrunc oflag=append 2>/dev/null", disk, check=False
            )

        fill()
        said = world.run("apply", "stack.yaml", "--yes", "--resume", *root)
        for verb in (("stop", "stopped"), ("delete", "container/full/gone", "--yes"), ("images", "prune", "--yes")):
            said = world.run(*verb, *root, check=0)
            assert ("space that is kept for this" in said.err) == (verb[0] == "stop"), str(said)
        states = {r["name"]: r["status"] for r in world.run("get", "containers", "-o", "json", *root).json()}
        assert states["kept"]["phase"] == "running"
        assert states["kept"]["pid"] == pid
        assert states["stopped"]["phase"] == "exited"
        assert "gone" not in states
        world.nsenter("rm", f"{disk}/fill")
        world.run("apply", "stack.yaml", "--yes", "--resume", *root, check=0)
        assert world.run("plan", "stack.yaml", *root).code == 0
        assert world.nsenter("stat", "-c", "%s", f"{disk}/root/reserve").out.strip() != "0", "kept again"
        world.run("delete", "full", "--yes", *root, check=0)
    finally:
        world.nsenter("sh", "-c", "umount -R -l $0", disk, check=False)
