"""Starts a container under conmon, by a bundle's monitor.json: create, record, start. For driver and exit command alike.

conmon creates the container through the runtime, keeps its log and its exit code, and runs our exit command when it ends.
It gets nothing of the caller: an environment of its own, the bundle as its folder, the cgroup of the monitors, /dev/null.
Imports the standard library and `linux` only. Called under the container's lock. Source: conmon(8).
"""

import errno
import os
import stat
import time

from reconciler.engine.native.runtime import bundle, ended, rotation, runc, targets
from reconciler.engine.native.runtime.smalljson import parse_json
from reconciler.linux import cgroups, failpoint, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SECONDS = 30.0
"""For conmon to go to the background, and then for the runtime to create: many times what either takes on a machine that
works. What hangs is killed then."""
_LOG = "conmon.log"
_SIGKILL = 9
"""By number, for importing `signal` costs the exit command time."""


def launch(path: str, monitor: "dict[str, Any]") -> "dict[str, Any]":
    """Make the container run: `create`, then `begin`; the state of `create`. Raises what they raise."""
    state = create(path, monitor)
    begin(path, monitor, state)
    return state


def create(path: str, monitor: "dict[str, Any]") -> "dict[str, Any]":
    """Remove what is left of its last run, and make everything up to its first process, which waits for `begin`.

    Returns the state: pid, start_time, monitor, monitor_start, started_at. Raises RuntimeFailed, and OSError where the
    machine fails; then nothing of it is left running, and the file `error` has the words.
    """
    bundle.remove(path, bundle.ERROR)
    try:
        check_root(f"{path}/{bundle.ROOTFS}")
        targets.check(f"{path}/{bundle.ROOTFS}", monitor.get("targets", ()))
        if monitor.get("trees"):
            # Few have some, and it is as much as all that the exit command imports.
            from reconciler.engine.native.runtime import trees

            trees.assemble(path, monitor["trees"])
        clear(path, monitor)
        state = _create(path, monitor)
        # Order: before it runs, for it may write so much at once that conmon cuts the log.
        rotation.note_empty(monitor["log"])
    except (runc.RuntimeFailed, OSError) as error:
        _note_error(path, error)
        raise
    return state


def begin(
    path: str, monitor: "dict[str, Any]", state: "dict[str, Any]", created: "Callable[[], None] | None" = None
) -> None:
    """Record what `create` made as state.json, and let it run. `created` is called between: who attaches there misses
    nothing. Raises as `create`; then nothing of it runs, and state.json is as before."""
    before = bundle.read_json(path, bundle.STATE)
    ended.remove_ended(monitor.get("ended", ""))
    # Order: recorded before it runs, so that nothing ever runs that is not on record.
    bundle.write_json(path, bundle.STATE, state)
    try:
        if created is not None:
            created()
        runc.start(monitor["runtime"], monitor["runtime_root"], monitor["id"], (state["pid"], state["start_time"]))
    except BaseException as error:
        bundle.write_json(path, bundle.STATE, before)
        abandon(monitor)
        if isinstance(error, (runc.RuntimeFailed, OSError)):
            _note_error(path, error)
        raise


def check_root(rootfs: str) -> None:
    """Raise RuntimeFailed where the kernel's folders are not folders in a root.

    runc 1.1 makes links and devices in ROOTFS/dev by string, before it is confined: where an image has a link for it, they
    would be made wherever on the host that leads.
    """
    for name in ("dev", "proc", "sys"):
        try:
            mode = os.lstat(f"{rootfs}/{name}").st_mode
        except FileNotFoundError:
            continue  # The runtime makes it.
        if not stat.S_ISDIR(mode):
            raise runc.RuntimeFailed("create", f"/{name} of the image is no folder: a file or a link is never mounted over")


def abandon(monitor: "dict[str, Any]") -> None:
    """End what `create` made and nobody begins."""
    cgroups.kill(monitor["cgroup"], seconds=2.0)


