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
WRITES = (("stop", "web"), ("apply", "stack.yaml", "--yes"), ("delete", "stuck", "--yes"))


@pytest.mark.root
@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        ("mount --bind $0 $0 && mount -o remount,bind,ro $0", "umount $0", "read-only"),
        ("dd if=/dev/zero of=$0/fill bs=1k 2>/dev/null || true", "rm $0/fill", "disk is full"),
    ],
    ids=["read-only", "full"],
)
def test_root_that_takes_no_writes(world: World, spoil: str, mend: str, words: str):
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
        assert world.run("exec", *root, "web", "echo", "hi", check=0).out == "hi\n"
        world.write({**MANIFEST, "containers": {"web": {**MANIFEST["containers"]["web"], "command": ["sleep", "1001"]}}})
        for verb in WRITES:
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
