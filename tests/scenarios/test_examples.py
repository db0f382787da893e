"""Each example whose images the lab has does what it says: applied, it runs, and applied again nothing is left to do."""

import re
import shutil

import pytest

from lab.images import lab_images, push
from lab.world import REPOSITORY, World

pytestmark = pytest.mark.root

EXAMPLES = sorted(path.parent.name for path in (REPOSITORY / "examples").glob("*/stack.yaml"))
OF_THE_LAB = [name for name in EXAMPLES if "/demo/" in (REPOSITORY / "examples" / name / "stack.yaml").read_text()]


def test_most_examples_use_images_of_the_lab() -> None:
    assert set(EXAMPLES) - set(OF_THE_LAB) == {"replicas", "three-tier"}, "run what is new by hand, or give it demo images"


@pytest.mark.parametrize("name", OF_THE_LAB)
def test_example_runs_and_then_nothing_is_left_to_do(world: World, name: str) -> None:
    assert world.registry
    for image in ("web:1", "busybox:1"):
        with world.network():
            push(world.registry.url, f"demo/{image}", lab_images()[image])
    shutil.copytree(REPOSITORY / "examples" / name, world.folder / name)
    world.env = {"TOKEN": "s3cret", "PASSWORD": "s3cret", "NAME": "world"}
    path = f"{name}/stack.yaml"
    applied = world.run("apply", path, "--yes", timeout=100)
    assert applied.code == 0, str(applied)
    for key, record in world.records("container").items():
        status, spec = record["status"], record["spec"]
        done = status["phase"] == "exited" and status["exit_code"] == 0 and spec.get("restart", "always") != "always"
        assert done or status["phase"] == "running", f"{key} is {status}"
    again = world.run("plan", path)
    assert again.code == 0, str(again)
    assert re.search("nothing to do", again.out)
