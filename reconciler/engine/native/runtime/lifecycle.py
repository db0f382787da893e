"""Runs, halts and ends the container of a bundle, each under the container's lock; the driver's verbs minus everything
that is not a process.

Neighbours: conmon.py starts, the exit command (onexit/) follows exits, status.py looks. Nobody here waits for a conmon
while holding the lock: its exit command may be waiting for that lock.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from reconciler.engine.native.runtime import bundle, conmon, ended, policy, rotation, runc, status
from reconciler.linux import cgroups, failpoint, files, process
from reconciler.model.errors import Failed, LockTimeout, ProgramFailed, TimedOut
from reconciler.model.key import Key, split_key
from reconciler.model.observation import Phase, Status
from reconciler.model.record import ApplyId

_LOCK_SECONDS = 90.0
_KILL_SECONDS = 10.0
_EXIT_FILE_SECONDS = 2.0
_MONITOR_SECONDS = 10.0

_launches = threading.BoundedSemaphore(2 * (os.cpu_count() or 1))
"""Kernel: launches wait for its locks of cgroups and mounts; of fifty, eight at once take 28 to 35 ms each, four 24."""


@contextlib.contextmanager
def locked(path: str, key: Key, *, doing: str) -> Iterator[None]:
    """Hold the container's lock. Raises LockTimeout naming the holder, and Failed where there is no bundle."""
    try:
        held = files.lock(f"{path}/{bundle.LOCK}", _LOCK_SECONDS, doing=f"{doing} {key}")
    except files.LockHeld as error:
        raise LockTimeout(str(key), error.holder) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Failed(f"{key}: {doing}: its bundle is gone", hint="apply again: it is made anew") from error
    with held:
        yield


def run(
    path: str,
    key: Key,
    created: Callable[[], None] | None = None,
    ready: Callable[[], None] | None = None,
    premade: dict[str, Any] | None = None,
) -> Status:
    """Make it run, its count begun anew. One that runs already is left alone, a paused one goes on. Called under
    the lock; `ready` is called once it is made and before it counts as running, `created` just before it begins.
    `premade` is what `create` gave, where it was called before.

    Raises ProgramFailed with the runtime's words, and what the two raise; it is prepared still.
    """
    monitor = bundle.read_json(path, bundle.MONITOR)
    now = status.read_status(path, monitor["id"])
    rules = policy.read_policy(path) or policy.Policy()
    if now.phase in (Phase.RUNNING, Phase.PAUSED) and status.is_running(bundle.read_json(path, bundle.STATE)):
        _set_policy(path, rules, mark="" if rules.mark == policy.RESTART else rules.mark)
        return thaw(path, key, now)
    # Order: the mark goes before it runs: an exit right after the start must find the policy in force.
    rules.attempts = rules.restarts = 0
    rules.gave_up, rules.ends = False, []
    _set_policy(path, rules, mark="" if rules.mark == policy.RESTART else rules.mark)
    with _telling(key):
        if premade is None or not (status.is_running(premade) and status.is_followed(premade)):
            with _launches:
                premade = conmon.create(path, monitor)
        state = {**premade, "started_at": time.time()}
        if ready is not None:
            _call_before(ready, monitor)
        conmon.begin(path, monitor, state, created)
    return Status(
        phase=Phase.RUNNING, incarnation=monitor["id"], pid=state["pid"], started_at=state["started_at"], health=now.health
    )


def create(path: str, key: Key) -> dict[str, Any]:
    """Make everything up to its first process, for a `run` that is still to come. Called under the lock. Raises as that."""
    with _telling(key), _launches:
        return conmon.create(path, bundle.read_json(path, bundle.MONITOR))


@contextlib.contextmanager
def _telling(key: Key) -> Iterator[None]:
    """Raise ProgramFailed for what the runtime or the kernel refuses."""
    try:
        yield
    except (runc.RuntimeFailed, OSError) as error:
        tried = error.tried if isinstance(error, runc.RuntimeFailed) else "start"
        words = runc.words_of(error)
        raise ProgramFailed(str(key), tried, words, _hint_for(words), code=runc.exit_code_of(words)) from error


def _call_before(ready: Callable[[], None], monitor: dict[str, Any]) -> None:
    try:
        ready()
    except BaseException:
        conmon.abandon(monitor)
        raise


