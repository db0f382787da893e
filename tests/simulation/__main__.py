"""`PYTHONPATH=tests python -m simulation --seed N [--count N] [--shrink]`: schedules replayed, in words."""

import argparse
import sys
import traceback

from simulation.schedules import Step, make_schedule, shrink
from simulation.worlds import run_schedule


def fails(steps: list[Step]) -> bool:
    try:
        run_schedule(steps)
    except Exception:  # noqa: BLE001 whatever it is, it should not have come out
        return True
    return False


def main() -> int:
    words = argparse.ArgumentParser(prog="simulation", description=__doc__)
    words.add_argument("--seed", type=int, default=0, help="the first schedule")
    words.add_argument("--count", type=int, default=1, help="how many, one after another")
    words.add_argument("--shrink", action="store_true", help="look for the shortest schedule that fails as well")
    asked = words.parse_args()
    bad = 0
    for seed in range(asked.seed, asked.seed + asked.count):
        steps = make_schedule(seed)
        try:
            run_schedule(steps, trace=print if asked.count == 1 else lambda _: None)
        except Exception:  # noqa: BLE001
            bad += 1
            print(f"seed {seed}: {traceback.format_exc().splitlines()[-1]}", flush=True)
            if asked.count == 1:
                traceback.print_exc()
            if asked.shrink:
                run_again = shrink(steps, fails)
                print(f"shrunk from {len(steps)} to {len(run_again)}:", *map(str, run_again), sep="\n  ")
    print(f"{asked.count} schedules, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
