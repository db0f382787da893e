"""Runs a command and compares the machine before and after: links, netns, mounts, loops, cgroups, tables, processes.

`python -m lab.canary -- COMMAND…` ends with the command's exit code, or with 1 where something was left or is gone.
It is the reaper of whatever the command leaves behind, so a leaked process is one of its children and nobody else's.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE = 5.0
"""Seconds that what is on its way out may take: the kernel frees namespaces and loop devices in the background."""

State = dict[str, frozenset[str]]


def read_links() -> frozenset[str]:
    """Links of this network namespace, by name."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    return frozenset(line.partition(":")[0].strip() for line in lines)


def read_netns() -> frozenset[str]:
    """Network namespaces that have a name."""
    folder = Path("/run/netns")
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def read_mounts() -> frozenset[str]:
    """Mount points of this mount namespace with their types."""
    fields = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return frozenset(f"{field[4]} ({field[field.index('-') + 1]})" for field in fields)


def read_loops() -> frozenset[str]:
    """Loop devices over files below the folder that TEST_BASE names: others may mount what they like meanwhile."""
    base = os.environ.get("TEST_BASE", "/")
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # it is let go just now
            file = path.read_text().strip()
            if file.startswith(base):
                found.add(f"{path.parts[3]} {file}")
    return frozenset(found)


def read_cgroups() -> frozenset[str]:
    """The cgroups at the top of all hierarchies, but those in which somebody else's processes run.

    What we leave behind has no process any more, or one that is found as a process of ours.
    """
    tops = [path for pattern in ("*/", "*/*/") for path in Path("/sys/fs/cgroup").glob(pattern)]  # v2 and v1
    used = {top.name for top in tops if any(_processes_below(top))}
    return frozenset(str(top) for top in tops if top.name not in used)


def _processes_below(folder: Path) -> Iterator[str]:
    for path in folder.rglob("cgroup.procs"):
        with suppress(OSError):
            yield from path.read_text().split()


def read_tables() -> frozenset[str]:
    """nftables' tables of this network namespace."""
    try:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return frozenset()
    return frozenset(listed.stdout.splitlines())


def read_children() -> frozenset[str]:
    """Processes below this one that still run: `1234 conmon …`."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return frozenset(line for line in map(_describe, children) if line)


def _describe(pid: str) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state == "Z" else f"{pid} {command[:160].strip()}"


LOOKS: dict[str, Callable[[], frozenset[str]]] = {
    "link": read_links,
    "netns": read_netns,
    "mount": read_mounts,
    "loop device": read_loops,
    "cgroup": read_cgroups,
    "table": read_tables,
    "process": read_children,
}


def look() -> State:
    """Everything that a test could leave."""
    return {kind: read() for kind, read in LOOKS.items()}


def compare(before: State, after: State) -> list[str]:
    """What differs, one line each, sorted."""
    left = [f"left behind: {kind} {name}" for kind in before for name in after[kind] - before[kind]]
    gone = [f"gone: {kind} {name}" for kind in before for name in before[kind] - after[kind]]
    return sorted(left) + sorted(gone)


def reap_until(pid: int) -> int:
    """Collect whatever ends until `pid` does; its exit code (128 + N for a signal)."""
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def settle(before: State) -> list[str]:
    """The differences that are still there after the grace."""
    deadline = time.monotonic() + GRACE
    while True:
        _reap_ended()
        differences = compare(before, look())
        if not differences or time.monotonic() > deadline:
            return differences
        time.sleep(0.1)  # a poll with a deadline: nothing tells us when the kernel is done


def _reap_ended() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main(command: list[str]) -> int:
    """Run the command under watch."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Compat: who was started in the background by a shell ignores SIGINT, and so would all below; tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = look()
    code = reap_until(subprocess.Popen(command, stdin=subprocess.DEVNULL).pid)
    differences = settle(before)
    for child in read_children():
        os.kill(int(child.split()[0]), signal.SIGKILL)
    for line in differences:
        print(f"canary: {line}")
    print(f"canary: {'the machine is NOT as it was' if differences else 'the machine is as it was before'}")
    return code or bool(differences)


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