def _note_error(path: str, error: Exception) -> None:
    try:
        bundle.write_text(path, bundle.ERROR, runc.words_of(error))
    except OSError:  # A full disk is what failed the start already.
        raise error from None


def clear(path: str, monitor: "dict[str, Any]") -> None:
    """Remove what the last run left: the runtime's state, its cgroup, the exit file, conmon's fifos and sockets."""
    runc.forget(monitor["runtime_root"], monitor["id"], monitor["cgroup"])
    exits, sockets = f"{path}/{bundle.EXITS}", f"{path}/{monitor['id']}"
    bundle.remove(exits, monitor["id"])
    bundle.remove(sockets, "attach")
    bundle.remove(path, bundle.PID, bundle.CONMON_PID, bundle.CTL, "winsz", "oom", "attach")


def _create(path: str, monitor: "dict[str, Any]") -> "dict[str, Any]":
    os.makedirs(f"{path}/{bundle.EXITS}", mode=0o700, exist_ok=True)
    rotation.rotate(path, monitor)
    arm(path, monitor)
    sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
    start_read, start_write = os.pipe2(os.O_CLOEXEC)
    log = os.open(f"{path}/{_LOG}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        try:
            pid = process.spawn(
                render_command(path, monitor),
                env={**runc.RUNTIME_ENV, "_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"},
                cwd=path,
                fds={2: log, 3: sync_write, 4: start_read},
            )
        finally:
            os.close(sync_write)
            os.close(start_read)
            os.close(log)
        try:
            _begin_monitor(path, pid, start_write, monitor)
            return _read_state(path, sync_read, monitor["runtime"])
        except BaseException:
            _kill_unfinished(path, monitor)
            raise
    finally:
        os.close(start_write)
        os.close(sync_read)


def _begin_monitor(path: str, pid: int, start: int, monitor: "dict[str, Any]") -> None:
    """Let a conmon go that waits for its start pipe. It forks what stays, and ends. Raises RuntimeFailed."""
    try:
        _place(pid, monitor["monitors"])
        os.write(start, b"\0")
    except (ProcessLookupError, BrokenPipeError):
        pass  # It has ended: why is asked below.
    except BaseException:
        process.reap(pid, seconds=0)
        raise
    try:
        code = process.reap(pid, seconds=_SECONDS)
    except TimeoutError:
        raise runc.RuntimeFailed("conmon", f"it was not in the background after {_SECONDS:g} s and was killed") from None
    if code:
        raise runc.RuntimeFailed("conmon", _monitor_words(path) or process.describe_end(code))


def _kill_unfinished(path: str, monitor: "dict[str, Any]") -> None:
    """Kill what is still making a container that nobody has on record: conmon, the runtime, and what they have begun."""
    # Race: its last conmon may live, whose exit command we are.
    recorded = bundle.read_json(path, bundle.STATE).get("monitor")
    for pid in find_makers(monitor["monitors"], monitor["id"]):
        if pid != recorded:
            process.send_signal(pid, process.read_start_time(pid), _SIGKILL)
    cgroups.kill(monitor["cgroup"], seconds=2.0)


def find_makers(monitors: str, incarnation: str) -> "list[int]":
    """The conmons and runtimes of an incarnation, by their command lines, of which it is a word; only processes in our own
    cgroup of monitors are looked at."""
    found = []
    for pid in sorted(cgroups.list_processes(monitors)):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:  # It has gone.
            continue
        if incarnation.encode() in words:
            found.append(pid)
    return found


def arm(path: str, monitor: "dict[str, Any]") -> None:
    """Have an exit followed: conmon runs the interpreter by a link in the bundle."""
    disarm(path)
    os.symlink(monitor["exit_command"][0], f"{path}/{bundle.ON_EXIT}")


def disarm(path: str) -> None:
    """Let nothing follow an exit, where a mark says that nothing would: fifty interpreters that find that out take a
    second of CPU. conmon's exec fails then, and it ends."""
    bundle.remove(path, bundle.ON_EXIT)


def _place(pid: int, cgroup: str) -> None:
    """Order: conmon waits on its start pipe, so that it forks nothing before it is in the cgroup of the monitors."""
    try:
        cgroups.move_out(pid, cgroup)
    except OSError as error:
        # Race: another start has just made the cgroup, and it has no CPUs yet (cpusets(7): ENOSPC).
        if error.errno not in (errno.ENOENT, errno.ENOSPC):
            raise
        cgroups.create(cgroup)
        cgroups.move_out(pid, cgroup)


def render_command(path: str, monitor: "dict[str, Any]") -> list[str]:
    """conmon's command line."""
    container_id = monitor["id"]
    command = [monitor["conmon"], "--cid", container_id, "--cuuid", container_id, "--name", container_id]
    command += ["--bundle", path, "--runtime", monitor["runtime"]]
    command += ["--container-pidfile", f"{path}/{bundle.PID}", "--conmon-pidfile", f"{path}/{bundle.CONMON_PID}"]
    command += ["--log-path", f"k8s-file:{monitor['log']}", "--log-size-max", str(monitor["max_size"])]
    command += ["--no-sync-log", "--log-level", "error", "--exit-dir", f"{path}/{bundle.EXITS}"]
    command += ["--socket-dir-path", path, "--full-attach"]
    command += ["--runtime-arg", "--root", "--runtime-arg", monitor["runtime_root"]]
    arguments = monitor["exit_command"][1:]
    command += ["--exit-command", f"{path}/{bundle.ON_EXIT}"]
    for argument in [*arguments, path, *failpoint.handed_on()]:
        command += ["--exit-command-arg", argument]
    if not monitor.get("stdin"):
        return [*command, "--terminal"] if monitor["tty"] else command
    # The end of what one client sends is the end of the program's input; not on a terminal, which others may attach to.
    return [*command, "--terminal", "--stdin", "--leave-stdin-open"] if monitor["tty"] else [*command, "--stdin"]


def _read_state(path: str, sync: int, runtime: str) -> "dict[str, Any]":
    """What conmon says once the runtime has created the container. Raises RuntimeFailed with the runtime's words."""
    said = _read_line(sync, runtime)
    try:
        # Compat: conmon puts the runtime's words in as they are, UTF-8 or not.
        answer = parse_json(said.decode("utf-8", "replace").encode())
        pid = int(answer["pid"])
    except (ValueError, KeyError, TypeError):
        # Compat: of a runtime that says nothing conmon says nothing either.
        words = _monitor_words(path) or "it ended without a word, or conmon did"
        raise runc.RuntimeFailed(f"{runtime} create", words) from None
    if pid <= 0:
        words = runc.choose_words(str(answer.get("message", ""))) or _monitor_words(path)
        raise runc.RuntimeFailed(f"{runtime} create", words or f"it ended with {-pid}")
    monitor_pid = read_pid(path)
    return {
        "pid": pid,
        "start_time": process.read_start_time(pid),
        "monitor": monitor_pid,
        "monitor_start": process.read_start_time(monitor_pid or 0),
        "started_at": time.time(),
        "boot_id": process.read_boot_id(),
    }


def read_pid(path: str) -> int | None:
    """The pid of the conmon that was started last; None before the first."""
    try:
        with open(f"{path}/{bundle.CONMON_PID}", encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


def _read_line(sync: int, runtime: str) -> bytes:
    deadline = time.monotonic() + _SECONDS
    said = b""
    while not said.endswith(b"\n"):
        if not process.wait_readable(sync, seconds=deadline - time.monotonic()):
            words = f"it did not end within {_SECONDS:g} s and was killed"
            raise runc.RuntimeFailed(f"{runtime} create", words)
        chunk = os.read(sync, 65_536)
        if not chunk:
            break
        said += chunk
    return said


def _monitor_words(path: str) -> str:
    try:
        with open(f"{path}/{_LOG}", encoding="utf-8", errors="replace") as file:
            return runc.choose_words(file.read(8192))
    except FileNotFoundError:
        return ""