def _hint_for(words: str) -> str:
    code = runc.exit_code_of(words)
    if "executable file not found" in words or (code == 127 and "exec" in words):
        return "the image has no such program: look at `command` and `entrypoint`"
    if code == 126:
        return "the program may not be executed: look at its mode and format in the image"
    return "`reconcile doctor` looks at the programs and the kernel; what is mended is taken up by the next apply"


def _set_policy(path: str, rules: policy.Policy, *, mark: str, apply: ApplyId | None = None) -> None:
    rules.mark = mark
    rules.apply = None if apply is None else msgspec.to_builtins(apply)
    policy.write_policy(path, rules)


def write_rules(path: str, restart: str) -> None:
    """Put a restart policy in force, keeping counts and mark. Called under the lock, or before anybody knows the bundle."""
    rules = policy.read_policy(path)
    if rules is None or rules.restart != restart:
        rules = rules or policy.Policy()
        rules.restart = restart
        rules.gave_up = False
        policy.write_policy(path, rules)


def follow(path: str) -> None:
    """Have what it says logged, and its exit followed unless a mark says that nothing is to. Called under the lock."""
    rules, monitor = policy.read_policy(path), bundle.read_json(path, bundle.MONITOR)
    if monitor:
        rotation.renew(path, monitor)
    if rules is not None and not rules.mark and not os.path.exists(f"{path}/{bundle.ON_EXIT}"):  # noqa: PTH110
        conmon.arm(path, monitor)


def unmark(path: str) -> None:
    """Take the mark off. Called under the lock."""
    rules = policy.read_policy(path)
    if rules is not None and rules.mark:
        _set_policy(path, rules, mark="")


def pause(path: str, key: Key) -> Status:
    """Freeze what runs. The mark stands before, so that nothing starts it should it be killed. Called under the lock.

    Raises Failed where it does not run, ProgramFailed with the runtime's words.
    """
    monitor = bundle.read_json(path, bundle.MONITOR)
    now = status.read_status(path, monitor.get("id", ""))
    if now.phase not in (Phase.RUNNING, Phase.PAUSED):
        raise Failed(f"{key}: pause: it is {now.phase.value}, not running", hint=f"reconcile start {split_key(key).name}")
    rules = policy.read_policy(path) or policy.Policy()
    before = rules.mark
    _set_policy(path, rules, mark=policy.HOLD)
    if now.phase is Phase.RUNNING:
        try:
            _call_runtime(monitor, key, "pause")
        except BaseException:
            _set_policy(path, rules, mark=before)
            raise
    return status.read_status(path, monitor["id"])


def unpause(path: str, key: Key) -> Status:
    """Let it go on, its mark taken off. Called under the lock."""
    unmark(path)
    return thaw(path, key, status.read_status(path, bundle.read_json(path, bundle.MONITOR).get("id", "")))


def thaw(path: str, key: Key, now: Status) -> Status:
    """Let one that is paused go on, whoever paused it; its status then. Called under the lock."""
    if now.phase is not Phase.PAUSED:
        return now
    monitor = bundle.read_json(path, bundle.MONITOR)
    _call_runtime(monitor, key, "resume")
    return status.read_status(path, monitor["id"])


def _call_runtime(monitor: dict[str, Any], key: Key, verb: str) -> None:
    try:
        runc.call(monitor["runtime"], monitor["runtime_root"], verb, [monitor["id"]])
    except runc.RuntimeFailed as error:
        raise ProgramFailed(str(key), error.tried, error.words, f"reconcile describe {key}") from error


def halt(path: str, *, mark: str, apply: ApplyId, number: int, grace: float) -> Status:
    """Mark it, then stop it: signal `number`, `grace` seconds, SIGKILL. Called under the lock.

    `mark` "" means that the caller starts it again itself. Raises TimedOut when even SIGKILL does not end it.
    """
    rules = policy.read_policy(path) or policy.Policy()
    # Order: the mark stands before the signal, so that the exit command finds it whenever it comes.
    _set_policy(path, rules, mark=mark or policy.RESTART, apply=apply)
    if mark in (policy.HOLD, policy.GONE):
        conmon.disarm(path)
    monitor = bundle.read_json(path, bundle.MONITOR)
    state = bundle.read_json(path, bundle.STATE)
    if running := status.is_running(state):
        # Race: the mark may be taken off again before the exit command has its first look; whoever halts a run starts it.
        bundle.write_json(path, bundle.STATE, {**state, "halted": True})
        _end_process(monitor, state, number=number, grace=grace)
        _wait_for_exit_file(path, monitor, state)
    if mark == policy.HOLD and state:
        _keep_end(path, monitor, state, rules, stopped=running or bool(state.get("halted")))
    return status.read_status(path, monitor.get("id", ""))


