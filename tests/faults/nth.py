"""The n-th call of a kind fails in an apply, a delete or a boot of the real engine: the cells, and what comes of one.

A cell is a step of the matrix's scenario, a kind of call (open, write, sync, rename, mount, send, spawn, lock …), an errno,
and a number: of all such calls that the process makes from the moment it touches its root, in whichever thread, SQLite's
included, that one fails, or (`12+`) that one and all after it. nth.c does it, preloaded into the one process.

What must come of it: done all the same, or an error in words; who was not named keeps its pid; then at most two applies
converge, and after a delete nothing is left. `scripts/torture --only nth` runs random cells,
`PYTHONPATH=.:tests:tests/faults python -m nth 'second write ENOSPC 12+'` one.
"""

import argparse
import errno
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matrix

from lab.world import REPOSITORY, Result, World, open_world, wait_until

ERRNOS = {
    "open": ("EIO", "EMFILE", "ENOSPC", "ENOMEM", "EINTR"),
    "read": ("EIO", "EINTR"),
    "write": ("ENOSPC", "EIO", "EINTR"),
    "sync": ("EIO", "ENOSPC"),
    "size": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC"),
    "unlink": ("EIO",),
    "mkdir": ("ENOSPC", "EIO"),
    "link": ("ENOSPC", "EIO"),
    "attributes": ("EIO", "ENOSPC"),
    "look": ("EIO", "ENOMEM"),
    "list": ("EIO", "EMFILE"),
    "descriptor": ("EMFILE", "ENFILE", "ENOMEM"),
    "lock": ("EIO", "ENOLCK", "EINTR"),
    "mount": ("ENOMEM", "EIO", "ENOSPC"),
    "send": ("ENOBUFS", "ENOMEM", "EINTR"),
    "receive": ("EIO", "ENOBUFS", "EINTR"),
    "wait": ("EINTR", "ENOMEM"),
    "memory": ("ENOMEM",),
    "spawn": ("ENOMEM", "EAGAIN"),
    "thread": ("EAGAIN",),
    "copy": ("EIO", "ENOSPC"),
}
"""Kinds of calls (nth.c), and with what they may fail."""

STEPS = ("first", "second", "delete", "boot")
_SOURCE = Path(__file__).with_suffix(".c")
_ENDS = (0, 1)
_ROUNDS = 12
"""Cells of `second` in one root, which goes from one version to the other and back."""
_PYTHONS_OWN = "Exception ignored in thread started by"
"""Python 3.11 waits without end for a thread that had no memory for its first step."""


@dataclass(frozen=True)
class Cell:
    """`second write ENOSPC 12+`."""

    step: str
    kind: str
    errno: str
    nth: int
    on: bool = False

    def __str__(self) -> str:
        return f"{self.step} {self.kind} {self.errno} {self.nth}{'+' if self.on else ''}"

    @classmethod
    def parse(cls, text: str) -> "Cell":
        """The cell of its own words."""
        step, kind, refusal, nth = text.split()
        return cls(step, kind, refusal, int(nth.rstrip("+")), nth.endswith("+"))


@dataclass(frozen=True)
class Outcome:
    """What came of a cell."""

    wrong: list[str]
    hit: str
    """What failed, `write /…/reconcile.db-wal`; empty where there were fewer calls this time."""
    said: Result

    @property
    def told(self) -> str:
        """How the command took it."""
        if _PYTHONS_OWN in self.said.err:
            return "hung in Python"
        if self.said.code == 0:
            return "went on"
        return "the machine refused" if "the machine refused" in self.said.err else "named"


