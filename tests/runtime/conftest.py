import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from bundles import Bundles


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[Bundles]:
    if os.geteuid() != 0:
        pytest.skip("because it needs root")
    for program in ("runc", "conmon", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"because {program} is not installed")
    made = Bundles(tmp_path)
    yield made
    made.close()
