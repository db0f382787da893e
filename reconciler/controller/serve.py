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
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.api.server import Server
from reconciler.controller.approvals import APPROVALS
from reconciler.controller.folders import FolderWatcher
from reconciler.controller.keeper import ALL, Keeper
from reconciler.controller.listeners import open_listeners
from reconciler.controller.loop import Loop
from reconciler.controller.metrics import Metrics, State
from reconciler.controller.probes import Probes
from reconciler.controller.settings import FIXED, MOST_CONTAINERS, Settings, WatchOptions
from reconciler.controller.sources.directory import ChooseTerms, DirectorySource
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.sighting import Source
from reconciler.controller.sources.terms import choose_terms
from reconciler.controller.tally import Tally
from reconciler.controller.watch import Watcher
from reconciler.linux.bounded import end_all
from reconciler.linux.files import make_folders
from reconciler.linux.heap import share_heap
from reconciler.linux.notify import notify, read_watchdog
from reconciler.linux.process import raise_descriptors
from reconciler.model.errors import ReconcileError
from reconciler.model.events import AnyEvent, Changed, Note
from reconciler.store.events import write_retention
from reconciler.verbs.approval import FOLDER
from reconciler.verbs.look import Look
from reconciler.verbs.root import RUN, Root, this_process
from reconciler.verbs.serving import DEFAULT_ROOT, Serving, read_last_socket, write_serving

if TYPE_CHECKING:
    from reconciler.controller.notifications import Notifier

LAST_WORK = 20.0
"""Seconds that what is at work has to end by itself once we are told to stop."""
LAST_PROBE = 1.0
AWAY = 4
"""How many repositories are asked at once."""
LOCK_TIMEOUT = 5.0
"""Seconds that a worker waits for a lock of somebody else's before it looks at another key."""


LOST = "more changed in the watched folders than the kernel could keep (fs.inotify.max_queued_events): all are read anew"
EVENTS, SHRINK_AGAIN = "events", 0.1
"""The key of the event log, and seconds between two looks at it while it is too large."""
MOST_DESCRIPTORS = 65_536
"""One of each container's process is open as long as it runs."""


