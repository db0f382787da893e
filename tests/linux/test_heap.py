"""Threads share one heap where they are told to."""

import subprocess
import sys

import pytest

_WORK = """
import sys, threading
if len(sys.argv) > 1:
    from reconciler.linux.heap import share_heap
    share_heap()
barrier = threading.Barrier(6)
def work():
    kept = [bytes(20_000) for _ in range(20)]
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
# Those of threads are mapped in pieces of 64 MiB, of which little can be written (malloc/arena.c, HEAP_MAX_SIZE).
print(sum(line.split()[1] == "---p" and size(line) > 60 << 20 for line in open("/proc/self/maps")))
""".replace("size(line)", "(lambda a, b: int(b, 16) - int(a, 16))(*line.split()[0].split('-'))")


@pytest.mark.skipif("glibc" not in str(__import__("platform").libc_ver()), reason="skipped because this is not glibc")
def test_threads_make_no_heaps_of_their_own_once_told() -> None:
    made = [
        int(subprocess.run([sys.executable, "-c", _WORK, *more], capture_output=True, check=True).stdout)
        for more in ([], ["told"])
    ]
    assert made[0] > 0, "it would not be seen"
    assert made[1] == 0
