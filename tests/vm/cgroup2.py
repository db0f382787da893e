"""The tests that touch cgroups, on a kernel that has nothing but cgroup v2: scripts/vm-tests."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lab.world import REPOSITORY

SUITE = (
    "tests/linux/test_cgroups_folders.py",
    "tests/runtime/test_driver.py",
    "tests/runtime/test_lifecycle.py",
    "tests/runtime/test_inside_logs_and_exec.py",
    "tests/runtime/test_hostile.py",
)
"""What limits, freezes, counts, kills and enters; about ten minutes without KVM."""
_LINE = re.compile(r"(\S+?)::(.+) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Suite:
    """How many of each file ended how."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    code: int = 0

    def __str__(self) -> str:
        total: Counter[str] = sum(self.counts.values(), Counter())
        return ", ".join(f"{total[word.upper()]} {word}" for word in ("passed", "failed", "error", "skipped"))


def run_suite(folder: Path, out: Callable[[str], None] = print) -> Suite:
    """Run it in one virtual machine; a line a file as it goes."""
    python = [str(REPOSITORY / ".venv/bin/python"), "-m", "pytest", "-v", "-rf", "--color=no", "-p", "no:cacheprovider"]
    command = [str(REPOSITORY / "tests/vm/run"), "--memory", "4096", *python, "--timeout", "600", *SUITE]
    suite, began, last = Suite(), time.monotonic(), ""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPOSITORY
    )
    assert process.stdout
    with (folder / "cgroup2.log").open("wb", buffering=0) as log:
        for raw in process.stdout:
            log.write(raw)
            found = _LINE.search(_COLOUR.sub("", raw.decode(errors="replace")))
            if not found:
                continue
            file, test, word = found.groups()
            if last and file != last:
                out(_row(last, suite, began))
            suite.counts.setdefault(file, Counter())[word] += 1
            last = file
            if word in ("FAILED", "ERROR"):
                suite.failed.append(f"{file}::{test}")
                out(f"FAILED {file}::{test}")
    suite.code = process.wait()
    if last:
        out(_row(last, suite, began))
    return suite


def _row(file: str, suite: Suite, began: float) -> str:
    words = ", ".join(f"{number} {word.lower()}" for word, number in sorted(suite.counts[file].items()))
    return f"{file}: {words} ({time.monotonic() - began:.0f} s)"
