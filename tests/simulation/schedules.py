"""A seed → a schedule: what people, other programs and failures do to a root, one step after another. Pure.

Each step carries all that it needs, so that a schedule may be cut anywhere and what is left is a schedule still.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

STACKS = ("blog", "shop")
NAMES = ("web", "cache", "db", "worker")
PARTS = ("link/front", "monitor", "mount", "address/front")


class Step(NamedTuple):
    """One step. `seed` draws what it is about; a fault strikes at a hit of a failpoint counted from its beginning."""

    verb: str
    stack: str
    name: str
    seed: int
    fault: str = ""
    """die | fail | other: the client dies, the call fails with an errno, another client acts in between."""
    hit: int = 0

    def __str__(self) -> str:
        about = {"apply": f"version {self.seed}", "edit": f"version {self.seed}"}.get(self.verb, self.name)
        then = {"die": "the client dies", "fail": "a call fails", "other": "another client acts"}.get(self.fault, "")
        return f"{self.verb} {self.stack} {about}" + (f", {then} at point {self.hit}" if then else "")


WEIGHTS = {
    "apply": 10, "delete": 2, "stop": 2, "start": 2, "pause": 1, "rollback": 2, "boot": 2, "exit": 3, "drift": 3,
    "vanish": 2, "publish": 2, "registry": 1, "lost-write": 2, "half-file": 1, "delete-key": 2, "delete-data": 1,
    "sick": 1,
}  # fmt: skip


def make_schedule(seed: int) -> list[Step]:
    """The schedule of a seed: the same on every machine and every Python."""
    dice = random.Random(seed)
    return list(_steps(dice, dice.randint(3, 9)))


def _steps(dice: random.Random, count: int) -> Iterator[Step]:
    verbs = list(WEIGHTS)
    for number in range(count):
        verb = "apply" if number == 0 else dice.choices(verbs, list(WEIGHTS.values()))[0]
        fault = dice.choices(("", "die", "fail", "other"), (5, 4, 2, 2))[0]
        yield Step(
            verb=verb, stack=dice.choice(STACKS), name=dice.choice(NAMES), seed=dice.randrange(1 << 30),
            fault=fault, hit=dice.randrange(60) if fault else 0,
        )  # fmt: skip


def shrink(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """A shorter schedule that fails as well: pieces are left out, halves first, then single steps, then faults."""
    size = max(1, len(steps) // 2)
    while size:
        at = 0
        while at < len(steps):
            shorter = steps[:at] + steps[at + size :]
            if shorter and fails(shorter):
                steps = shorter
            else:
                at += size
        size //= 2
    for at, step in enumerate(steps):
        plain = [*steps[:at], step._replace(fault="", hit=0), *steps[at + 1 :]]
        if step.fault and fails(plain):
            steps = plain
    return steps
