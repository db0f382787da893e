"""How long a web server's answers take while a neighbour floods: processes, log, memory, disk, CPU. Prints a table.

`python tests/bench/neighbours.py [--seconds 8] [--log-gigabytes 10]`, as root, on an otherwise quiet machine. Each is a
container with default limits (memory: with one of 64M, for without one there is none); beside it one request after another
goes to its neighbour, over the bridge. A row is compared with the quiet one before it.
"""

import argparse
import http.client
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conftest import fill_storage
from lab.world import World, open_world, wait_until

BUSYBOX = "127.0.0.1:5000/busybox:1"
FLOODS: dict[str, dict[str, Any]] = {
    "processes: forks without end": {"command": ["sh", "-c", "f() { f | f & wait; }; while :; do f; done"]},
    "processes: 4096 that sleep": {"command": ["sh", "-c", "while :; do sleep 1000 & done"]},
    "CPU: four loops": {"command": ["sh", "-c", "for i in 1 2 3; do (while :; do :; done) & done; while :; do :; done"]},
    "CPU: four loops, `cpus: 1`": {
        "command": ["sh", "-c", "for i in 1 2 3; do (while :; do :; done) & done; while :; do :; done"],
        "resources": {"cpus": 1},
    },
    "log: short lines": {"command": ["yes", ""]},
    "log: long lines": {"command": ["sh", "-c", "yes $(seq 1 200 | tr '\\n' ' ')"]},
    "log: no newline": {"command": ["sh", "-c", "tr '\\0' a </dev/zero"]},
    "memory: at a limit of 64M, again and again": {
        "command": ["sh", "-c", "while :; do tail /dev/zero; done"],
        "resources": {"memory": "64M"},
    },
    "disk: the same, `cpus: 0.5`": {
        "command": ["sh", "-c", "while :; do dd if=/dev/zero of=/x bs=1M count=1000; done"],
        "resources": {"cpus": 0.5},
    },
    "disk: 1 GB written over and over": {
        "command": ["sh", "-c", "while :; do dd if=/dev/zero of=/x bs=1M count=1000; done"]
    },
}


def ask(world: World, address: str, seconds: float) -> list[float]:
    """Seconds that each answer took, one request after another."""
    took = []
    with world.network():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.perf_counter()
            connection = http.client.HTTPConnection(address, 8080, timeout=10)
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n"
            connection.close()
            took.append(time.perf_counter() - begun)
    return took


def figures(took: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    return statistics.median(took) * 1000, statistics.quantiles(took, n=100)[98] * 1000


def apply(world: World, flood: dict[str, Any] | None) -> None:
    web = {"image": "127.0.0.1:5000/web:1"}
    containers = {"web": web} | ({"flood": {"image": BUSYBOX, "stop_grace": "0s", **flood}} if flood else {})
    world.write({"apiVersion": "reconcile/v1", "name": "one", "containers": containers})
    world.run("apply", "stack.yaml", "--yes", "--allow-delete", "--no-wait", check=0)


def log_size(world: World) -> int:
    """Bytes of the largest log, with those that are kept."""
    largest = 0
    for folder in world.root.glob("containers/*/logs"):
        sizes = []
        for file in folder.iterdir():
            with suppress(FileNotFoundError):  # rotated just now
                sizes.append(file.stat().st_size)
        largest = max(largest, sum(sizes))
    return largest


def measure(world: World, seconds: float) -> None:
    apply(world, None)
    address = world.record("one/web")["status"]["addresses"]["default"]
    if isinstance(address, list):
        (address,) = address
    wait_until(lambda: world.fetch(f"http://{address}:8080/healthz"), "the server answers")
    ask(world, address, 1)
    print("| flood | median ms | beside | p99 ms | beside | largest log MB |", flush=True)
    for name, flood in FLOODS.items():
        quiet = figures(ask(world, address, seconds))
        apply(world, flood)
        time.sleep(1)  # the flood has begun
        begun = time.monotonic()
        beside = figures(ask(world, address, seconds))
        size = log_size(world)
        pids = next((Path(f, "pids.current").read_text().strip() for f in world.cgroups() if _is_flood(world, f)), "")
        world.run("kill", "flood")
        apply(world, None)
        row = (f"{quiet[0]:.2f}", f"{beside[0]:.2f} ({beside[0] / quiet[0]:.1f}x)")
        row += (f"{quiet[1]:.2f}", f"{beside[1]:.2f} ({beside[1] / quiet[1]:.1f}x)", f"{size / 1e6:.1f}")
        print(f"| {name} | {' | '.join(row)} | {pids} {time.monotonic() - begun:.0f}s", flush=True)


def _is_flood(world: World, folder: str) -> bool:
    return "pids" in folder and folder.endswith(str(world.record("one/flood")["status"].get("incarnation", "-")))


def flood_log(world: World, gigabytes: float) -> None:
    """Write so much into a log, once in lines and once without newline, and see how large it ever was."""
    for name, command in {
        "lines": f"yes 0123456789012345678901234567890123456789 | head -c {int(gigabytes * 1e9)}",
        "no newline": f"tr '\\0' a </dev/zero | head -c {int(gigabytes * 1e9)}",
        "empty lines": f"yes '' | head -c {int(gigabytes * 1e7)}",
    }.items():
        flood = {"command": ["sh", "-c", command], "restart": "no"}
        begun, largest = time.monotonic(), 0
        apply(world, flood)
        while world.record("one/flood")["status"]["phase"] == "running":
            largest = max(largest, log_size(world))
            time.sleep(0.2)
        took = time.monotonic() - begun
        print(
            f"log, {name}: {gigabytes:g} GB (empty lines: a hundredth) in {took:.0f} s, never above {largest / 1e6:.1f} MB"
        )
        apply(world, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--log-gigabytes", type=float, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reconcile-neighbours-", dir="/var/tmp") as folder:
        storage = Path(folder) / "storage"
        fill_storage(storage, Path(folder))
        world = open_world(Path(folder) / "world", storage)
        try:
            if options.seconds:
                measure(world, options.seconds)
            if options.log_gigabytes:
                flood_log(world, options.log_gigabytes)
            world.assert_nothing_left(30)
        finally:
            world.close()


if __name__ == "__main__":
    main()
