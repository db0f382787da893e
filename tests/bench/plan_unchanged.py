"""Measures `plan()` of 10,000 unchanged resources, and of as many new ones. In memory: no engine, store or manifest.

PYTHONPATH=tests python tests/bench/plan_unchanged.py [--profile]
"""

import copy
import cProfile
import statistics
import sys
import time

import msgspec

from plan.builders import AA, Known, container, desire, stack, volume_at
from reconciler.model.observation import Part
from reconciler.model.plan import Plan
from reconciler.model.record import Desired, ImageFact
from reconciler.model.spec import Dependency, Healthcheck

CONTAINERS = 9_900
ROUNDS = 7


def make_wish() -> Desired:
    """One stack of 10,000 resources: an image whose VOLUME and HEALTHCHECK must be folded in, networks, containers."""
    containers = {
        f"c{number}": container(
            networks=(f"n{number % 50}",),
            env={"A": str(number), "B": "2", "C": "3"},
            ports={f"127.0.0.1:{10_000 + number}/tcp": 80},
            labels={"team": "x"},
            command=("serve", "--port", "80"),
            mounts=volume_at("/data", f"v{number % 49}"),
            depends_on={"c0": Dependency(condition="started")} if number else {},
        )
        for number in range(CONTAINERS)
    }
    fact = ImageFact(digest=AA, local=True, volumes=("/data",), healthcheck=Healthcheck(test=("CMD", "true")))
    return desire(stack(**containers), facts={"app": fact})


def median_of(known: Known, wish: Desired) -> tuple[float, Plan]:
    """Seconds of one plan, over some rounds, and the plan."""
    took = []
    plan = known.plan_desired(wish)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        plan = known.plan_desired(wish)
        took.append(time.perf_counter() - began)
    return statistics.median(took), plan


def main() -> None:
    """Print the two numbers."""
    wish = make_wish()
    known = Known.of(*wish.stacks, facts={"app": wish.images[next(iter(wish.images))]})
    parts = {name: Part() for name in ("mount", "netns", "rules")}
    known = Known(
        stacks=known.stacks,
        # As from a store: equal, and none of it the same object.
        records={
            key: msgspec.structs.replace(record, spec=copy.deepcopy(record.spec)) for key, record in known.records.items()
        },
        statuses={key: msgspec.structs.replace(status, parts=parts) for key, status in known.statuses.items()},
    )
    if "--profile" in sys.argv:
        cProfile.runctx("known.plan_desired(wish)", globals(), {"known": known, "wish": wish}, sort="cumulative")
        return
    for title, start in (("unchanged", known), ("new", Known())):
        seconds, plan = median_of(start, wish)
        print(f"plan of {len(plan.specs)} {title} resources: {seconds:.3f} s, {len(plan.actions)} actions")


if __name__ == "__main__":
    main()
