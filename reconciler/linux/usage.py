"""What a container uses now: CPU, memory and processes from its cgroup, of either version, bytes from its namespace.

Read when somebody asks, never before. Raises nothing: what can't be read is None. cgroups(7), Documentation/admin-guide/
cgroup-v{1,2}; proc_pid_net(5).
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from reconciler.linux import cgroups


class Usage(NamedTuple):
    """Of one cgroup. Bytes and seconds."""

    cpu_seconds: float | None
    memory: int | None
    """What it would need: all but file pages that the kernel may drop at once."""
    memory_limit: int | None
    pids: int | None
    oom_kills: int


class Traffic(NamedTuple):
    """Over all links of one network namespace but lo, as seen from inside."""

    received: int
    sent: int


def find_own_cgroup(pid: int, mark: str) -> str:
    """The cgroup that a process is in, where its path ends in `mark`; "" where it has gone, and its number is another's."""
    place = cgroups.find_place(pid, "memory")
    return place if place.endswith(f"/{mark}") else ""


def read_memory(path: str) -> int | None:
    """Bytes of a cgroup that are in use: without file pages that nobody uses (as `docker stats` counts)."""
    point = cgroups.find_controller("memory")
    v2 = cgroups.is_v2()
    used = _read_number(f"{point}{path}/{'memory.current' if v2 else 'memory.usage_in_bytes'}")
    if used is None:
        return None
    inactive = _read_stat(f"{point}{path}/memory.stat", "inactive_file" if v2 else "total_inactive_file") or 0
    return max(used - inactive, 0)


def read_usage(path: str) -> Usage:
    """What a cgroup uses."""
    limits = cgroups.read_limits(path)
    limit = limits.get("memory", "")
    return Usage(
        cpu_seconds=_read_cpu(path),
        memory=read_memory(path),
        memory_limit=int(limit) if limit.isdigit() else None,
        pids=_read_number(f"{cgroups.find_controller('pids')}{path}/pids.current"),
        oom_kills=cgroups.count_oom_kills(path),
    )


def _read_cpu(path: str) -> float | None:
    if cgroups.is_v2():
        used = _read_stat(f"{cgroups.find_controller('cpu')}{path}/cpu.stat", "usage_usec")
        return None if used is None else used / 1e6
    used = _read_number(f"{cgroups.find_controller('cpuacct')}{path}/cpuacct.usage")
    return None if used is None else used / 1e9


def read_traffic(pid: int) -> Traffic | None:
    """The bytes of a process's network namespace; None where it is the host's, which is not the container's to count."""
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
            return None
        lines = Path(f"/proc/{pid}/net/dev").read_text(encoding="ascii").splitlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, rest = line.partition(":")
        if name.strip() != "lo":
            numbers = rest.split()
            received, sent = received + int(numbers[0]), sent + int(numbers[8])
    return Traffic(received=received, sent=sent)


def _read_number(file: str) -> int | None:
    with suppress(OSError, ValueError):
        return int(Path(file).read_text(encoding="ascii"))
    return None


def _read_stat(file: str, name: str) -> int | None:
    with suppress(OSError, ValueError):
        for line in Path(file).read_text(encoding="ascii").splitlines():
            word, _, number = line.partition(" ")
            if word == name:
                return int(number)
    return None