class Nth:
    """The preload, made once, and the scenario in one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.scenario = matrix.Scenario(world)
        self.preload = world.folder / "nth.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", self.preload, _SOURCE, "-ldl"], check=True, timeout=60)
        self._counts: dict[str, Counter[str]] = {}
        self._rounds = 0
        self._version = 1

    def count(self, step: str) -> Counter[str]:
        """How many calls of each kind a step makes when all is well."""
        if step not in self._counts:
            self.finish()
            self.scenario.begin()
            self.scenario.lead_up(step)
            self._run(step, {})
            self._counts[step] = Counter(line.split(" ", 1)[0] for line in self._log().read_text().splitlines())
            matrix.end(self.scenario)
        return self._counts[step]

    def draw(self, chance: random.Random, step: str) -> Cell:
        """Some cell: the first call and the last one more often than another."""
        counts = self.count(step)
        kind = chance.choice(sorted(counts.keys() & ERRNOS.keys()))
        most = counts[kind]
        nth = chance.choice((1, most, *(chance.randint(1, most) for _ in range(8))))
        refusal = chance.choice(ERRNOS[kind])
        # Whoever is interrupted tries again: for ever, were it for ever.
        return Cell(step, kind, refusal, nth, on=refusal != "EINTR" and chance.random() < 0.25)

    def try_cell(self, cell: Cell) -> Outcome:
        """Run it. Raises AssertionError where the lab itself fails, or a traceback was printed."""
        scenario, world = self.scenario, self.world
        self._prepare(cell.step)
        kept = 0 if cell.step in ("first", "boot") else world.pid("cells/kept")
        number = getattr(errno, cell.errno)
        said = self._run(cell.step, {"NTH_FAIL": f"{cell.kind} {number} {cell.nth}{' on' if cell.on else ''}"})
        failed = [line for line in self._log().read_text().splitlines() if line.startswith("FAILED ")]
        wrong = list(_judge_words(said))
        if cell.step == "delete":
            wrong += matrix.finish_delete(scenario)
        else:
            if kept and world.pid("cells/kept") != kept:
                wrong.append("the container that no change named was started anew")
            if cell.step == "second" and not cell.on and not _answers(world, 8081):
                wrong.append(f"neither the old one nor the new one serves\n{said}")
            wrong += matrix.converge(scenario)
            wrong += matrix.look(scenario, self._version, kept=kept, data=cell.step != "first")
        if cell.step != "second" or self._rounds >= _ROUNDS:
            wrong += self.finish()
        return Outcome(wrong, failed[0].split(" ", 1)[1] if failed else "", said)

    def _prepare(self, step: str) -> None:
        """Bring everything to where the step begins."""
        if step == "second" and self._rounds > 0:
            self._rounds += 1
            self._version = 3 - self._version
            self.world.write(matrix.manifest(self._version))
            self._log().unlink()
            return
        self.finish()
        self.scenario.begin()
        self.scenario.lead_up(step)
        self._rounds, self._version = 1, 2 if step == "second" else 1

    def finish(self) -> list[str]:
        """Delete what is there; what is left then."""
        begun, self._rounds = self._rounds, 0
        return matrix.end(self.scenario) if begun else []

    def _log(self) -> Path:
        return self.scenario.trace.with_name("calls")

    def _run(self, step: str, environment: dict[str, str]) -> Result:
        imported = (Path(sys.prefix), REPOSITORY, *map(Path, filter(None, sys.path)))
        skipped = {"/usr", "/lib", *(str(path) for one in imported for path in (one.absolute(), one.resolve()))}
        environment |= {
            "LD_PRELOAD": str(self.preload),
            "NTH_FROM": str(self.world.root),
            "NTH_SKIP": ":".join(sorted(skipped)),
            "NTH_LOG": str(self._log()),
            "PYTHONSAFEPATH": "1",  # What is imported is not looked for in the world's folder.
            "RECONCILE_DEBUG": "",
        }
        try:
            return self.world.run(*self.scenario.command(step), env=environment, timeout=60)
        except AssertionError as hung:
            if _PYTHONS_OWN not in str(hung):
                raise
            return Result(step, 1, "", f"error: {hung}")


def _answers(world: World, port: int) -> bool:
    try:
        wait_until(lambda: world.fetch(f"http://127.0.0.1:{port}/"), "", seconds=5)
    except AssertionError:
        return False
    return True


def _judge_words(said: Result) -> Iterator[str]:
    """What is wrong with how a command ended."""
    if _PYTHONS_OWN in said.err:
        return
    unreadable = said.code == 65 and "can't be read" in said.err  # the manifest
    if said.code not in _ENDS and not unreadable:
        yield f"exit {said.code}\n{said}"
    elif said.code and not unreadable and not re.search(r"^\s*(error|.*failed)", said.err + said.out, re.MULTILINE):
        yield f"it failed without a word\n{said}"
    if "mistake in reconcile" in said.err + said.out or re.search(r"\b[A-Z]\w+Error\b|\[Errno", said.err + said.out):
        yield f"told as a mistake of ours\n{said}"


def main() -> int:
    """One cell; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description="the n-th call of a kind fails; scripts/torture --only nth draws cells")
    parser.add_argument("cell", help="'second write ENOSPC 12+'")
    cell = Cell.parse(parser.parse_args().cell)
    from conftest import fill_storage

    folder = Path(tempfile.mkdtemp(prefix="nth-"))
    fill_storage(folder / "registry", folder)
    world = open_world(folder / "world", folder / "registry")
    try:
        outcome = Nth(world).try_cell(cell)
    finally:
        world.close()
        shutil.rmtree(folder)
    print(outcome.said, f"failed: {outcome.hit or 'nothing'}", *outcome.wrong, sep="\n")
    return bool(outcome.wrong)


def try_many(folder: Path, storage: Path, seed: int, seconds: float) -> tuple[Counter[str], list[str]]:
    """Cells for so long: how many were taken how, and those that were wrong."""
    chance, deadline = random.Random(seed), time.monotonic() + seconds
    told: Counter[str] = Counter()
    wrong: list[str] = []
    while time.monotonic() < deadline:
        world = open_world(folder / f"world{len(wrong)}", storage)
        try:
            _try_until_wrong(Nth(world), chance, told, wrong, deadline)
        finally:
            world.close()
    return told, wrong


def _try_until_wrong(nth: Nth, chance: random.Random, told: Counter[str], wrong: list[str], deadline: float) -> None:
    """Cells of one step after another. A world in which one was wrong may hold what was left."""
    while True:
        step = chance.choice(STEPS)
        for _ in range(_ROUNDS if step == "second" else 2):
            if time.monotonic() > deadline:
                return
            cell = nth.draw(chance, step)
            if not _tell(nth, cell, told):
                wrong.append(f"{cell}")
                return


def _tell(nth: Nth, cell: Cell, told: Counter[str]) -> bool:
    how = words = hit = ""
    try:
        outcome = nth.try_cell(cell)
        wrong, hit = outcome.wrong, outcome.hit
        how = outcome.told if hit else "not reached"
        words = next((line for line in outcome.said.err.splitlines() if line.strip()), "")
    except AssertionError as error:
        wrong, how = [str(error)], "ended the lab"
    told[how] += 1
    print(f"{'wrong' if wrong else 'well '} {cell}: {hit}: {how}: {words}", *wrong, sep="\n", flush=True)
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
