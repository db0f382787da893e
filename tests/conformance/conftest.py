"""Tests that take a `ground` run on each engine; those that take a `standing` site with each `harm` of each engine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from grounds import Ground, Site
from memory_ground import HARMS as MEMORY_HARMS
from memory_ground import MemoryGround
from native_ground import HARMS as NATIVE_HARMS
from native_ground import NativeGround, namespaces_of_our_own

GROUNDS: dict[str, Callable[[Path], Ground]] = {"memory": MemoryGround, "native": NativeGround}
HARMS = {"memory": MEMORY_HARMS, "native": NATIVE_HARMS}
MARKS = {"memory": (), "native": (pytest.mark.root,)}

DEVIATIONS: dict[str, dict[str, str]] = {
    "memory": {
        "test_exec_returns_the_commands_own_exit_code": "nothing runs in a value: every command ends with 0",
        "test_log_has_what_the_container_wrote": "nothing runs in a value: its log says only that it was made",
    },
    "native": {},
}
"""What an engine may do otherwise, by engine and test, and why it can't be helped. What holds after all is an error."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "standing" in metafunc.fixturenames:
        pairs = [
            pytest.param(name, harm, marks=MARKS[name], id=f"{name}-{harm.name.replace(' ', '-')}")
            for name, harms in HARMS.items()
            for harm in harms
        ]
        metafunc.parametrize(("standing", "harm"), pairs, indirect=["standing"])
    if "ground" not in metafunc.fixturenames:
        return
    marks = {
        name: [
            *MARKS[name],
            *(
                [pytest.mark.xfail(reason=why, strict=True)]
                if (why := DEVIATIONS[name].get(metafunc.function.__name__))
                else []
            ),
        ]
        for name in GROUNDS
    }
    metafunc.parametrize("ground", [pytest.param(name, marks=marks[name]) for name in GROUNDS], indirect=True)


@pytest.fixture
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A fresh engine over a fresh machine. A test that passes leaves nothing on it once everything is deleted."""
    with ExitStack() as stack:
        made = open_ground(request.param, tmp_path, stack)
        failed_before = request.session.testsfailed
        yield made
        left = made.close()
        assert request.session.testsfailed > failed_before or left == []


def open_ground(name: str, folder: Path, stack: ExitStack) -> Ground:
    """An engine's ground; what it stands on goes with the stack."""
    if name == "native":
        stack.enter_context(namespaces_of_our_own())
    return GROUNDS[name](folder)


@pytest.fixture
def site(ground: Ground) -> Site:
    """`web` and `db` running on it."""
    return Site(ground)


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """Opens one site of each engine for a module."""
    opened: dict[str, Site] = {}
    with ExitStack() as stack:

        def find(name: str) -> Site:
            if name not in opened:
                opened[name] = Site(open_ground(name, tmp_path_factory.mktemp(name), stack))
            return opened[name]

        yield find
        for site in opened.values():
            assert site.ground.close() == []


@pytest.fixture
def standing(request: pytest.FixtureRequest, open_site: Callable[[str], Site]) -> Site:
    """A site that the tests of a module harm and mend, one after another."""
    return open_site(request.param)
