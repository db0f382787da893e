"""Control groups of both versions: where they are mounted, folders made and removed in each, who is inside, OOM kills.

A path here is what stands in /proc/PID/cgroup, `/a/b`, and means the same folder in every hierarchy. On a machine with v1
hierarchies (an empty v2 beside them included) a cgroup is a folder in each. Raises OSError only; reads cgroups(7) and
Documentation/admin-guide/cgroup-v{1,2}.
"""

import errno
import os
import time

from reconciler.linux import failpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_known: list[tuple[str, frozenset[str]]] = []


def hierarchies() -> list[tuple[str, frozenset[str]]]:
    """Mount points with the controllers of each; the v2 one has `unified` among them. Read once a process."""
    if not _known:
        _known[:] = _read_hierarchies()
    return _known


def _read_hierarchies() -> list[tuple[str, frozenset[str]]]:
    found: dict[str, frozenset[str]] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point, (kind, _, options) = before.split()[4], after.split()[:3]
            if kind == "cgroup2":
                found.setdefault(point, frozenset({"unified", *_v2_controllers(point)}))
            elif kind == "cgroup":
                found.setdefault(point, frozenset(options.split(",")))
    return list(found.items())


def _v2_controllers(point: str) -> list[str]:
    with open(f"{point}/cgroup.controllers", encoding="ascii") as file:
        return file.read().split()


_points: dict[str, str] = {}
"""What was found in `hierarchies`, asked for with each limit of each container: mount points by controller, and `v2`."""


def is_v2() -> bool:
    """Whether v2 governs memory and pids here: the pure v2 machine."""
    if "v2" not in _points:
        _points["v2"] = "yes" if all("unified" in controllers for _, controllers in hierarchies()) else ""
    return bool(_points["v2"])


def find_controller(name: str) -> str:
    """The mount point of the hierarchy that has this controller, "" where none has."""
    if name not in _points:
        _points[name] = next((point for point, controllers in hierarchies() if name in controllers), "")
    return _points[name]


def list_folders(path: str) -> "Iterator[str]":
    """The folders of a cgroup, one a hierarchy, whether they exist or not."""
    return (point + path for point, _ in hierarchies())


def exists(path: str) -> bool:
    """Whether a cgroup exists in at least one hierarchy."""
    return any(map(os.path.isdir, list_folders(path)))


def create(path: str) -> None:
    """Make a cgroup, its parents included, in every hierarchy; ready to hold processes. Idempotent."""
    for point, controllers in hierarchies():
        folder = point
        for name in path.strip("/").split("/"):
            parent, folder = folder, f"{folder}/{name}"
            if not os.path.isdir(folder):
                _make_folder(folder)
            if "cpuset" in controllers and "unified" not in controllers:
                _inherit_cpuset(parent, folder)


def _make_folder(folder: str) -> None:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:  # Race: another made it just now.
        return


def _inherit_cpuset(parent: str, folder: str) -> None:
    """Kernel: a v1 cpuset begins empty and takes no process until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{folder}/{name}", "r+", encoding="ascii") as own:
            if own.read().strip():
                continue
            with open(f"{parent}/{name}", encoding="ascii") as given:
                own.seek(0)
                own.write(given.read())


def create_child(path: str, name: str) -> str:
    """Make a cgroup below one that holds processes, in one hierarchy only: pids on v1, the only one on v2. It has no limits
    of its own; its folder. Raises OSError."""
    folder = f"{find_controller('pids')}{path}/{name}"
    os.mkdir(folder, 0o755)
    return folder


def end_child(folder: str, *, seconds: float) -> bool:
    """Kill everything in a cgroup of `create_child`, and remove it: False when that is not done within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        _kill_folder(folder)
        if _remove_folder(folder):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def _kill_folder(folder: str) -> None:
    if os.path.exists(f"{folder}/cgroup.kill"):
        _write(f"{folder}/cgroup.kill", "1")
        return
    point = find_controller("pids")
    for pid in map(int, _read_value(f"{folder}/cgroup.procs").split()):
        _kill_member(pid, folder[len(point) :])


def move(pid: int, path: str) -> None:
    """Put a process into a cgroup, in every hierarchy."""
    for folder in list_folders(path):
        _write(f"{folder}/cgroup.procs", str(pid))


def move_out(pid: int, path: str) -> None:
    """Take a child of ours out of what confines us: into a cgroup in each hierarchy in which we are below the root, and in
    one at least, by which it is found and counted.

    Kernel: each move waits for a grace period, about 1 ms, and all moves of the machine take turns.
    """
    needed = confined_in() or [hierarchies()[0][0]]
    for point in needed:
        _write(f"{point}{path}/cgroup.procs", str(pid))


def confined_in() -> list[str]:
    """Mount points of the hierarchies in which this process is below the root (/proc/PID/cgroup, cgroups(7))."""
    confined: list[str] = []
    for line in _read_value("/proc/self/cgroup").splitlines():
        _, names, place = line.split(":", 2)
        if place != "/":
            wanted = set(names.split(",")) if names else {"unified"}
            confined += [point for point, controllers in hierarchies() if wanted & controllers]
    return confined


