"""What looks into containers that run: logs, exec, attach, wait, probe, kill. protocol.Inside over a root's bundles.

Its neighbours: logs.py reads, exec.py runs, attach.py connects, health.py judges. It never starts or stops a container.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import IO, Any

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime import bundle, files, health, logs, probes, rotation, status
from reconciler.engine.native.runtime import exec as execution
from reconciler.engine.native.runtime.attach import NativeLine
from reconciler.engine.native.runtime.execterm import run_on_terminal
from reconciler.engine.native.runtime.spec import Unstartable
from reconciler.engine.native.runtime.users import BadUser, Identity, resolve_user
from reconciler.engine.protocol import ExecResult, FileSeen, LogLine, Streams
from reconciler.linux import cgroups, process
from reconciler.model.errors import Failed
from reconciler.model.health import HTTP, TCP
from reconciler.model.key import split_key
from reconciler.model.observation import Health, Phase, Status
from reconciler.model.record import Made

_SHELL = ("/bin/sh", "-c")
_PAUSE = 0.01


class NativeInside:
    """Inside of the containers of one root."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def _bundle(self, made: Made) -> str:
        return str(self._layout.bundles / made.incarnation)

    def logs(
        self, made: Made, *, tail: int | None, since: float, follow: bool, stop: Callable[[], bool]
    ) -> Iterator[LogLine]:
        """The log, oldest line first, over rotated files too; with `follow`, on until `stop()` or the container is gone
        (ended, and not about to run again)."""
        path = self._bundle(made)
        log = str(log_path(self._layout, made.incarnation))
        rotate_log(path)
        if not follow:
            return logs.read_lines(log, tail=tail, since=since)
        return logs.follow_lines(log, tail=tail, since=since, stop=stop, ended=lambda: self._has_ended(path, made))

    def _has_ended(self, path: str, made: Made) -> bool:
        now = status.read_status(path, made.incarnation)
        return now.phase not in (Phase.RUNNING, Phase.PAUSED, Phase.CREATED) and not now.restarting

    def exec(
        self,
        made: Made,
        command: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = False,
        user: str = "",
        workdir: str = "",
        env: Mapping[str, str] = {},
        streams: Streams | None = None,
    ) -> ExecResult:
        """Run a command in it with our own stdin (if asked), stdout and stderr, or with `streams`. Raises Failed where it
        does not run, or the user is none."""
        path, monitor = self._need_running(made, "exec")
        identity = self._resolve(made, path, user)
        config = bundle.read_json(path, bundle.CONFIG)
        try:
            wanted = execution.render_process(config, command, identity, tty=tty, workdir=workdir, env=env)
        except Unstartable as error:
            raise Failed(f"{made.key}: exec: {error}") from error
        if tty:
            return ExecResult(exit_code=run_on_terminal(path, monitor, wanted, stdin=stdin, streams=streams))
        return ExecResult(exit_code=execution.run_attached(path, monitor, wanted, stdin=stdin, streams=streams))

    def end_abandoned(self) -> Iterator[str]:
        """As the protocol says."""
        # Only where files of one are: a root may have hundreds of containers.
        for path in sorted({str(file.parent) for file in self._layout.bundles.glob(f"*/{execution.FILES}*.json")}):
            monitor = bundle.read_json(path, bundle.MONITOR)
            for pid in execution.end_abandoned(path, monitor) if monitor else ():
                yield f"{monitor['key']}: killed a command (pid {pid}), for the `exec` that ran it was killed"

    def _need_running(self, made: Made, tried: str) -> tuple[str, dict[str, Any]]:
        path = self._bundle(made)
        now = status.read_status(path, made.incarnation)
        if now.phase is not Phase.RUNNING:
            name = split_key(made.key).name
            hint = f"reconcile unpause {name}" if now.phase is Phase.PAUSED else f"`reconcile describe {made.key}`"
            raise Failed(f"{made.key}: {tried}: it is {now.phase.value}, not running", hint=hint)
        return path, bundle.read_json(path, bundle.MONITOR)

    def _resolve(self, made: Made, path: str, user: str) -> Identity | None:
        if not user:
            return None
        try:
            return resolve_user(user, root=f"{path}/{bundle.ROOTFS}")
        except BadUser as error:
            raise Failed(f"{made.key}: exec: {error}") from error

    def attach(self, made: Made) -> NativeLine:
        """Open a line to one that was made or runs. Raises Failed where nothing runs."""
        path = self._bundle(made)
        state = bundle.read_json(path, bundle.STATE)
        if not status.is_running(state):
            now = status.read_status(path, made.incarnation)
            raise Failed(f"{made.key}: attach: it is {now.phase.value}, not running", hint=f"reconcile start {made.key}")
        return NativeLine(path, made.key, bundle.read_json(path, bundle.MONITOR), state)

    def wait(self, made: Made, *, seconds: float) -> Status:
        """Wait until it has ended and is not about to be started again, at most so long; its status then."""
        path = self._bundle(made)
        deadline = time.monotonic() + seconds
        while True:
            now = status.read_status(path, made.incarnation)
            left = deadline - time.monotonic()
            # Race: one that is being started again is created for a moment, as one that never ran is.
            again = now.restarting or (now.phase is Phase.CREATED and now.restarts > 0)
            if left <= 0 or not (again or now.phase in (Phase.RUNNING, Phase.PAUSED)):
                return now
            state = bundle.read_json(path, bundle.STATE)
            if not state or process.wait_gone(state["pid"], state["start_time"], seconds=left):
                time.sleep(min(left, _PAUSE))  # until its monitor has written down how it ended, or runs it again

    def probe(self, made: Made, *, timeout: float) -> tuple[Health, str]:
        """Make its health check once: healthy or unhealthy, and the end of what the check printed; NONE without a check.

        The result is kept in the bundle with its time, for `observe`. One that can't be made is unhealthy.
        """
        path, monitor = self._need_running(made, "health check")
        check = status.read_check(monitor)
        if check is None:
            return Health.NONE, ""
        state, at = bundle.read_json(path, bundle.STATE), process.read_uptime()
        age = process.read_age(state["start_time"])
        if check.test[0] in (HTTP, TCP):
            init = (state["pid"], state["start_time"])
            healthy, text = probes.ask(check.test, init=init, address=_own_address(made), timeout=timeout)
        else:
            healthy, text = self._run_check(path, monitor, check.test, timeout)
        health.note_result(path, check, state, healthy=healthy, age=age, at=at, text=text)
        return (Health.HEALTHY if healthy else Health.UNHEALTHY), text

    def _run_check(self, path: str, monitor: Mapping[str, Any], test: Sequence[str], timeout: float) -> tuple[bool, str]:
        kind, *words = test
        # Compat: any first word but CMD-SHELL is a command in words, as Docker reads CMD.
        command = [*_SHELL, *words] if kind == "CMD-SHELL" else words
        config = bundle.read_json(path, bundle.CONFIG)
        wanted = execution.render_process(config, command, None, tty=False, workdir="", env={})
        code, text = execution.run_captured(path, monitor, wanted, timeout=timeout)
        if code is None:
            text = f"{text}\nit took longer than {timeout:g} s".lstrip()
        return code == 0, text

    def look(self, made: Made, path: str, *, follow: bool) -> FileSeen | None:
        """As the protocol says."""
        return files.look(self._bundle(made), made, path, follow=follow)

    def copy_out(
        self, made: Made, path: str, to: IO[bytes], *, top: str, follow: bool, skipped: Callable[[str], None]
    ) -> None:
        """As the protocol says."""
        files.copy_out(self._bundle(made), made, path, to, top=top, follow=follow, skipped=skipped)

    def copy_in(
        self,
        made: Made,
        folder: str,
        stream: IO[bytes],
        *,
        owner: tuple[int, int] | None,
        skipped: Callable[[str], None],
    ) -> None:
        """As the protocol says."""
        files.copy_in(self._bundle(made), made, folder, stream, owner=owner, skipped=skipped)

    def kill(self, made: Made, signal: int) -> None:
        """Send a signal to its first process, by pidfd after a look at its start time. Raises Failed where none runs."""
        path = self._bundle(made)
        state = bundle.read_json(path, bundle.STATE)
        if not state or not process.send_signal(state["pid"], state["start_time"], signal):
            raise Failed(f"{made.key}: kill: it does not run", hint="`reconcile get containers` shows what does")
        cgroup = bundle.read_json(path, bundle.MONITOR)["cgroup"]
        # Kernel: what a v1 freezer holds does not even die.
        if signal == SIGKILL and cgroups.is_frozen(cgroup):
            cgroups.thaw(cgroup)


def _own_address(made: Made) -> str:
    """Where it is asked: on its first network, on the host's and on none at the loopback."""
    places = sorted(made.grants.endpoints.items())
    return places[0][1].address if places else "127.0.0.1"


def log_path(layout: Layout, incarnation: str) -> Path:
    """Where a container's log is: under the root, for it outlives the bundle."""
    return layout.containers / incarnation / "logs" / "container.log"


def rotate_log(path: str) -> None:
    """Whoever looks at a log keeps it bounded; if somebody works on the container just now, they do."""
    lock = bundle.try_lock(path)
    if lock < 0:
        return
    try:
        monitor = bundle.read_json(path, bundle.MONITOR)
        if monitor:
            rotation.rotate(path, monitor)
    finally:
        os.close(lock)
