"""The command line on a machine of its own. One machine serves a module; each test has a stack of its own name on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from stacks import Machine, container

from lab.world import open_world


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Iterator[Machine]:
    """A world whose commands run as a user's do: without RECONCILE_DEBUG. What is left after the last test is an error."""
    world = open_world(tmp_path_factory.mktemp("cli") / "world", lab_storage)
    world.env["RECONCILE_DEBUG"] = ""
    try:
        made = Machine(world)
        yield made
        made.delete_everything()
        made.close()
        world.assert_nothing_left()
    finally:
        world.close()


@pytest.fixture(scope="module")
def standing(machine: Machine) -> str:
    """A stack that the tests of a module only look at: `webserver` with ports, `database`, and `data`."""
    ports = ["127.0.0.1:8083:80", "127.0.0.1:8084:81"]
    script = "seq 1 20000; exec pause"
    return machine.applied(
        {"webserver": container(ports=ports, mounts=["data:/data"]), "database": container("sh", "-c", script)},
        volumes={"data": {}},
    )
