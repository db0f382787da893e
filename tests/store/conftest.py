"""The folder itself on the path, for `samples`; connections that a test opened are closed after it."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def connections_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compat: since Python 3.13 a connection that nobody closed is a warning; tests drop stores on purpose."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remember(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **{**options, "check_same_thread": False}))  # so that we may close it
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remember)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", remember)
    yield
    for connection in opened:
        connection.close()
