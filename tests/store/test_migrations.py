"""Every schema that ever landed becomes today's, with its rows; a copy is kept of what was.

A new migration adds a file to `versions/` here: `vNNNN.sql`, a dump of a filled database as that version wrote it.
"""

import sqlite3
import textwrap
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from samples import container, made_root, web
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from reconciler.model.errors import RootError
from reconciler.store import database, upgrade
from reconciler.store.store import open_store
from reconciler.store.tables import metadata
from reconciler.store.upgrade import MIGRATIONS, migrate, revision_name, write_schema

VERSIONS = Path(__file__).with_name("versions")
LANDED = [path.stem for path in sorted((MIGRATIONS / "versions").glob("v*.py"))]


def in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def shape(sql: sqlite3.Connection) -> dict[str, object]:
    """Tables with columns, keys and indexes as SQLite itself tells them."""
    names = [name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    ours = [name for name in names if name not in ("alembic_version", "sqlite_sequence")]
    flags = {row[1]: row[4:] for row in sql.execute("PRAGMA table_list")}
    return {
        name: (
            sql.execute(f"PRAGMA table_info({name})").fetchall(),
            sorted(row[1:] for row in sql.execute(f"PRAGMA foreign_key_list({name})")),
            sorted(
                (row[1:], tuple(sql.execute(f"PRAGMA index_info({row[1]})")))
                for row in sql.execute(f"PRAGMA index_list({name})")
            ),
            flags[name],
            "AUTOINCREMENT" in sql.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0],
        )
        for name in ours
    }


def test_the_schema_version_is_the_newest_migration() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_current_head() == revision_name(database.SCHEMA_VERSION)
    assert [f"v{script.revision}" for script in scripts.walk_revisions()][::-1] == LANDED


def test_migrating_from_nothing_gives_what_a_new_root_has() -> None:
    migrated, made = in_memory(), in_memory()
    migrated.execute("BEGIN IMMEDIATE")
    migrate(migrated)
    write_schema(made)
    assert shape(migrated) == shape(made)
    assert len(shape(made)) == len(metadata.tables)
    for sql in (migrated, made):
        assert sql.execute("SELECT id, serial FROM root").fetchall() == [(1, 0)]
        assert not sql.in_transaction
        with create_engine("sqlite://", creator=lambda sql=sql: sql, poolclass=StaticPool).connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []


@pytest.mark.parametrize("version", LANDED)
def test_a_root_of_every_version_opens_with_its_rows(tmp_path: Path, version: str) -> None:
    path = database.database_path(tmp_path)
    sql = sqlite3.connect(path)
    sql.executescript((VERSIONS / f"{version}.sql").read_text(encoding="utf-8"))
    sql.execute(f"PRAGMA user_version = {int(version[1:])}")
    sql.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    sql.execute("PRAGMA journal_mode = WAL")
    sql.close()
    store = open_store(tmp_path)
    with store.read() as tx:
        from_memory = (tx.records(), tx.stacks(), tx.intents(), tx.revisions("blog"), tx.events(), tx.grants_in("address"))
        assert all(from_memory)
        assert tx.holds()
        assert tx.used_digests()
        assert tx.revision("blog", 1).wanted.specs  # type: ignore[union-attr]  # a missing one is a failure as well
    with store.write() as tx:
        tx.bump("blog")
        assert tx.records() == from_memory[0]
    store.close()
    made = in_memory()
    write_schema(made)
    assert shape(sqlite3.connect(path)) == shape(made)


TOMORROW = """
    import sqlalchemy as sa
    from alembic import op

    revision = "{name}"
    down_revision = "{before}"

    def upgrade() -> None:
        op.add_column("stacks", sa.Column("note", sa.Text(), nullable=False, server_default="none"))
        with op.batch_alter_table("records") as records:
            records.alter_column("image", new_column_name="digest")
        with op.batch_alter_table("records") as records:
            records.alter_column("digest", new_column_name="image")
        {then}
"""


@pytest.fixture
def tomorrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reconcile that knows one schema more; where its migration is."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    for name in ("env.py", *(f"versions/{version}.py" for version in LANDED)):
        (folder / name).write_text((MIGRATIONS / name).read_text(encoding="utf-8"), encoding="utf-8")
    now = database.SCHEMA_VERSION
    script = folder / "versions" / "tomorrow.py"
    words = {"name": revision_name(now + 1), "before": revision_name(now)}
    script.write_text(textwrap.dedent(TOMORROW).format(**words, then=""), encoding="utf-8")
    (folder / "broken.txt").write_text(textwrap.dedent(TOMORROW).format(**words, then='op.execute("DELETE FROM stacks")'))
    monkeypatch.setattr(database, "SCHEMA_VERSION", now + 1)
    monkeypatch.setattr(upgrade, "MIGRATIONS", folder)
    return script


def filled_today(tmp_path: Path) -> Path:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
        tx.grant_link("v1", web())
    store.close()
    return store.path


def test_reading_an_older_root_changes_nothing_and_writing_migrates_it(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = filled_today(tmp_path)
    before, now = path.read_bytes(), database.SCHEMA_VERSION
    request.getfixturevalue("tomorrow")
    store = open_store(path.parent)
    with store.read() as tx:
        assert list(tx.records()) == [web()]
        assert tx._sql.execute("SELECT note FROM stacks").fetchone() == ("none",)
    assert path.read_bytes() == before
    with store.read() as older, store.write() as tx:
        tx.put_record(container(web(2)))
        assert tx.holder("link", "v1") == web()
        assert list(older.records()) == [web()]
    with store.read() as tx:
        assert list(tx.records()) == [web(), web(2)]
    store.close()
    kept = path.with_name(f"reconcile.db.schema-{now}")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert {name.name for name in path.parent.iterdir()} == {"key", "serial", "reconcile.db", kept.name}
    copy = sqlite3.connect(kept)
    assert copy.execute("PRAGMA user_version").fetchone() == (now,)
    assert copy.execute("SELECT key FROM records").fetchall() == [(web(),)]
    copy.close()


def test_the_copy_is_a_root_s_database_again_for_the_older_reconcile(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled_today(tmp_path)
    now = database.SCHEMA_VERSION
    request.getfixturevalue("tomorrow")
    with open_store(path.parent).write() as tx:
        tx.bump("blog")
    monkeypatch.setattr(database, "SCHEMA_VERSION", now)
    with pytest.raises(RootError, match="made by a newer reconcile"):
        open_store(path.parent)
    back = tmp_path / "back"
    back.mkdir()
    (back / "reconcile.db").write_bytes(path.with_name(f"reconcile.db.schema-{now}").read_bytes())
    store = open_store(back)
    with store.write() as tx:
        assert list(tx.records()) == [web()]
        assert tx._sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_migration_that_would_lose_rows_changes_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = filled_today(tmp_path)
    before, now = path.read_bytes(), database.SCHEMA_VERSION
    script = request.getfixturevalue("tomorrow")
    script.write_text((script.parent.parent / "broken.txt").read_text())
    with pytest.raises(RootError, match="a row of records lost what it belongs to"):
        open_store(path.parent)
    upgraded = sqlite3.connect(path)
    assert upgraded.execute("PRAGMA user_version").fetchone() == (now,)
    upgraded.close()
    assert path.read_bytes() == before


def test_two_who_migrate_at_once_migrate_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = filled_today(tmp_path)
    request.getfixturevalue("tomorrow")
    first, second = open_store(path.parent), open_store(path.parent)
    for store in (first, second):
        with store.write() as tx:
            tx.bump("blog")
    with open_store(path.parent).read() as tx:
        assert list(tx.records()) == [web()]
