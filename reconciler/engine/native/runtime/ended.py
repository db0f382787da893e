"""The end of a container that is to rest, kept under the root: what a reboot must not undo.

Its exit file goes with the run directory; this one stays, `ROOT/containers/INCARNATION/ended.json`: `code`, `at`, `oom`,
`started_at`, `restarts`, `gave_up`, `held` (a stop by hand), `stopped` (its end was that stop). Written where nothing
follows an exit (by its restart policy, or by a stop), removed before the next start. One that a reboot cut short has none.
Imports the standard library only.
"""

import os
import time

from reconciler.engine.native.runtime.smalljson import parse_json, render_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "ended.json"
_GOING_DOWN = b"systemd-shutdow"
"""What /proc/1/comm says (15 characters of it) once systemd ends all that is left."""


def ended_path(folder: str) -> str:
    """Where the end of the container is kept whose folder under the root this is."""
    return f"{folder}/{NAME}"


def write_ended(path: str, ended: "dict[str, Any]") -> None:
    """Keep an end, on the disk. Best effort: where the disk is full the container is one that a reboot cut short.

    Nothing is kept while the machine goes down: what ends then was ended by that, and is to run again afterwards.
    """
    if not path or is_going_down():
        return
    folder, name = os.path.split(path)
    staged = f"{folder}/new-{name}-{os.getpid()}-{time.monotonic_ns()}"
    try:
        fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.write(fd, render_json(ended).encode())
        os.fsync(fd)
        os.rename(staged, path)
    except OSError:
        remove_ended(staged)
    finally:
        os.close(fd)


def read_ended(path: str) -> "dict[str, Any]":
    """What `write_ended` kept; empty where there is nothing, or nothing whole."""
    try:
        with open(path, "rb", buffering=0) as file:
            read = parse_json(file.readall())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) and "at" in read else {}


def remove_ended(path: str) -> None:
    """It is about to run again."""
    try:
        os.unlink(path)
    except OSError:
        return


def is_going_down() -> bool:
    """Whether systemd has come to ending everything that is left."""
    try:
        with open("/proc/1/comm", "rb", buffering=0) as file:
            return file.readall().startswith(_GOING_DOWN)
    except OSError:
        return False
