"""A controller over a folder, by schedules: what must hold after every step, and that it converges when faults end."""

import datetime

import pytest

from simulation.schedules import Step, shrink
from simulation.serving import make_serving, run_serving

CHUNK = 5
TODAY = datetime.datetime.now(datetime.UTC).date().toordinal() * 50
"""One chunk is another each day."""


@pytest.mark.parametrize("first", [0, TODAY])
def test_x1_x7_x8_a_controller_over_a_folder_loses_nothing_and_converges(first: int) -> None:
    for seed in range(first, first + CHUNK):
        steps, prune = make_serving(seed), seed % 2 == 0
        try:
            run_serving(steps, prune=prune)
        except Exception as error:  # noqa: BLE001 whatever comes out, it should not
            words = repr(error)

            def fails(shorter: list[Step], prune: bool = prune, words: str = words) -> bool:
                try:
                    run_serving(shorter, prune=prune)
                except Exception as again:  # noqa: BLE001
                    return repr(again)[:30] == words[:30]
                return False

            shortest = "\n  ".join(map(str, shrink(steps, fails)))
            pytest.fail(f"{words}\nPYTHONPATH=tests python -m simulation --serve --seed {seed}\nshrunk to\n  {shortest}")
