"""Writes what is in configs, secrets and bound files, by digest, and drops what nothing names any more.

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


def drop_unused(sql: sqlite3.Connection) -> int:
    """Drop contents that no record, no open intent and no revision names; how many went."""
    kept = {digest for (digest,) in sql.execute("SELECT digest FROM contents")}
    if not kept:
        return 0
    # Specs are JSON in which digests stand in clear; reading them as structs would take a hundred times as long.
    for query in ("SELECT spec FROM records", "SELECT data FROM intents", "SELECT wanted FROM revisions"):
        for (data,) in sql.execute(query):
            kept -= {found.decode() for found in _DIGEST.findall(data)}
    sql.executemany(statements.DELETE_CONTENT, [{"of_digest": digest} for digest in sorted(kept)])
    return len(kept)
