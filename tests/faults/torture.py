"""Faults on the real kernel for as long as asked, judged after each: what scripts/torture runs.

`random` and its parts draw rounds of harm (harms.py) to two stacks (ordeal.py); `matrix` goes through the cells of the
matrix of failpoints (matrix.py) in an order that the seed draws; `leaks` makes rounds without a fault (leaks.py);
`nth` fails single system calls (nth.py).
The same seed draws the same rounds; the kernel's timing is not drawn. What is found is kept in a folder that is named.
"""

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matrix
import nth
from census import inside
from forked import ForkedWorld
from harms import FAULTS
from leaks import LONG, run_leaks
from ordeal import Leaked, Ordeal
from serving import Served, kill_controller

from lab.world import World, open_world

CONTROLLER = {"killed controller": (1, kill_controller)}
PARTS = {
    "points": ("failpoint",),
    "two": ("stopped client", "two applies", "verb beside apply"),
    "random": tuple(FAULTS),
    "serve": tuple(CONTROLLER),
}


@dataclass
class Score:
    """What came of a run."""

    rounds: int = 0
    faults: int = 0
    lost: int = 0
    leaked: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    """What failed, in words that run it again."""

    def __str__(self) -> str:
        return f"rounds {self.rounds}, faults {self.faults}, lost {self.lost}, leaked {self.leaked}"

    def count(self, kind: str) -> None:
        """A round begins."""
        self.rounds += 1
        self.faults += 1
        self.kinds[kind] += 1


def keep_root(world: World, where: Path) -> None:
    """Copy a root beside its story, but for its images."""
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(inside(world, world.root), where / "root", ignore=shutil.ignore_patterns("layers", "content"))


