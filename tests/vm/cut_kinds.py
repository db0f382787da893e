"""What a power cut falls into: an apply, the first one, a pull, a migration; what each needs before and after it."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ordeal import Leaked, Lost

from lab.images import Entry, Image, layer

if TYPE_CHECKING:
    from cut_guest import Life

LAYERS, LAYER_BYTES = 3, 4 << 20
_WITH_SPECS = (("records", "key", "spec"), ("intents", "id", "data"), ("revisions", "rowid", "wanted"))


def nothing(_: "Life") -> None:
    """Nothing to do."""


@dataclass(frozen=True)
class Kind:
    """What is done in one life before the cut is announced, what is cut, and what the next life looks at after `boot`."""

    cut: "Callable[[Life], None]"
    before: "Callable[[Life], None]" = nothing
    after: "Callable[[Life], None]" = nothing
    draws: bool = True
    """Whether it brings another version of the stack."""
    small: bool = True
    """Whether the stack is a small one, which is up sooner."""
    first_flushes: int = 0
    """Where one of the first flushes is where it is cut: so many. 0 for any moment."""
    fresh: bool = False
    """Whether each cut finds an empty disk."""


# --- an apply -----------------------------------------------------------------------------------------------------------


def apply_another(it: "Life") -> None:
    """An apply of the version that was drawn."""
    it.apply()


# --- a pull -------------------------------------------------------------------------------------------------------------


def big_name(boot: int) -> str:
    """The image that is pulled in one life: one that nobody has pulled before."""
    return f"big:{boot}"


def big_files(seed: int, boot: int) -> list[bytes]:
    """What its layers hold, a file each: nothing that can be compressed."""
    return [random.Random(f"{seed}/{boot}/{number}").randbytes(LAYER_BYTES) for number in range(LAYERS)]


def big_image(base: Image, seed: int, boot: int) -> Image:
    """That image, over another one."""
    layers = [layer(Entry(f"big/{number}", data)) for number, data in enumerate(big_files(seed, boot))]
    return Image((*base.layers, *layers), {"Cmd": ["pause"]})


def pull_big(it: "Life") -> None:
    """A pull by hand."""
    it.world.run("pull", f"127.0.0.1:5000/{big_name(it.boot)}", check=0)


def judge_pull(it: "Life") -> None:
    """A second pull ends well, what it gave is read in a container, byte by byte, and it can be removed again."""
    name = f"127.0.0.1:5000/{big_name(it.boot - 1)}"
    it.world.run("pull", name, check=0)
    said = it.world.run("run", "--rm", name, "sh", "-c", "sha256sum /big/*", check=0).out.split()[::2]
    wanted = [hashlib.sha256(data).hexdigest() for data in big_files(it.seed, it.boot - 1)]
    if said != wanted:
        raise Lost(f"{name} holds {said}, and should hold {wanted}")
    it.judge_content()
    it.world.run("images", "rm", name, check=0)
    it.world.run("images", "prune", check=0)
    if left := [str(path) for path in it.world.root.rglob("new-*")]:
        raise Leaked(f"half-made things are left: {left}")


# --- a migration --------------------------------------------------------------------------------------------------------


def make_older(it: "Life") -> None:
    """The root's database becomes one of the first schema, with thousands of events."""
    with closing(sqlite3.connect(it.world.root / "reconcile.db", isolation_level=None)) as sql:
        # As alembic's own way back, which nobody wants in the product: v0002.py read backwards.
        sql.execute("PRAGMA foreign_keys = OFF")
        sql.execute("BEGIN IMMEDIATE")
        for table, identity, column in _WITH_SPECS:
            for row, data in sql.execute(f"SELECT {identity}, {column} FROM {table}").fetchall():
                new = json.dumps(_without_conditions(json.loads(data)), separators=(",", ":")).encode()
                sql.execute(f"UPDATE {table} SET {column} = ? WHERE {identity} = ?", (new, row))
        sql.execute("DROP TABLE contents")
        sql.execute("ALTER TABLE stacks DROP COLUMN hold")
        sql.execute("DROP TABLE IF EXISTS alembic_version")
        event = json.dumps({"event": "note", "at": 1.0, "text": "x" * 200, "key": ""}).encode()
        sql.executemany("INSERT INTO events (at, stack, key, data) VALUES (1.0, '', '', ?)", [(event,)] * 2000)
        sql.execute("PRAGMA user_version = 1")
        sql.execute("COMMIT")
        sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for copy in it.world.root.glob("reconcile.db.schema-*"):
        copy.unlink()


def _without_conditions(plain: Any) -> Any:
    if isinstance(plain, list):
        return [_without_conditions(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {
        name: {other: asked["condition"] if list(asked) == ["condition"] else asked for other, asked in value.items()}
        if name == "depends_on" and isinstance(value, dict)
        else _without_conditions(value)
        for name, value in plain.items()
    }


def judge_migration(it: "Life") -> None:
    """Before and behind it: the database is whole and of this schema, the copy of what was is whole and of the first."""
    with closing(sqlite3.connect(it.world.root / "reconcile.db")) as sql:
        facts = _read_facts(sql)
    copy = it.world.root / "reconcile.db.schema-1"
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as sql:
        kept = _read_facts(sql)
    if facts[:2] != ("ok", 2) or kept[:2] != ("ok", 1) or kept[2] != sorted(it.keys):
        raise Lost(f"recorded was {sorted(it.keys)}; the database is {facts}, the copy {kept}")
    if left := [path.name for path in it.world.root.glob("*.new-*")]:
        raise Leaked(f"half a database is left: {left}")


def _read_facts(sql: sqlite3.Connection) -> tuple[str, int, list[str]]:
    [whole], [version] = (sql.execute(f"PRAGMA {name}").fetchone() for name in ("integrity_check", "user_version"))
    return whole, version, [key for (key,) in sql.execute("SELECT key FROM records ORDER BY key")]


KINDS = {
    "apply": Kind(apply_another, small=False),
    "first": Kind(apply_another, fresh=True),
    "pull": Kind(pull_big, after=judge_pull, draws=False),
    "migration": Kind(apply_another, before=make_older, after=judge_migration, first_flushes=10),
}
