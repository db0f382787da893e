"""Two thousand schedules; of each what must hold after every step, and that it converges when faults end."""

import datetime

import pytest

from simulation.schedules import make_schedule, shrink
from simulation.worlds import fails_like, run_schedule

CHUNK = 125
FIXED = range(0, 1750, CHUNK)
TODAY = datetime.datetime.now(datetime.UTC).date().toordinal() * 250
"""Two chunks are others each day, so that a year of runs sees ninety thousand."""


@pytest.mark.parametrize("first", [*FIXED, TODAY, TODAY + CHUNK])
def test_x1_x2_x8_x10_schedules_converge_and_nothing_is_lost(first: int):
    for seed in range(first, first + CHUNK):
        steps = make_schedule(seed)
        try:
            run_schedule(steps)
        except Exception as error:  # noqa: BLE001 whatever comes out, it should not
            shortest = "\n  ".join(map(str, shrink(steps, fails_like(error))))
            pytest.fail(f"{error!r}\nPYTHONPATH=tests python -m simulation --seed {seed}\nshrunk to\n  {shortest}")


def test_a_seed_gives_the_same_schedule_and_the_same_course():
    def course(seed: int) -> list[str]:
        said: list[str] = []
        run_schedule(make_schedule(seed), trace=said.append)
        return said

    assert [course(seed) for seed in range(8)] == [course(seed) for seed in range(8)]
