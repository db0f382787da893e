"""How long it takes from a push until the new container serves, and what asking a branch costs. Prints a table.

`python tests/bench/git.py [--rounds 10]`, as root: three stacks of one container in a repository on this disk. The
controller is told of each push by SIGHUP, as it would be by a webhook.
"""

import argparse
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

# Order: this folder has a controller.py too, which is another one.
sys.path.remove(str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conftest import fill_storage
from controller.gitlab import Pushed
from lab.world import World, open_world, wait_until
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.gitplace import parse_place

STACKS = 3
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


def stack(number: int, round_number: int) -> dict[str, str | None]:
    return {f"s{number}.yaml": MANIFEST.format(number=number, round=round_number, port=9000 + number)}


def answers(world: World, number: int) -> bool:
    return "It works" in world.fetch(f"http://127.0.0.1:{9000 + number}/")


def show(name: str, times: list[float]) -> None:
    print(f"{name}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})", flush=True)


def measure_looks(pushed: Pushed, folder: Path, rounds: int) -> None:
    """Looks at a branch on which nothing is new."""
    source = GitSource(GitOptions(place=parse_place(pushed.url), ref="refs/heads/main"), folder)
    source.read()
    wall, before = time.perf_counter(), [resource.getrusage(who) for who in (0, -1)]
    for _ in range(rounds):
        assert source.read().stale == ""
    spent = sum(
        now.ru_utime + now.ru_stime - then.ru_utime - then.ru_stime
        for now, then in zip([resource.getrusage(who) for who in (0, -1)], before, strict=True)
    )
    print(f"a look at a branch with nothing new: {(time.perf_counter() - wall) / rounds * 1000:.0f} ms, "
          f"{spent / rounds * 1000:.0f} ms of CPU", flush=True)  # fmt: skip


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rounds", type=int, default=10)
    rounds = words.parse_args().rounds
    top = Path(tempfile.mkdtemp(prefix="bench-git-"))
    fill_storage(top / "storage", top)
    world = open_world(top / "world", top / "storage")
    pushed = Pushed(top)
    first = {name: text for number in range(STACKS) for name, text in stack(number, 0).items()}
    pushed.commit("first", first)
    served = world.popen("serve", "--git", pushed.url, "--branch", "main", "--interval", "1h", "--resync", "1h")
    try:
        wait_until(lambda: all(answers(world, number) for number in range(STACKS)), "all stacks are up", seconds=60)
        times = []
        for number in range(1, rounds + 1):
            one = number % STACKS
            pid = world.pid(f"s{one}/web")

            def is_new(one: int = one, pid: int = pid) -> bool:
                return world.pid(f"s{one}/web") not in (0, pid) and answers(world, one)

            pushed.commit(f"round {number}", stack(one, number))
            begun = time.perf_counter()
            world.signal(served, signal.SIGHUP)
            wait_until(is_new, "the new one serves", seconds=60)
            times.append(time.perf_counter() - begun)
        show("pushed, until the new container serves", times)
        measure_looks(pushed, top / "looks", 20)
    finally:
        world.signal(served)
        world.close()
        shutil.rmtree(top, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
