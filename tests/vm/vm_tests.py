"""What needs another machine than this one: power cuts, and cgroup v2 alone. Started by scripts/vm-tests."""

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from cgroup2 import run_suite
from cut_kinds import KINDS, big_image, big_name
from power_cuts import ENOUGH, Cuts, Score

from conftest import fill_storage
from lab.images import lab_images, push
from lab.registry import free_port, start_registry
from lab.world import REPOSITORY

PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "mkfs.ext4": "e2fsprogs"}


def main() -> int:
    """Run as the options say; 1 where anything was lost or leaked, or a test failed."""
    options = argparse.ArgumentParser(prog="scripts/vm-tests", description=__doc__)
    options.add_argument("part", nargs="?", choices=("cuts", "cgroup2", "all"), default="all")
    options.add_argument("--rounds", type=int, default=10, help="how many cuts of each kind (default 10)")
    options.add_argument("--seed", type=int, default=1, help="the same seed draws the same rounds")
    options.add_argument("--kind", choices=sorted(KINDS), action="append", help="cut this only")
    options.add_argument("--folder", type=Path, help="where disks and findings are kept (default: a new one)")
    wanted = options.parse_args()
    if not _is_ready():
        return 1
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="vm-tests-", dir="/var/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    out = partial(print, flush=True)
    score, failed = Score(), 0
    if wanted.part in ("cuts", "all"):
        storage = _fill_registry(folder, wanted.seed, wanted.rounds)
        for kind in wanted.kind or KINDS:
            first = KINDS[kind].first_flushes
            found = Cuts(kind, folder, storage, wanted.seed, wanted.rounds, out, first_flushes=first).go()
            out(f"{kind}: {found}")
            score += found
    if wanted.part in ("cgroup2", "all"):
        suite = run_suite(folder, out)
        failed = len(suite.failed) or suite.code
        out(f"cgroup v2: {suite}" + (f"; its log: {folder / 'cgroup2.log'}" if failed else ""))
    bad = score.lost + score.leaked + failed
    if not bad and not wanted.folder:
        shutil.rmtree(folder)
    out(f"{score}, tests failed {failed}")
    return 1 if bad else 0


def _is_ready() -> bool:
    """Whether this machine can make one; says what is missing, and how to get it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if os.geteuid() != 0:
        print("vm-tests: root is needed: the virtual machine reads this one's file system", file=sys.stderr)
        return False
    if missing:
        print(f"vm-tests: missing: {', '.join(missing)}\n  hint: apt-get install {' '.join(missing)}", file=sys.stderr)
        return False
    # Without bytecode each command of the machine would compile what it imports, at a thirtieth of the speed.
    compileall.compile_dir(REPOSITORY / "reconciler", quiet=2)
    compileall.compile_dir(REPOSITORY / "tests", quiet=2)
    tried = subprocess.run([REPOSITORY / "tests/vm/run", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        print(f"vm-tests: no virtual machine boots here\n{tried.stderr}{tried.stdout[-500:]}", file=sys.stderr)
    return tried.returncode == 0


def _fill_registry(folder: Path, seed: int, rounds: int) -> Path:
    """The storage of a registry with the lab's images, and one for each pull that is cut."""
    storage = folder / "registry"
    if storage.exists():
        shutil.rmtree(storage)
    fill_storage(storage, folder)
    registry = start_registry(storage, folder / "filling", port=free_port(5100))
    try:
        for boot in range(1, rounds + 1 + 2 * ENOUGH):
            push(registry.url, big_name(boot), big_image(lab_images()["busybox:1"], seed, boot))
    finally:
        registry.stop()
    return storage


if __name__ == "__main__":
    sys.exit(main())
