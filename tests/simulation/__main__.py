"""`PYTHONPATH=tests python -m simulation --seed N [--count N] [--shrink]`: schedules replayed, in words.

`--serve`: those of a controller over a folder.
"""

import argparse
import sys
import traceback

from simulation.schedules import make_schedule, shrink
from simulation.serving import make_serving, run_serving
from simulation.worlds import fails_like, run_schedule


def main() -> int:
    words = argparse.ArgumentParser(prog="simulation", description=__doc__)
    words.add_argument("--seed", type=int, default=0, help="the first schedule")
    words.add_argument("--count", type=int, default=1, help="how many, one after another")
    words.add_argument("--shrink", action="store_true", help="look for the shortest schedule that fails as well")
    words.add_argument("--serve", action="store_true", help="those of a controller over a folder")
    asked = words.parse_args()
    if asked.serve:
        return replay_serving(asked.seed, asked.count)
    bad = 0
    for seed in range(asked.seed, asked.seed + asked.count):
        steps = make_schedule(seed)
        try:
            run_schedule(steps, trace=print if asked.count == 1 else lambda _: None)
        except Exception as error:  # noqa: BLE001 whatever it is, it should not have come out
            bad += 1
            print(f"seed {seed}: {traceback.format_exc().splitlines()[-1]}", flush=True)
            if asked.count == 1:
                traceback.print_exc()
            if asked.shrink:
                run_again = shrink(steps, fails_like(error))
                print(f"shrunk from {len(steps)} to {len(run_again)}:", *map(str, run_again), sep="\n  ")
    print(f"{asked.count} schedules, {bad} wrong")
    return 1 if bad else 0


def replay_serving(first: int, count: int) -> int:
    """Those of a controller."""
    bad = 0
    for seed in range(first, first + count):
        try:
            run_serving(make_serving(seed), prune=seed % 2 == 0, trace=print if count == 1 else lambda _: None)
        except Exception:  # noqa: BLE001 whatever it is, it should not have come out
            bad += 1
            print(
                f"seed {seed}: {traceback.format_exc() if count == 1 else traceback.format_exc().splitlines()[-1]}",
                flush=True,
            )
    print(f"{count} schedules, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
