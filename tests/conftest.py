"""Fixtures that every room's tests may use: the lab's registry storage, made once a session, and worlds."""

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))

from lab.images import push_all
from lab.registry import free_port, start_registry
from lab.world import World, open_world

# Timing belongs to the bench: a machine that does other work is slow to draw the first example.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell has what it starts in the background ignore SIGINT, and so would what the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `root` say why they are skipped where there is none."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="skipped because it needs root and the kernel")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def lab_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a registry that holds every image of the lab: made once, shared by all workers of a session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    storage = shared / "lab-registry"
    with (shared / "lab-registry.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not storage.exists():
            fill_storage(storage, shared)
    return storage


def fill_storage(storage: Path, scratch: Path) -> None:
    """Push all images into a new storage; it bears its name once it is whole."""
    staging = scratch / "new-lab-registry"
    registry = start_registry(staging, scratch / "filling", port=free_port(5100))
    try:
        push_all(registry.url)
    finally:
        registry.stop()
    staging.rename(storage)


@pytest.fixture
def open_a_world(tmp_path: Path, lab_storage: Path) -> Iterator[Callable[[str], World]]:
    """Makes worlds by name, for tests that need two machines; ends them all."""
    opened: list[World] = []

    def make(name: str) -> World:
        opened.append(open_world(tmp_path / name, lab_storage))
        return opened[-1]

    yield make
    for world in opened:
        world.close()


@pytest.fixture
def world(open_a_world: Callable[[str], World], request: pytest.FixtureRequest) -> Iterator[World]:
    """A machine of its own with a registry at 127.0.0.1:5000; a test that passes must leave nothing after a delete."""
    made = open_a_world("world")
    failed_before = request.session.testsfailed
    yield made
    if request.session.testsfailed == failed_before:
        made.assert_nothing_left()
