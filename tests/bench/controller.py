"""How fast a controller takes up what happens, and what it costs while nothing does. Prints a table.

`python tests/bench/controller.py [--rounds 5] [--idle 60]`, as root, on an otherwise quiet machine: 20 stacks of one
container in a watched folder. Times are from the act (a file renamed into place, rules flushed) to what a user sees.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conftest import fill_storage
from lab.world import World, open_world, wait_until

STACKS = 20
MANIFEST = """\
apiVersion: reconcile/v1
name: s{number}
networks: {{net: {{}}}}
containers:
  web:
    image: 127.0.0.1:5000/web:1
    networks: [net]
    env: {{ROUND: "{round}"}}
    ports: ["127.0.0.1:{port}:8080"]
"""


def write(folder: Path, number: int, round_number: int) -> None:
    """One stack's manifest, renamed into place."""
    staged = folder / f".s{number}.new"
    staged.write_text(MANIFEST.format(number=number, round=round_number, port=9000 + number))
    staged.rename(folder / f"s{number}.yaml")


def took(act: Callable[[], object], seen: Callable[[], object], what: str) -> float:
    """Seconds from an act to what is seen of it."""
    begun = time.perf_counter()
    act()
    wait_until(seen, what, seconds=60)
    return time.perf_counter() - begun


def answers(world: World, number: int) -> bool:
    with suppress(OSError):
        return "It works" in world.fetch(f"http://127.0.0.1:{9000 + number}/")
    return False


def measure_idle(pid: int, seconds: float) -> tuple[float, int]:
    """MiB of PSS, and system calls that returned in so many seconds, as strace counts them."""
    pss = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert pss is not None
    traced = subprocess.run(
        ["timeout", "-s", "INT", str(seconds), "strace", "-f", "-qq", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    calls = [
        line for line in traced.stderr.splitlines() if "= ?" not in line and "<unfinished" not in line and "= " in line
    ]
    return int(pss[1]) / 1024, len(calls)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--idle", type=float, default=60.0)
    asked = words.parse_args()
    top = Path(tempfile.mkdtemp(prefix="bench-controller-"))
    fill_storage(top / "storage", top)
    world = open_world(top / "world", top / "storage")
    folder = top / "stacks"
    folder.mkdir()
    for number in range(STACKS):
        write(folder, number, 0)
    served = world.popen("serve", "--watch", str(folder), "--poll", "1h", "--resync", "1h")
    try:
        first = took(lambda: None, lambda: all(answers(world, n) for n in range(STACKS)), "all stacks are up")
        print(f"{STACKS} stacks from nothing, with pull: {first:.2f} s", flush=True)
        rows: dict[str, list[float]] = {"file saved to new container seen": [], "rules flushed to page served": []}
        for number in range(1, asked.rounds + 1):
            pid = world.pid(f"s{number}/web")
            rows["file saved to new container seen"].append(
                took(
                    lambda number=number: write(folder, number, number),
                    lambda number=number, pid=pid: world.pid(f"s{number}/web") not in (0, pid) and answers(world, number),
                    "it is replaced",
                )
            )
            rows["rules flushed to page served"].append(
                took(
                    lambda: world.nsenter("nft", "flush", "ruleset"),
                    lambda number=number: answers(world, number),
                    "the page is served",
                )
            )
        for name, times in rows.items():
            print(f"{name}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})", flush=True)
        [pid] = [int(one) for one in subprocess.run(
            ["pgrep", "-f", f"serve --watch {folder}"], capture_output=True, text=True, check=True
        ).stdout.split() if "nsenter" not in Path(f"/proc/{one}/comm").read_text()]  # fmt: skip
        time.sleep(25)  # A bridge tells of a new port once more, after its forward delay of 15 s.
        pss, calls = measure_idle(pid, asked.idle)
        print(f"idle with {STACKS} containers: {pss:.1f} MiB PSS, {calls} system calls in {asked.idle:g} s", flush=True)
    finally:
        world.signal(served)
        world.close()
        shutil.rmtree(top, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