def _keep_end(path: str, monitor: dict[str, Any], state: dict[str, Any], rules: policy.Policy, *, stopped: bool) -> None:
    """A reboot takes the bundle away, and what was stopped has still ended."""
    how = {"code": None, "at": time.time(), "oom": False} | status.read_exit(path, monitor, state)
    kept = {name: how[name] for name in ("code", "at", "oom")}
    more = {"started_at": state["started_at"], "restarts": rules.restarts, "gave_up": rules.gave_up, "held": True}
    ended.write_ended(monitor.get("ended", ""), kept | more | {"stopped": stopped})


def send(path: str, number: int) -> None:
    """Signal its first process, if it runs."""
    state = bundle.read_json(path, bundle.STATE)
    if state:
        process.send_signal(state["pid"], state["start_time"], number)


def _end_process(monitor: dict[str, Any], state: dict[str, Any], *, number: int, grace: float) -> None:
    pidfd = process.open_pidfd(state["pid"], state["start_time"])
    if pidfd < 0:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            with failpoint.change("signal"):
                signal.pidfd_send_signal(pidfd, number)
            if cgroups.is_frozen(monitor["cgroup"]):
                cgroups.thaw(monitor["cgroup"])
            if not process.wait_readable(pidfd, seconds=grace):
                with failpoint.change("signal"):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not process.wait_readable(pidfd, seconds=_KILL_SECONDS):
            raise TimedOut(
                f"{monitor['key']}: pid {state['pid']} does not end although it was killed",
                hint="it hangs in the kernel, mostly on a disk or a network file system that does not answer",
            )
    finally:
        os.close(pidfd)


def _wait_for_exit_file(path: str, monitor: dict[str, Any], state: dict[str, Any]) -> None:
    """conmon writes it a moment after the end; one that is dead never will."""
    file = f"{path}/{bundle.EXITS}/{monitor['id']}"
    deadline = time.monotonic() + _EXIT_FILE_SECONDS
    pause = 0.001
    while not os.path.exists(file) and time.monotonic() < deadline:  # noqa: PTH110
        if not status.is_followed(state):
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def end(path: str, *, key: Key, apply: ApplyId, number: int, grace: float) -> None:
    """End everything of it that runs: process, monitor, exit command, and the runtime's state. Its bundle stays.

    The lock is taken for the mark and the kill, let go while the monitor ends, and not needed after that.
    """
    monitor = bundle.read_json(path, bundle.MONITOR)
    with locked(path, key, doing="delete"):
        halt(path, mark=policy.GONE, apply=apply, number=number, grace=grace)
        state = bundle.read_json(path, bundle.STATE)
    if status.is_followed(state):
        end_monitor(state["monitor"], state["monitor_start"])
    if monitor:
        if conmon.read_pid(path) != state.get("monitor"):  # A kill between create and record left one that nobody knows.
            _kill_monitors(monitor["monitors"], monitor["id"])
        conmon.clear(path, monitor)


def end_monitor(pid: int, start_time: int) -> None:
    """Wait for a conmon whose container has ended, and its exit command with it; after ten seconds they are killed."""
    if not process.wait_gone(pid, start_time, seconds=_MONITOR_SECONDS):
        process.send_signal(pid, start_time, signal.SIGKILL)


def end_without_bundle(cgroup: str, monitors: str, incarnation: str, runtime_root: str) -> None:
    """As `end`, where the bundle was lost: what runs is found by the cgroup and by conmon's command line."""
    _kill_monitors(monitors, incarnation)
    if cgroups.exists(cgroup):
        cgroups.thaw(cgroup)
        cgroups.kill(cgroup, seconds=_KILL_SECONDS)
    runc.forget(runtime_root, incarnation, cgroup)


def _kill_monitors(monitors: str, incarnation: str) -> None:
    for pid in conmon.find_makers(monitors, incarnation):
        process.send_signal(pid, process.read_start_time(pid), signal.SIGKILL)
