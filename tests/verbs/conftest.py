"""Verbs over a root whose machine is made of values."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Published
from reconciler.verbs.root import Root, opened_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A new root; its registry has `box`, which runs, `done`, which ends with 3 at once, and `keeper`, with a VOLUME."""
    with opened_root(tmp_path / "root", create=True, engine="memory") as found:
        assert isinstance(found.engine, MemoryEngine)
        found.engine.machine.registry = {
            "docker.io/library/box:1": Published(digest="sha256:b0", prints="hello\n"),
            "docker.io/library/done:1": Published(digest="sha256:d0", prints="bye\n", exits=3),
            "docker.io/library/keeper:1": Published(digest="sha256:e0", volumes=("/data",)),
        }
        yield found
