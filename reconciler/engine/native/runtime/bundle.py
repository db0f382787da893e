"""The files of a bundle: their names, how they are read and written whole, and the container's lock.

Shared by the driver and the exit command, so it imports the standard library and `linux` only, and little of that. All
files but the health check's result are written under the lock; anybody reads without it.

    config.json      what the OCI runtime reads            monitor.json    how conmon is started: conmon.py
    policy.json      restart policy, count, mark: policy.py    state.json  the run that is or was last: conmon.py
    exit.json        the last exit, by the exit command    container.json  the record (driver; for `recover`)
    contents/        configs, secrets and bound files         contents.json  what each was given: contents.py
    on-exit          the interpreter of the exit command, a link: conmon.py
    left.json        how the files that others may change were left: left.py
    pid, conmon.pid, ctl, winsz, exits/, INCARNATION/      conmon's own    rootfs/, hosts, hostname, resolv.conf
"""

import fcntl
import os
import time

from reconciler.engine.native.runtime.smalljson import parse_json, render_json
from reconciler.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CONFIG, MONITOR, POLICY, STATE = "config.json", "monitor.json", "policy.json", "state.json"
EXIT, CONTAINER, HEALTH, LOCK = "exit.json", "container.json", "health.json", "lock"
PID, CONMON_PID, EXITS, CTL, ERROR = "pid", "conmon.pid", "exits", "ctl", "error"
ON_EXIT, ROOTFS, ATTACH = "on-exit", "rootfs", "attach"

_KILLED = 137
_TEXTS = ("id", "key", "runtime", "runtime_root", "conmon", "log", "cgroup", "monitors")
_NUMBER = (int, float)
_SHAPES: "dict[str, dict[str, Any]]" = {
    MONITOR: {**dict.fromkeys(_TEXTS, str), "exit_command": list, "links": list},
    POLICY: {"restart": str, "mark": str, "attempts": int, "restarts": int},
    STATE: {"pid": int, "start_time": int, "monitor_start": int, "started_at": _NUMBER, "boot_id": str},
    EXIT: {"code": int, "at": _NUMBER},
    HEALTH: {"pid": int, "at": _NUMBER, "streak": int},
}
"""What a file must say to count as one: somebody may have written anything into it."""


_MOST = 16_384


def _read_whole(file: str) -> bytes:
    """All of a file, by as few calls as can be: a look reads seven of each container."""
    number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(number, _MOST)
        more = data
        while len(more) == _MOST:  # Of a file on a tmpfs a short read is the last.
            more = os.read(number, _MOST)
            data += more
        return data
    finally:
        os.close(number)


def read_json(bundle: str, name: str) -> "dict[str, Any]":
    """A file of a bundle; empty when it is not there, or is no JSON object of its kind."""
    try:
        read = parse_json(_read_whole(f"{bundle}/{name}"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    if not isinstance(read, dict):
        return {}
    return read if all(isinstance(read.get(field), kind) for field, kind in _SHAPES.get(name, {}).items()) else {}


def write_json(bundle: str, name: str, value: object) -> None:
    """Write a file of a bundle whole: staged beside it, then renamed."""
    write_text(bundle, name, render_json(value))


def write_text(bundle: str, name: str, text: str, *, mode: int = 0o600) -> None:
    """As write_json, for text."""
    staged = f"{bundle}/new-{name}-{os.getpid()}-{time.monotonic_ns()}"
    fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)
    os.rename(staged, f"{bundle}/{name}")


def remove(bundle: str, *names: str) -> None:
    """Remove files of a bundle; what is gone is no error."""
    for name in names:
        try:
            os.unlink(f"{bundle}/{name}")
        except FileNotFoundError:
            continue


def wait_for_lock(bundle: str) -> int:
    """Wait for the container's lock, however long: the descriptor that holds it, -1 when the bundle has gone.

    The same flock as `linux.files.lock` takes for the driver.
    """
    path = f"{bundle}/{LOCK}"
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        fcntl.flock(fd, fcntl.LOCK_EX)
        if _is_the_lock(fd, path):
            note = f"{os.getpid()} {time.time():.3f} restart by the exit command\n".encode()
            os.pwrite(fd, note, 0)
            os.ftruncate(fd, len(note))
            return fd
        os.close(fd)  # Race: the bundle was removed while we waited.


def try_lock(bundle: str) -> int:
    """The container's lock if it is free at once, else -1; also where there is no bundle."""
    path = f"{bundle}/{LOCK}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    return fd


def _is_the_lock(fd: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(os.fstat(fd), there)


def read_exit_file(path: str, monitor: "Mapping[str, Any]") -> "dict[str, Any]":
    """How conmon saw it end: `code`, `at`, `oom` (killed for want of memory); empty where it wrote nothing."""
    try:
        with open(f"{path}/{EXITS}/{monitor['id']}", encoding="ascii") as file:
            code, at = int(file.read()), os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, ValueError):
        return {}
    return {"code": code, "at": at, "oom": code == _KILLED and cgroups.count_oom_kills(monitor["cgroup"]) > 0}
