"""The tables, as SQLAlchemy knows them. `migrations/` brings a database to this; a test holds both equal.

Used by the modules that write (`records.py`, `pools.py`, `journal.py`, `revisions.py`, `events.py`). Specs and all else
that may hold a sensitive value are JSON in which such values are sealed (`sealed.py`).
"""

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

metadata = MetaData()

root = Table(
    "root",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("serial", Integer, nullable=False),
)
"""One row: the serial, which grows by one with each transaction that changes what is recorded."""

stacks = Table(
    "stacks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("serial", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("hold", LargeBinary, nullable=False, server_default=text("''")),
    sqlite_with_rowid=False,
)
"""`hold` is JSON of a Hold, or empty."""

records = Table(
    "records",
    metadata,
    Column("key", Text, primary_key=True),
    Column("stack", Text, ForeignKey("stacks.name"), nullable=False, index=True),
    Column("image", Text, nullable=False),
    Column("incarnation", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("serial", Integer, nullable=False),
    Column("spec", LargeBinary, nullable=False),
    Column("grants", LargeBinary, nullable=False),
    Column("status", LargeBinary, nullable=False),
)

holds = Table(
    "holds",
    metadata,
    Column("key", Text, ForeignKey("records.key", ondelete="CASCADE"), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("why", Text, nullable=False),
    sqlite_with_rowid=False,
)

intents = Table(
    "intents",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("stack", Text, nullable=False, index=True),
    Column("verb", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
"""The journal: what is being done. `image` is the digest of what is being made, so that a prune keeps it."""

grants = Table(
    "grants",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("owner", Text, nullable=False, index=True),
    sqlite_with_rowid=False,
)
"""Everything scarce, each thing once: the primary key is the constraint. Pools and scopes: see `pools.py`."""

revisions = Table(
    "revisions",
    metadata,
    Column("stack", Text, ForeignKey("stacks.name", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("summary", LargeBinary, nullable=False),
    Column("wanted", LargeBinary, nullable=False),
    Column("result", Text, nullable=False),
)

revision_images = Table(
    "revision_images",
    metadata,
    Column("stack", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    ForeignKeyConstraint(["stack", "number"], ["revisions.stack", "revisions.number"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

contents = Table(
    "contents",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
"""What is in configs, secrets and bound files: sealed bytes by the digest that specs hold."""

leases = Table(
    "leases",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    sqlite_with_rowid=False,
)
"""Images that were pulled, loaded or built by hand: what keeps them from a prune."""

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("stack", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("ix_events_stack", "stack", "id"),
    sqlite_autoincrement=True,
)
