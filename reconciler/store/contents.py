"""Writes what is in configs, secrets and bound files, by digest, and finds and drops what nothing names any more.

All of it is sealed: whether a bound file is a password is not ours to know.
"""

import re
import sqlite3
from collections.abc import Mapping

from reconciler.store import statements

_DIGEST = re.compile(rb"(?:hmac-)?sha256:[0-9a-f]{64}")


def put_contents(sql: sqlite3.Connection, sealed: Mapping[str, bytes]) -> None:
    """Keep contents; one that is there already stays."""
    sql.executemany(statements.PUT_CONTENT, [{"digest": digest, "data": data} for digest, data in sealed.items()])


def find_unused(sql: sqlite3.Connection) -> set[str]:
    """The digests of contents that no record, no open intent and no revision names."""
    kept = {digest for (digest,) in sql.execute("SELECT digest FROM contents")}
    if not kept:
        return kept
    # Specs are JSON in which digests stand in clear. Twenty revisions of a thousand containers take 0.16 s.
    for query in ("SELECT spec FROM records", "SELECT data FROM intents", "SELECT wanted FROM revisions"):
        for (data,) in sql.execute(query):
            kept -= {found.decode() for found in _DIGEST.findall(data)}
    return kept


def drop_unused(sql: sqlite3.Connection) -> int:
    """Drop them; how many went."""
    unused = find_unused(sql)
    sql.executemany(statements.DELETE_CONTENT, [{"of_digest": digest} for digest in sorted(unused)])
    return len(unused)
