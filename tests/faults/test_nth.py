"""Some cells of the n-th call that fails, other ones each day; `python -m nth` runs as many as there is time for."""

import os
import random
import shutil
import time

import nth
import pytest

from lab.world import World

COUNT = 2
SEED = "NTH_SEED"
"""The environment's name for a seed: with it a failed choice is had again."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="skipped because gcc is not installed"),
]


def test_x3_nth_call_that_fails_is_told_and_taken_up_by_two_applies(world: World) -> None:
    seed = int(os.environ.get(SEED, time.time() // 86400))
    print(f"{SEED}={seed}")
    chance = random.Random(seed)
    failing = nth.Nth(world)
    step = chance.choice(nth.STEPS)
    for cell in [failing.draw(chance, step) for _ in range(COUNT)]:
        outcome = failing.try_cell(cell)
        print(f"{cell}: {outcome.hit or 'not reached'}: {outcome.told}")
        assert outcome.wrong == [], "\n".join([str(cell), outcome.hit, *outcome.wrong])
    assert failing.finish() == []
