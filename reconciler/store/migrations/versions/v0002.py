"""Holds of stacks, bytes of configs and secrets, dependencies with more than a condition."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_WITH_SPECS = (("records", "key", "spec"), ("intents", "id", "data"), ("revisions", "rowid", "wanted"))


def upgrade() -> None:
    op.add_column("stacks", sa.Column("hold", sa.LargeBinary(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "contents",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    connection = op.get_bind()
    for table, identity, column in _WITH_SPECS:
        for row, data in connection.exec_driver_sql(f"SELECT {identity}, {column} FROM {table}").fetchall():
            if b'"depends_on"' in data:
                new = json.dumps(_with_conditions(json.loads(data)), separators=(",", ":")).encode()
                connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE {identity} = ?", (new, row))


def _with_conditions(plain: Any) -> Any:
    """`{"depends_on": {"db": "healthy"}}` anywhere below as `{"depends_on": {"db": {"condition": "healthy"}}}`."""
    if isinstance(plain, list):
        return [_with_conditions(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {
        name: {other: {"condition": asked} if isinstance(asked, str) else asked for other, asked in value.items()}
        if name == "depends_on" and isinstance(value, dict)
        else _with_conditions(value)
        for name, value in plain.items()
    }