def serve(
    root: Root, settings: Settings, *, tell: Callable[[AnyEvent], None], reread: Callable[[], Settings] | None = None
) -> bool:
    """Serve until SIGTERM or SIGINT. Whether nothing was at work any more at the end. SIGHUP has `reread` say what to serve
    from then on, and all sources read anew.

    Raises LockTimeout where another controller has the root. Called from the main thread.
    """
    with ExitStack() as left:
        left.enter_context(root.owned())
        root.lock_timeout = LOCK_TIMEOUT
        raise_descriptors(MOST_DESCRIPTORS)
        share_heap()
        serving = _Serving(root, settings, tell)
        signals = left.enter_context(_Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        left.callback(serving.close)
        serving.start()
        notify("READY=1")
        tell(Note(text=f"serving {', '.join(serving.keeper.sources)} into {root.path}"))
        _wait(signals, lambda: serving.reload(reread))
        notify("STOPPING=1")
        ended = serving.stop()
        how = "" if ended else "; what is at work is taken up by the next command"
        tell(Note(text=f"stopped{how}: containers run on"))
        return ended


class _Serving:
    """Everything that runs in one controller."""

    def __init__(self, root: Root, settings: Settings, tell: Callable[[AnyEvent], None]) -> None:
        self._root = root
        self._settings = settings
        self._left = ExitStack()
        self._keep_events()
        self._tally = Tally(time.monotonic)
        self._notifier: Notifier | None = None
        self._use_targets()
        self._tell = tell
        self._loop = Loop(self._tally.timed(self._work), workers=settings.workers)
        self._away = Loop(self._tally.timed(lambda key: self.keeper.work(key)), workers=AWAY)
        """For repositories: one that does not answer keeps no stack waiting."""
        self._watcher = Watcher(self._loop.add)
        self._folders = FolderWatcher(self._loop.add, lambda: self.keeper.note(LOST, level="warning"))
        self._probes = Probes(
            root,
            say=lambda *words, **over: self.keeper.say(*words, **over),
            add=self._loop.add,
            count=self._count,
            well=lambda stack: self.keeper.unblock(stack),
        )
        path = settings.listen or choose_socket(root)
        self._api = Server(
            root, path, own=path in (choose_socket(root), read_last_socket(root.path)), ready=lambda: self.keeper.ready,
            metrics=lambda: self.metrics.render(),
        )  # fmt: skip
        self._publish = _Publisher(root, time.time(), path, lambda: self.keeper)
        self.keeper: Keeper = Keeper(
            root, open_sources(root.path, settings), settings.policy, renew=self._loop.renew, add=self._loop.add,
            tell=self._hear, watch=self._follow, follow=self._folders.follow, changed=self._publish, count=self._count,
            announce=self._announce,
        )  # fmt: skip
        chosen = settings.metrics
        self.metrics = Metrics(
            self._tally,
            self._measure,
            read_health=self._probes.read,
            most_containers=chosen.containers if chosen else MOST_CONTAINERS,
        )
        self._listeners = open_listeners(
            settings, metrics=self.metrics.render, ready=lambda: self.keeper.ready, look=self._look_at_repositories
        )

    def _hear(self, event: AnyEvent) -> None:
        """What anybody tells goes through here."""
        self._tally.see(event)
        if isinstance(event, Changed) and event.verb == "heal" and event.result == "done":
            more = f", and {event.count - 1} more" if event.count > 1 else ""
            self._announce("drifted", f"healed {event.stack}", f"mended: {event.actions[0]}{more}", event.stack)
        self._tell(event)

    def _work(self, key: str) -> float | None:
        return self._shrink_events() if key == EVENTS else self.keeper.work(key)

    def _shrink_events(self) -> float | None:
        """Some of those that are more than is kept: whoever writes meanwhile waits for few."""
        with self._root.lock_root("events"), self._root.store.write() as tx:
            return SHRINK_AGAIN if tx.shrink_events() else None

    def _count(self, what: str, by: int) -> None:
        self._tally.count(what, by=by)

    def _announce(self, kind: str, about: str, text: str, stack: str) -> None:
        if self._notifier is not None:
            self._notifier.tell(kind, about, text, stack)

    def _use_targets(self) -> None:
        """Tell whom the configuration names. What does that is imported where there is somebody."""
        targets = self._settings.notifications
        if self._notifier is None and targets:
            from reconciler.controller.notifications import Notifier

            count = partial(self._tally.count, "notifications")
            self._notifier = Notifier(
                self._root.path, say=lambda *words, **over: self.keeper.say(*words, **over), count=count
            )
        if self._notifier is not None:
            self._notifier.use(targets)

    def _measure(self) -> State:
        loops = {"work": self._loop, "repositories": self._away, "probes": self._probes.loop}
        queues = {name: loop.measure() for name, loop in loops.items()}
        return State(
            serving=self._publish.read(),
            queued={name: queued for name, (queued, _) in queues.items()},
            working={name: working for name, (_, working) in queues.items()},
            ready=self.keeper.ready,
        )

    def _follow(self, looked: Look) -> None:
        self.metrics.follow(looked)
        self._watcher.follow(looked.observation)
        self._probes.follow(looked)

    def start(self) -> None:
        """Begin. Raises Failed where nobody can listen at the socket."""
        for text in self._root.engine.inside.end_abandoned():
            self.keeper.note(text)
        self._api.start()
        for watcher in (self._watcher, self._folders):
            watcher.start()
            self._left.callback(watcher.stop)
        self._watch_approvals()
        self._look_again()
        for loop in (self._loop, self._away, self._probes.loop):
            loop.start()
        for listener in self._listeners:
            listener.start()
            self._left.callback(listener.stop)

    def _watch_approvals(self) -> None:
        """Hear of what is approved. Where the folder can't be made, that is seen with the next look at everything."""
        folder = self._root.path / FOLDER
        with suppress(OSError):
            make_folders(folder)
        self._folders.follow(str(folder), APPROVALS)

    def _look_again(self) -> None:
        self._loop.add(EVENTS)
        for name in self.keeper.sources:
            self.look_now(name)
        self._loop.renew(ALL)

    def reload(self, reread: Callable[[], Settings] | None) -> None:
        """Take up what the configuration says now. Where it can't be read, what was before stays in force, and that is
        told."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            settings = reread() if reread is not None else self._settings
        except Exception as error:  # noqa: BLE001 a mistake of ours in it ends no controller either
            self._tally.count("reloads", "failed")
            self._publish.problem = _say_problem(error)
            self.keeper.say("configuration", f"not reloaded, what was read before stays in force: {self._publish.problem}")
        else:
            self._tally.count("reloads", "done")
            self._publish.problem = ""
            self.keeper.say("configuration", "", over="the configuration is right again")
            if settings != self._settings:
                self._take(settings)
        self._publish()
        self._look_again()
        notify("READY=1")

    def _keep_events(self) -> None:
        if self._settings.events is not None:
            with suppress(OSError):  # A full disk: what was set before holds, and the next start sets it.
                write_retention(self._root.path, self._settings.events)

    def _take(self, settings: Settings) -> None:
        later = [name for name in FIXED if getattr(settings, name) != getattr(self._settings, name)]
        before = self.keeper.sources
        sources = open_sources(self.keeper.root.path, settings, before)
        for gone in before.keys() - {source.name for source in sources}:
            for loop in (self._loop, self._away):
                loop.drop(f"source {gone}")
            self._folders.forget(gone)
        self.keeper.reload(sources, settings.policy)
        self._settings = settings
        self._keep_events()
        self._use_targets()
        words = f"reloaded: serving {', '.join(self.keeper.sources)}"
        if later:
            words += f"; {', '.join(later)} as of the next start"
        self.keeper.note(words)

    def look_now(self, source: str) -> bool:
        """Have a source looked at at once, for somebody says that there is something new; False where none is called so.
        From any thread."""
        known = self.keeper.sources.get(source)
        if known is None:
            return False
        (self._away if known.kind == "git" else self._loop).renew(f"source {source}")
        return True

    def _look_at_repositories(self) -> int:
        """Have all of them looked at at once; how many that are."""
        named = [name for name, source in self.keeper.sources.items() if source.kind == "git"]
        return sum(map(self.look_now, named))

    def stop(self) -> bool:
        """Begin nothing any more; whether all that was at work ended by itself."""
        self._api.stop()
        ended = self._loop.stop(LAST_WORK)
        # What hangs in a check changes nothing, and what is being fetched is fetched again.
        self._away.stop(0.0)
        end_all()
        self._away.stop(LAST_PROBE)
        self._probes.loop.stop(LAST_PROBE)
        if self._notifier is not None:
            self._notifier.stop()
        self._publish.ended = time.time()
        self._publish()
        return ended

    def close(self) -> None:
        """Let go of what was begun."""
        self._left.close()


def _say_problem(error: Exception) -> str:
    if isinstance(error, ReconcileError):
        return f"{error.brief}\n{error.detail}".strip()
    return f"a mistake of ours: {type(error).__name__}: {error}"


def open_sources(root: Path, settings: Settings, before: Mapping[str, Source] = MappingProxyType({})) -> list[Source]:
    """The sources that a configuration names: those that were there before are the same, for they know the last valid
    version of each file."""
    found: list[Source] = []
    for options in settings.sources:
        known = before.get(options.name)
        if isinstance(options, GitOptions):
            same = isinstance(known, GitSource) and known.options == options
            found.append(known if known is not None and same else GitSource(options, root))
        elif isinstance(known, DirectorySource):
            known.use(options.variables, choose_terms_of(options))
            found.append(known)
        else:
            terms = choose_terms_of(options)
            found.append(DirectorySource(options.folder, variables=options.variables, terms=terms))
    return found


def choose_terms_of(options: WatchOptions) -> ChooseTerms:
    """The terms of each entry of a watched folder."""
    return lambda files: choose_terms(options.allow, options.folder, files)


def choose_socket(root: Root) -> Path:
    """Where the API answers unless somebody says otherwise. Makes the folder."""
    RUN.mkdir(mode=0o711, parents=True, exist_ok=True)
    return RUN / ("api.sock" if root.path == DEFAULT_ROOT else f"api-{root.root_id}.sock")


class _Publisher:
    """Writes what the controller says of itself, in turn."""

    def __init__(self, root: Root, since: float, path: Path, keeper: Callable[[], Keeper]) -> None:
        self._root = root
        self._since = since
        self._path = path
        self._keeper = keeper
        self._lock = threading.Lock()
        self.problem = ""
        """Why the configuration that is in force is not the one of its file."""
        self.ended = 0.0
        """When it was told to end, and did."""

    def __call__(self) -> None:
        with self._lock, suppress(OSError):  # A full disk: what runs matters more than what is said of it.
            write_serving(self._root.path, self.read())

    def read(self) -> Serving:
        """What it says now."""
        keeper = self._keeper()
        sources, stacks = keeper.read_state()
        return Serving(
            process=this_process(), since=self._since, at=0.0, socket=str(self._path), problem=self.problem,
            sources=sources, stacks=stacks, ended=self.ended,
        )  # fmt: skip


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
