"""Every statement that writes, in SQLAlchemy Core on the tables: where `statements.py` comes from.

Imported by `scripts/generate-statements` and by the test that holds both equal, never by a command: importing SQLAlchemy
takes longer than all else that a short command does (docs/decisions/0061).
"""

from collections.abc import Sequence
from textwrap import wrap

from sqlalchemy import ClauseElement, Table, bindparam, delete, func, insert, literal_column, select, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.schema import CreateIndex, CreateTable

from reconciler.store import tables

_WIDTH = 124


def _insert(table: Table, names: Sequence[str]) -> ClauseElement:
    return insert(table).values({name: bindparam(name) for name in names})


def _upsert(table: Table, names: Sequence[str], *, key: str, changes: Sequence[str]) -> ClauseElement:
    new = insert_or(table).values({name: bindparam(name) for name in names})
    return new.on_conflict_do_update(index_elements=[key], set_={name: new.excluded[name] for name in changes})


_root, _stacks, _records, _holds = tables.root, tables.stacks, tables.records, tables.holds
_grants, _intents, _revisions, _pins = tables.grants, tables.intents, tables.revisions, tables.revision_images
_leases, _events, _contents = tables.leases, tables.events, tables.contents
_reserved = _grants.c.pool == literal_column("'reserved'")
_room = select(
    _events.c.id, func.sum(func.length(_events.c.data)).over(order_by=_events.c.id.desc()).label("total")
).subquery()
_lasting = _grants.c.pool.in_([literal_column(f"'{pool}'") for pool in ("address", "mac", "reserved")])

