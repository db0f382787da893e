"""Turns what happens into keys to look at: processes that end, changes of links and rules. Of files that is `folders.py`.

One thread waits for all of it and is woken by nothing else. What it hears is gathered for a moment: a container that starts
makes a dozen changes. Decides nothing.
"""

import os
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from reconciler.controller.keeper import ALL
from reconciler.linux.kernelevents import drain, open_network_events
from reconciler.linux.process import open_pidfd, read_start_time
from reconciler.model.key import stack_of
from reconciler.model.observation import Observation, Phase

AFTER_EXIT = 1.0
"""Seconds after the end of a process until its stack is looked at: its exit command restarts it meanwhile."""
GATHER = 0.5
"""Seconds in which changes of the network count as one."""

Add = Callable[[str, float], None]


class Watcher:
    """The machine, watched."""

    def __init__(self, add: Add) -> None:
        self._add = add
        self._selector = selectors.DefaultSelector()
        self._pidfds: dict[int, tuple[int, str]] = {}
        self._lock = threading.Lock()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begin. Without netlink (a kernel that lacks it) only processes are watched."""
        with suppress(OSError):
            self._sockets = open_network_events()
        for one in self._sockets:
            self._selector.register(one, selectors.EVENT_READ, one)
        self._thread.start()

    def stop(self) -> None:
        """End, and let go of everything."""
        self._stopping = True
        os.write(self._wake, b"x")
        self._thread.join(5)
        for number, _ in self._pidfds.values():
            os.close(number)
        for one in self._sockets:
            one.close()
        self._selector.close()
        os.close(self._woken)
        os.close(self._wake)

    def follow(self, observation: Observation) -> None:
        """Watch the processes that run now, and no others."""
        running = {
            status.pid: stack_of(key)
            for key, status in observation.statuses.items()
            if status.pid and status.phase in (Phase.RUNNING, Phase.PAUSED)
        }
        with self._lock:
            for pid in self._pidfds.keys() - running.keys():
                self._forget(pid)
            for pid in running.keys() - self._pidfds.keys():
                # Race: one that has ended since is looked at with the rest, a moment later.
                with suppress(OSError):
                    number = open_pidfd(pid, read_start_time(pid))
                    if number >= 0:
                        self._pidfds[pid] = (number, running[pid])
                        self._selector.register(number, selectors.EVENT_READ, pid)

    def _forget(self, pid: int) -> None:
        number, _ = self._pidfds.pop(pid)
        with suppress(KeyError):
            self._selector.unregister(number)
        os.close(number)

    def _run(self) -> None:
        while not self._stopping:
            for found, _ in self._selector.select():
                what = found.data
                if isinstance(what, socket.socket):
                    drain(what)
                    self._add(ALL, GATHER)
                elif isinstance(what, int):
                    self._ended(what)

    def _ended(self, pid: int) -> None:
        with self._lock:
            if pid not in self._pidfds:
                return
            _, stack = self._pidfds[pid]
            self._forget(pid)
        self._add(f"stack {stack}", AFTER_EXIT)
        self._add(ALL, AFTER_EXIT)
