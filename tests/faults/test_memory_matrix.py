"""Every point that a run on the memory engine reaches: killed before, killed after, failing, hanging and killed."""

from pathlib import Path

import memory_matrix as matrix
import pytest

SHM = Path("/dev/shm")
MOST = 3
"""Hits of one point that are tried: the first, one in the middle, the last."""


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory):
    import shutil
    import tempfile

    if not SHM.is_dir():
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(dir=SHM))  # a root there costs no disk
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("step", list(matrix.STEPS))
def test_x1_a_fault_at_any_point_is_taken_up_by_two_runs_on_the_memory_engine(folder: Path, step: str) -> None:
    ground = matrix.prepare(folder)[step]
    cells = list(matrix.list_cells(folder, {step: ground}, MOST))
    reached, wrong = 0, []
    for number, (_, point, nth, action) in enumerate(cells):
        found, was_reached = matrix.run_cell(folder / f"cell-{number}", ground, step, point, nth, action)
        reached += was_reached
        wrong += [f"{step} {point} {nth} {action}: {line}" for line in found]
    assert wrong == []
    # What waits for what differs a little from run to run, and with it how often a point is hit.
    assert reached > 0.9 * len(cells) > 50


def test_x1_every_kind_of_change_of_the_memory_engine_is_among_the_points(folder: Path) -> None:
    cells = matrix.list_cells(folder, matrix.prepare(folder), 1)
    points = {point for _, point, _, _ in cells}
    verbs = ("prepare", "create", "start", "stop", "update", "delete")
    wanted = {f"memory.container.{verb}" for verb in verbs} | {"converge.settle", "converge.run._advance/commit"}
    wanted |= {f"memory.{kind}.{verb}" for kind in ("network", "volume", "image") for verb in ("create", "delete")}
    assert wanted <= points
    assert {f"{point}:after" for point in wanted} <= points