def _write(file: str, text: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def list_children(path: str) -> set[str]:
    """Names of the cgroups right below one, over all hierarchies."""
    names: set[str] = set()
    for folder in list_folders(path):
        if not os.path.isdir(folder):
            continue
        with os.scandir(folder) as entries:
            names.update(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    return names


def list_processes(path: str) -> set[int]:
    """Pids inside a cgroup and below it, over all hierarchies. 0, a process of another pid namespace, is left out."""
    pids: set[int] = set()
    for folder in list_folders(path):
        for below, _, _ in os.walk(folder):
            pids.update(map(int, _read_value(f"{below}/cgroup.procs").split()))
    return pids - {0}


def kill(path: str, *, seconds: float) -> bool:
    """Kill everything inside a cgroup, again until it is empty: True when it is within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        _kill_once(path)
        if not list_processes(path):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)  # Kernel: a v1 cgroup can't be waited for.
        pause = min(pause * 2, 0.05)


def _kill_once(path: str) -> None:
    for folder in list_folders(path):
        if os.path.exists(f"{folder}/cgroup.kill"):  # Kernel: v2 since 5.14.
            _write(f"{folder}/cgroup.kill", "1")
    for pid in list_processes(path):
        _kill_member(pid, path)


def _kill_member(pid: int, path: str) -> None:
    """Race: a pid read from cgroup.procs may be another's by now; its membership is read again while a pidfd holds it."""
    import signal

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        places = {line.split(":", 2)[2] for line in _read_value(f"/proc/{pid}/cgroup").splitlines()}
        if any(place == path or place.startswith(path + "/") for place in places):
            with failpoint.change("signal"):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def remove(path: str, *, seconds: float = 2.0) -> bool:
    """Remove a cgroup with all below it, in every hierarchy. False when a process stays in it. What is gone is no error."""
    deadline = time.monotonic() + seconds
    while not all([_remove_folder(folder) for folder in list_folders(path)]):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)  # Kernel: a zombie's cgroup stays busy for a moment after its last process was reaped.
    return True


def remove_if_empty(path: str) -> None:
    """Remove a cgroup that holds neither processes nor cgroups; leave any other."""
    for folder in list_folders(path):
        try:
            os.rmdir(folder)
        except OSError:
            continue


def _remove_folder(folder: str) -> bool:
    for below, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(below)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            raise
    return True


def count_oom_kills(path: str) -> int:
    """How often the kernel killed inside a cgroup for want of memory; 0 where that can't be read."""
    point = find_controller("memory")
    name = "memory.events" if is_v2() else "memory.oom_control"
    for line in _read_value(f"{point}{path}/{name}").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def is_frozen(path: str) -> bool:
    """Whether a cgroup is frozen, which is what a pause is."""
    file, frozen = ("cgroup.freeze", "1") if is_v2() else ("freezer.state", "FROZEN")
    point = find_controller("unified" if is_v2() else "freezer")
    return _read_value(f"{point}{path}/{file}") == frozen


def thaw(path: str) -> None:
    """Let the processes of a frozen cgroup go on; without it no signal reaches them."""
    file, text = ("cgroup.freeze", "0") if is_v2() else ("freezer.state", "THAWED")
    point = find_controller("unified" if is_v2() else "freezer")
    if os.path.exists(f"{point}{path}/{file}"):
        _write(f"{point}{path}/{file}", text)


def find_place(pid: int, controller: str) -> str:
    """The cgroup that a process is in, by the hierarchy of this controller (on v2 the only one); "" when it has gone."""
    v2 = is_v2()
    for line in _read_value(f"/proc/{pid}/cgroup").splitlines():
        number, controllers, place = line.split(":", 2)
        if (number == "0" and not controllers) if v2 else controller in controllers.split(","):
            return place
    return ""


_GOVERNING = frozenset({"memory", "pids", "cpu", "freezer"})


def find_places(pid: int) -> set[str]:
    """The cgroups that a process is in: on v2 one, on v1 those of the hierarchies that limit or freeze, which are one too
    unless somebody moved it. Empty when it has gone."""
    return parse_places(read_places(pid))


def read_places(pid: int) -> str:
    """What /proc/PID/cgroup says, for `parse_places`; empty when it has gone."""
    return _read_value(f"/proc/{pid}/cgroup")


def parse_places(text: str) -> set[str]:
    """The cgroups that `find_places` finds in it."""
    v2 = is_v2()
    lines = [line.split(":", 2) for line in text.splitlines()]
    return {place for number, names, place in lines if (number == "0" if v2 else _GOVERNING & set(names.split(",")))}


_UNLIMITED_V1 = 2**62
"""v1 says `no limit` as the largest page-aligned number."""


def read_limits(path: str) -> dict[str, str]:
    """The limits of a cgroup: `memory` (bytes), `pids`, `cpu` (QUOTA/PERIOD in microseconds); `max` is none. What can't be
    read is left out."""
    memory, pids, cpu = (find_controller(name) + path for name in ("memory", "pids", "cpu"))
    found = {"pids": _read_value(f"{pids}/pids.max")}
    if is_v2():
        found["memory"] = _read_value(f"{memory}/memory.max")
        quota, _, period = _read_value(f"{cpu}/cpu.max").partition(" ")
    else:
        found["memory"] = _read_value(f"{memory}/memory.limit_in_bytes")
        if found["memory"].isdigit() and int(found["memory"]) > _UNLIMITED_V1:
            found["memory"] = "max"
        quota = _read_value(f"{cpu}/cpu.cfs_quota_us")
        period = _read_value(f"{cpu}/cpu.cfs_period_us") if quota not in ("", "-1") else ""
    found["cpu"] = "max" if quota in ("max", "-1") else f"{quota}/{period}" if quota else ""
    return {name: value for name, value in found.items() if value}


_LARGEST = 65_536


def _read_value(file: str) -> str:
    try:
        number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # One read: of these files the kernel gives all at once. A look reads half a dozen of each container.
        return os.read(number, _LARGEST).decode("utf-8", "surrogateescape").strip()
    except OSError:
        return ""
    finally:
        os.close(number)
