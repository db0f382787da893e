"""The controller: sources, keeper, loop and watcher put together, until somebody says stop.

It holds a lock of its own for its life, so that a root has one. Stopped or killed at any moment it stops no container:
what was at work is taken up by the next one, or by the next command.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from msgspec import Struct

from reconciler.controller.keeper import ALL, Keeper, Policy
from reconciler.controller.loop import Loop
from reconciler.controller.probes import Probes
from reconciler.controller.sources.directory import DirectorySource
from reconciler.controller.watch import FolderWatcher, Watcher
from reconciler.linux.notify import notify, read_watchdog
from reconciler.model.events import AnyEvent, Note
from reconciler.verbs.look import Look
from reconciler.verbs.root import Root, this_process
from reconciler.verbs.serving import Serving, write_serving

LAST_WORK = 20.0
"""Seconds that what is at work has to end by itself once we are told to stop."""
LAST_PROBE = 1.0
LOCK_TIMEOUT = 5.0
"""Seconds that a worker waits for a lock of somebody else's before it looks at another key."""


class ServeOptions(Struct, frozen=True, kw_only=True):
    """What to serve."""

    folders: tuple[Path, ...]
    variables: Mapping[str, str]
    policy: Policy
    workers: int = 4


def serve(root: Root, options: ServeOptions, *, tell: Callable[[AnyEvent], None]) -> bool:
    """Serve until SIGTERM or SIGINT; SIGHUP reads all sources anew. Whether nothing was at work any more at the end.

    Raises LockTimeout where another controller has the root. Called from the main thread.
    """
    with ExitStack() as left:
        left.enter_context(root.owned())
        root.lock_timeout = LOCK_TIMEOUT
        sources = [DirectorySource(folder, variables=options.variables) for folder in options.folders]
        loop = Loop(lambda key: keeper.work(key), workers=options.workers)
        watcher, folders = Watcher(loop.add), FolderWatcher(loop.add)
        probes = Probes(root, say=lambda *words, **over: keeper.say(*words, **over), add=loop.add)

        def follow(looked: Look) -> None:
            watcher.follow(looked.observation)
            probes.follow(looked)

        keeper = Keeper(
            root, sources, options.policy, renew=loop.renew, add=loop.add, tell=tell, watch=follow, follow=folders.follow,
            changed=_Publisher(root, time.time(), lambda: keeper),
        )  # fmt: skip
        keys = [f"source {source.name}" for source in sources]

        def again() -> None:
            for key in (*keys, ALL):
                loop.renew(key)

        signals = left.enter_context(_Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        watcher.start()
        left.callback(watcher.stop)
        folders.start()
        left.callback(folders.stop)
        again()
        loop.start()
        probes.loop.start()
        notify("READY=1")
        tell(Note(text=f"serving {', '.join(source.name for source in sources)} into {root.path}"))
        _wait(signals, again)
        notify("STOPPING=1")
        ended = loop.stop(LAST_WORK)
        probes.loop.stop(LAST_PROBE)  # One that hangs in its check changes nothing.
        how = "" if ended else "; what is at work is taken up by the next command"
        tell(Note(text=f"stopped{how}: containers run on"))
        return ended


class _Publisher:
    """Writes what the controller says of itself, in turn."""

    def __init__(self, root: Root, since: float, keeper: Callable[[], Keeper]) -> None:
        self._root = root
        self._since = since
        self._keeper = keeper
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock, suppress(OSError):  # A full disk: what runs matters more than what is said of it.
            write_serving(self._root.path, self._state())

    def _state(self) -> Serving:
        keeper = self._keeper()
        sources, stacks = keeper.read_state()
        return Serving(process=this_process(), since=self._since, at=0.0, sources=sources, stacks=stacks)


class _Signals:
    """Signals that are waited for. A handler would run in the middle of whatever holds a lock; a pipe has none."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._numbers = numbers
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> "_Signals":
        self._before = {number: signal.signal(number, lambda *_: None) for number in self._numbers}
        self._before_fd = signal.set_wakeup_fd(self._wake)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._before_fd)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._woken)
        os.close(self._wake)

    def wait(self, seconds: float | None) -> frozenset[int]:
        """Those that came, within so many seconds; none where none did."""
        select.select([self._woken], [], [], seconds)
        try:
            return frozenset(os.read(self._woken, 512))
        except BlockingIOError:
            return frozenset()


def _wait(signals: _Signals, again: Callable[[], None]) -> None:
    """Sleep until told to stop; nothing wakes but a signal, and the watchdog's turn."""
    watchdog = read_watchdog()
    while True:
        came = signals.wait(watchdog / 2 if watchdog else None)
        if came & {signal.SIGTERM, signal.SIGINT}:
            return
        if signal.SIGHUP in came:
            again()
        if watchdog:
            notify("WATCHDOG=1")