STATEMENTS: dict[str, ClauseElement] = {
    "NEXT_SERIAL": update(_root).values(serial=_root.c.serial + literal_column("1")).returning(_root.c.serial),
    "PUT_STACK": _upsert(
        _stacks,
        ["name", "origin", "source", "serial", "revision", "hold"],
        key="name",
        changes=["origin", "source", "revision", "hold"],
    ),
    "MARK_STACK": update(_stacks).where(_stacks.c.name == bindparam("stack")).values(serial=bindparam("new_serial")),
    "DELETE_STACK": delete(_stacks).where(_stacks.c.name == bindparam("stack")),
    "PUT_RECORD": _upsert(
        _records,
        ["key", "stack", "image", "incarnation", "created_at", "serial", "spec", "grants", "status"],
        key="key",
        changes=["image", "incarnation", "created_at", "serial", "spec", "grants", "status"],
    ),
    "PUT_STATUS": update(_records).where(_records.c.key == bindparam("of_key")).values(status=bindparam("new_status")),
    "DELETE_RECORD": delete(_records).where(_records.c.key == bindparam("of_key")),
    "PUT_HOLD": _upsert(_holds, ["key", "kind", "who", "at", "why"], key="key", changes=["kind", "who", "at", "why"]),
    "DELETE_HOLD": delete(_holds).where(_holds.c.key == bindparam("of_key")),
    "PUT_GRANT": _insert(_grants, ["pool", "scope", "value", "owner"]),
    "DELETE_GRANT": delete(_grants).where(
        _grants.c.pool == bindparam("of_pool"),
        _grants.c.scope == bindparam("of_scope"),
        _grants.c.value == bindparam("of_value"),
    ),
    "WITHDRAW_GRANTS": delete(_grants).where(_grants.c.owner == bindparam("of_owner"), ~_lasting),
    "END_RESERVATIONS_OF_VOLUME": delete(_grants).where(_reserved, _grants.c.scope == bindparam("volume")),
    "END_RESERVATIONS_OF_OWNERS": delete(_grants).where(_reserved, _grants.c.owner.op("GLOB")(bindparam("owners"))),
    "END_RESERVATIONS_ON_NETWORK": delete(_grants).where(
        _reserved, _grants.c.owner == bindparam("of_owner"), _grants.c.value.op("GLOB")(bindparam("places"))
    ),
    "FREE_ADDRESSES": delete(_grants).where(
        _grants.c.pool == literal_column("'address'"),
        _grants.c.owner == bindparam("of_owner"),
        _grants.c.scope == bindparam("network"),
    ),
    "PASS_ON_GRANTS": update(_grants).where(_grants.c.owner == bindparam("of_owner")).values(owner=bindparam("to")),
    "PASS_ON_RESERVATIONS": update(_grants)
    .where(_reserved, _grants.c.scope == bindparam("volume"))
    .values(scope=bindparam("to")),
    "PUT_INTENT": _insert(_intents, ["key", "stack", "verb", "image", "data"]),
    "DELETE_INTENT": delete(_intents).where(_intents.c.id == bindparam("of_id")),
    "DELETE_INTENTS_OF": delete(_intents).where(
        _intents.c.key == bindparam("of_key"), _intents.c.verb == bindparam("of_verb")
    ),
    "LAST_REVISION": select(func.max(_revisions.c.number)).where(_revisions.c.stack == bindparam("of_stack")),
    "PUT_REVISION": _insert(_revisions, ["stack", "number", "at", "who", "source", "summary", "wanted", "result"]),
    "PUT_REVISION_IMAGE": _insert(_pins, ["stack", "number", "key", "digest"]),
    "DELETE_REVISION": delete(_revisions).where(
        _revisions.c.stack == bindparam("of_stack"), _revisions.c.number == bindparam("of_number")
    ),
    "FINISH_REVISION": update(_revisions)
    .where(_revisions.c.stack == bindparam("of_stack"), _revisions.c.number == bindparam("of_number"))
    .values(result=bindparam("new_result")),
    "PUT_LEASE": insert_or(_leases).values(digest=bindparam("digest"), name=bindparam("name")).on_conflict_do_nothing(),
    "DELETE_LEASE": delete(_leases).where(
        _leases.c.digest == bindparam("of_digest"), _leases.c.name == bindparam("of_name")
    ),
    "DELETE_LEASES": delete(_leases).where(_leases.c.digest == bindparam("of_digest")),
    "PUT_CONTENT": insert_or(_contents).values(digest=bindparam("digest"), data=bindparam("data")).on_conflict_do_nothing(),
    "DELETE_CONTENT": delete(_contents).where(_contents.c.digest == bindparam("of_digest")),
    "PUT_EVENT": _insert(_events, ["at", "stack", "key", "data"]),
    "TRIM_EVENTS": delete(_events).where(
        _events.c.id <= select(func.max(_events.c.id)).scalar_subquery() - bindparam("kept")
    ),
    # Never the newest, however large it is; `total` is the size of an event with all that came after it.
    "SHRINK_EVENTS": delete(_events).where(
        _events.c.id <= select(func.max(_room.c.id)).where(_room.c.total > bindparam("size")).scalar_subquery(),
        _events.c.id < select(func.min(_events.c.id)).scalar_subquery() + bindparam("most"),
        _events.c.id < select(func.max(_events.c.id)).scalar_subquery(),
    ),
    "AGE_EVENTS": delete(_events).where(
        _events.c.id < select(func.min(_events.c.id)).scalar_subquery() + bindparam("most"),
        _events.c.at < bindparam("oldest"),
    ),
}


def render_statements() -> str:
    """The text of `statements.py`."""
    lines = [
        '"""SQL of every statement that writes, as SQLAlchemy Core compiles it: made from `core.py` by',
        '`scripts/generate-statements`, not by hand. Parameters are named."""',
        "",
    ]
    for name, statement in STATEMENTS.items():
        lines += _quote(statement, f"{name} = ")
    lines += ["", "CREATE = ("]
    for table in tables.metadata.sorted_tables:
        indexes = sorted(table.indexes, key=lambda index: str(index.name))
        made: list[ClauseElement] = [CreateTable(table), *(CreateIndex(index) for index in indexes)]
        for statement in made:
            lines += _quote(statement, "    ", ",")
    return "\n".join([*lines, ")", '"""All tables and indexes, of an empty database."""', ""])


def _quote(statement: ClauseElement, before: str, behind: str = "") -> list[str]:
    """Lines of Python that have the text of a statement."""
    text = str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
    quoted = f'{before}"""{" ".join(text.split())}"""{behind}'
    return wrap(quoted, _WIDTH, break_long_words=False)
