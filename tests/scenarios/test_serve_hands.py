"""What is done by hand with a container, through the socket of the controller: terminals, streams, files, the audit."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.serving import Serving
from lab.world import World, open_world, wait_until

pytestmark = pytest.mark.root

MANIFEST = """\
apiVersion: reconcile/v1
name: box
containers:
  box: {image: "127.0.0.1:5000/busybox:1", command: [sh, -c, "trap exit TERM; while :; do sleep 1; done"]}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, lab_storage: Path) -> Iterator[Serving]:
    world = open_world(tmp_path_factory.mktemp("hands"), lab_storage)
    made = Serving(world)
    folder = world.folder / "stacks"
    folder.mkdir()
    (folder / "box.yaml").write_text(MANIFEST)
    made.launch("--watch", str(folder))
    made.wait(lambda: made.world.run("exec", "box", "true").code == 0, "the box runs")
    yield made
    made.end()
    world.assert_nothing_left()
    world.close()


def test_x(served: Serving) -> None:
    world = served.world
    print(world.run("exec", "box", "echo", "hallo"))
    print(world.run("exec", "-i", "box", "cat", stdin="through"))
    print(world.run("run", "--rm", "127.0.0.1:5000/busybox:1", "echo", "run"))
    print(world.run("export", "box"))
    print(world.run("events", "--changes"))
    assert 0
