"""X4: a database that is damaged, older than its root, read-only or busy while a stack runs: words, and the way back."""

import sys
from collections.abc import Callable

import pytest

from lab.world import World

pytestmark = pytest.mark.root

VERBS = (("apply", "stack.yaml", "--yes"), ("stop", "web"), ("delete", "shop", "--yes"))


@pytest.fixture
def shop(world: World) -> World:
    world.use("shop")
    world.run("apply", "stack.yaml", "--yes", check=0)
    return world


def damage_pages(world: World) -> None:
    path = world.root / "reconcile.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def lose_the_log(world: World) -> None:
    """A client that is killed leaves its log, and that is taken away."""
    world.edit(world.folder / "stack.yaml", "COLOUR: red", "COLOUR: blue")
    world.run("apply", "stack.yaml", "--yes", env={"RECONCILE_FAILPOINTS": "converge.settle:after=kill"})
    (world.root / "reconcile.db-wal").unlink()


@pytest.mark.parametrize(("harm", "words"), [(damage_pages, "is damaged"), (lose_the_log, "older than its root")])
def test_x4_database_that_is_not_right_stops_nothing_and_recover_rebuilds_it(
    shop: World, harm: Callable[[World], None], words: str
):
    pid = shop.pid("shop/web")
    harm(shop)
    for verb in (*VERBS, ("get",), ("plan", "stack.yaml"), ("boot",)):
        said = shop.run(*verb, check=1).err
        assert words in said, said
        assert "reconcile recover" in said, said
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    database = shop.root / "reconcile.db"
    database.rename(f"{database}.damaged")
    shop.run("recover", check=0)
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert shop.plan("stack.yaml")["actions"] == []
    assert shop.pid("shop/web") == pid
    assert "It works" in shop.fetch("http://127.0.0.1:8080/")


def test_x4_read_only_database_is_read_and_who_would_write_is_told(shop: World):
    pid = shop.pid("shop/web")
    database = str(shop.root / "reconcile.db")
    shop.nsenter("sh", "-ec", "mount --bind $0 $0 && mount -o remount,bind,ro $0", database)
    try:
        assert shop.pid("shop/web") == pid
        shop.edit(shop.folder / "stack.yaml", "COLOUR: red", "COLOUR: blue")
        for verb in VERBS:
            said = shop.run(*verb, check=1).err
            assert database in said, said
            assert "read-only" in said, said
            assert "hint:" in said, said
        assert "It works" in shop.fetch("http://127.0.0.1:8080/")
        assert shop.pid("shop/web") == pid
    finally:
        shop.nsenter("umount", database)
    shop.run("apply", "stack.yaml", "--yes", check=0)


HOLD = """
import sqlite3, sys
sql = sqlite3.connect(sys.argv[1], isolation_level=None)
sql.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def test_x4_database_that_is_busy_for_too_long_names_who_holds_it(shop: World):
    pid = shop.pid("shop/web")
    holder = shop.spawn([sys.executable, "-c", HOLD, str(shop.root / "reconcile.db")])
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        shop.edit(shop.folder / "stack.yaml", "COLOUR: red", "COLOUR: blue")
        said = shop.run("apply", "stack.yaml", "--yes", "--lock-timeout", "1s", check=5).err
        assert "(pid " in said, said
        assert "--lock-timeout" in said, said
        assert shop.pid("shop/web") == pid, "who looks waits for nobody"
        assert "It works" in shop.fetch("http://127.0.0.1:8080/")
    finally:
        holder.communicate(timeout=10)
    shop.run("apply", "stack.yaml", "--yes", check=0)
    assert shop.plan("stack.yaml")["actions"] == []
