"""Some cells of the matrix on runc, other ones each day; `scripts/torture --only matrix` runs all of them."""

import os
import time

import matrix
import pytest

from lab.world import World

COUNT = 2
SEED = "POINTS_SEED"
"""The environment's name for a seed: with it a failed choice is had again."""


@pytest.mark.root
@pytest.mark.timeout(300)
def test_x1_a_fault_at_any_point_is_taken_up_by_two_applies(world: World) -> None:
    """On failure run `CELLS` again: POINTS_CELL='second converge.settle 1 kill' pytest tests/faults/test_real_matrix.py."""
    if only := os.environ.get("POINTS_CELL"):
        chosen = [matrix.Cell.parse(only)]
    else:
        seed = int(os.environ.get(SEED, time.time() // 86400))
        print(f"{SEED}={seed}")
        chosen = matrix.choose_cells(matrix.list_cells(world), COUNT, seed)
    wrong = []
    for cell in chosen:
        found = [f"{cell}: {line}" for line in matrix.run_cell(world, cell)]
        wrong += found
        print(f"{'wrong' if found else 'well '} {cell}", flush=True)
        if found:
            break  # The world may hold what was left.
    assert wrong == [], "\n".join(wrong)


WRONG_ONCE = (
    "first engine.native.layers.layer._staging/rmdir 2 hang",  # a layer half-made stayed after a prune
    "delete engine.native.net.veth.remove_links/unlink 2 kill",  # what a network says of itself stayed
    "first engine.native.keepsakes.write_keepsake/rename 1 kill",  # and so did half of it
    "first engine.native.net.dns._move_out/write 1 raise",  # told as a mistake of ours
    "second engine.native.runtime.runc.forget/rmdir 1 raise",  # told as Python tells it
    "delete engine.native.volumes.managed.remove_volume/unlink 2 kill",  # the folder of a volume whose data was gone stayed
    "first verbs.reserve.keep_reserve/rename 1 kill",  # the reserve's megabytes stayed under another name
    "delete engine.native.engine.remove_run/rmdir 1 hang",  # its folder stayed where it was unmounted, and no more
    "delete converge.settle:after 4 kill",  # the run directory stayed, and a second delete knew no such stack
)


@pytest.mark.root
@pytest.mark.parametrize("cell", WRONG_ONCE)
def test_x1_cells_that_were_wrong_once(world: World, cell: str) -> None:
    assert matrix.run_cell(world, matrix.Cell.parse(cell)) == []