@dataclass
class Run:
    """Rounds until `until` says enough; of a world that fails its story is kept, and another one is opened."""

    folder: Path
    storage: Path
    seed: int
    names: tuple[str, ...]
    until: Callable[[Score], bool]
    out: Callable[[str], None] = print
    traced: Sequence[str] = matrix.STEPS
    """The steps whose failpoints are used."""
    each_world: int = 40
    score: Score = field(default_factory=Score)
    points: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def go(self) -> Score:
        """Run worlds until it is enough."""
        if self.traced and {"failpoint", *CONTROLLER} & set(self.names):
            with contextlib.closing(open_world(self.folder / "traced", self.storage)) as world:
                self.points = matrix.list_points(matrix.list_cells(world, self.traced))
        began, number = time.monotonic(), 0
        while not self.until(self.score):
            number += 1
            self._live(number)
            self.score.seconds = time.monotonic() - began
        return self.score

    def _live(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        folder = self.folder / f"world-{number}"
        world = open_world(folder, self.storage)
        kind = Served if set(self.names) <= set(CONTROLLER) else Ordeal
        it = kind(world, chance, small=kind is Ordeal and chance.random() < 0.4, points=self.points)
        done = 0
        try:
            it.begin()
            while done < self.each_world and not self.until(self.score):
                done += 1
                self._round(it, number, done)
            it.world.assert_nothing_left(seconds=10)
        except (AssertionError, OSError, LookupError, ValueError) as error:  # whatever an answer without sense makes of us
            leaked = isinstance(error, Leaked) or "nothing is left" in str(error)
            self.score.leaked += leaked
            self.score.lost += not leaked
            self._keep(it, number, done, error)
        finally:
            world.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _round(self, it: Ordeal, number: int, done: int) -> None:
        faults = FAULTS | CONTROLLER
        weights = [faults[name][0] for name in self.names]
        [name] = it.chance.choices(self.names, weights)
        it.said, it.world.transcript[:] = [name], []
        began = time.monotonic()
        self.score.count(name)
        faults[name][1](it)
        it.judge()
        took = time.monotonic() - began
        self.out(f"{number}.{done} {took:5.1f} s  {'; '.join(it.said)}")

    def _keep(self, it: Ordeal, number: int, done: int, error: Exception) -> None:
        where = self.folder / f"found-{number}.{done}"
        where.mkdir(parents=True)
        story = [f"seed {self.seed}, world {number}, round {done}: {'; '.join(it.said)}", str(error), ""]
        lines = traceback.format_exception(error)
        (where / "story.txt").write_text("\n\n".join([*story, *lines, *map(str, it.world.transcript)]))
        (where / "versions.json").write_text(json.dumps(it.versions, indent=1))
        keep_root(it.world, where)
        self.score.wrong.append(story[0])
        self.out(f"FOUND {story[0]}\n  {str(error)[:2000]}\n  its story, versions and root: {where}")


@dataclass
class Cells:
    """The cells of the matrix, in an order that the seed draws, until it is enough; a cell that fails ends its world."""

    folder: Path
    storage: Path
    seed: int
    until: Callable[[Score], bool]
    out: Callable[[str], None] = print
    steps: Sequence[str] = matrix.STEPS
    share: tuple[int, int] = (1, 1)
    """Which of how many shares: together they are all cells, for several processes or several days."""
    done: frozenset[str] = frozenset()
    """Those that are not run again."""
    score: Score = field(default_factory=Score)
    total: int = 0

    def go(self) -> Score:
        """Run cells until it is enough, or all were run."""
        began, world, number = time.monotonic(), self._open(0), 0
        try:
            cells = matrix.list_cells(world, self.steps)
            self.total = len(cells)
            self.out(f"{len(cells)} cells of {sum(map(len, matrix.list_points(cells).values()))} points in steps")
            for cell in matrix.order_cells(cells, self.seed, self.share):
                if str(cell) in self.done:
                    continue
                if self.until(self.score):
                    break
                if not self._run(world, cell):
                    number += 1
                    world.close()
                    world = self._open(number)
                self.score.seconds = time.monotonic() - began
        finally:
            world.close()
        return self.score

    def _open(self, number: int) -> World:
        return open_world(self.folder / f"world-{number}", self.storage, ForkedWorld)

    def _run(self, world: World, cell: matrix.Cell) -> bool:
        """Whether all was well."""
        self.score.count(cell.step)
        world.transcript.clear()
        began = time.monotonic()
        try:
            wrong = matrix.run_cell(world, cell)
        except (AssertionError, OSError, LookupError, ValueError) as error:
            wrong = ["".join(traceback.format_exception(error))]
        self.out(f"{self.score.rounds} {time.monotonic() - began:5.1f} s  {'WRONG' if wrong else 'well'} {cell}")
        if not wrong:
            return True
        leaked = all(map(matrix.tells_of_leak, wrong))
        self.score.leaked += leaked
        self.score.lost += not leaked
        self._keep(world, cell, wrong)
        return False

    def _keep(self, world: World, cell: matrix.Cell, wrong: list[str]) -> None:
        where = self.folder / f"found-{self.score.rounds}"
        where.mkdir(parents=True)
        (where / "story.txt").write_text("\n\n".join([str(cell), *wrong, *map(str, world.transcript)]))
        keep_root(world, where)
        again = f"POINTS_CELL='{cell}' pytest tests/faults/test_real_matrix.py"
        self.score.wrong.append(again)
        self.out(f"FOUND {again}\n  {wrong[0][:2000]}\n  its story and root: {where}")


def run_rounds(part: str, folder: Path, storage: Path, wanted: argparse.Namespace) -> Score:
    """Random rounds, or cells, for so long; prints figures as it goes."""
    seed, seconds = wanted.seed, wanted.minutes * 60
    end = time.monotonic() + seconds

    def enough(_: Score) -> bool:
        return time.monotonic() >= end

    def out(text: str) -> None:
        print(text, flush=True)

    if part == "leaks":
        leaks = run_leaks(folder, storage, out)
        return Score(sum(rounds for rounds, _ in LONG.values()), leaked=len(leaks), wrong=leaks)
    if part == "nth":
        told, wrong = nth.try_many(folder, storage, seed, seconds)
        return Score(
            rounds=told.total(), faults=told.total() - told["not reached"], kinds=told, lost=len(wrong), wrong=wrong
        )
    if part != "matrix":
        return Run(folder, storage, seed, PARTS[part], enough, out).go()
    cells = Cells(folder, storage, seed, enough, out, wanted.step or matrix.STEPS, wanted.share, read_done(wanted.done))
    score = cells.go()
    print(f"{score.rounds} of {cells.total} cells run, {len(score.wrong)} failed")
    return score


def parse_share(text: str) -> tuple[int, int]:
    """`2/3`. Raises argparse.ArgumentTypeError."""
    number, slash, shares = text.partition("/")
    if not (slash and number.isdecimal() and shares.isdecimal() and 1 <= int(number) <= int(shares)):
        raise argparse.ArgumentTypeError(f"{text}: a share is written 2/3")
    return int(number), int(shares)


def read_done(printed: Sequence[Path]) -> frozenset[str]:
    """The cells that were run, in what was printed."""
    lines = [line for path in printed for line in path.read_text().splitlines()]
    return frozenset(line.partition(" s  well ")[2] for line in lines if " s  well " in line)


def main() -> int:
    """Run as the options say; 1 where anything was lost or leaked."""
    options = argparse.ArgumentParser(prog="scripts/torture", description=__doc__)
    options.add_argument("--minutes", type=float, default=1.0, help="how long in all (of leaks: as long as they take)")
    options.add_argument("--seed", type=int, default=1, help="the same seed draws the same rounds")
    options.add_argument(
        "--only", choices=sorted([*PARTS, "matrix", "leaks", "nth"]), default="random", help="only this part"
    )
    options.add_argument(
        "--step", action="append", choices=matrix.STEPS, help="of the matrix: only this one; may be repeated"
    )
    options.add_argument("--share", type=parse_share, default=(1, 1), help="of the matrix: which share of how many, 2/3")
    options.add_argument(
        "--done", type=Path, nargs="*", default=[], help="of the matrix: logs; what was well is not run again"
    )
    options.add_argument("--folder", type=Path, help="where findings are kept (default: a new one)")
    wanted = options.parse_args()
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    storage = folder / "registry"
    from conftest import fill_storage

    if not storage.exists():
        fill_storage(storage, folder)
    score = run_rounds(wanted.only, folder, storage, wanted)
    print(", ".join(f"{name}: {times}" for name, times in sorted(score.kinds.items())))
    print("".join(f"failed: {line}\n" for line in score.wrong), end="")
    if not score.lost + score.leaked and not wanted.folder:
        shutil.rmtree(folder)
    print(score)
    return 1 if score.lost or score.leaked else 0


if __name__ == "__main__":
    sys.exit(main())
