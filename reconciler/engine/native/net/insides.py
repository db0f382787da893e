"""What is in the network namespaces of containers, entered again only where the kernel told of a change.

Entering one and asking three times is a quarter of a look at many containers. Whoever looks once pays nothing for this: the
kernel is listened to from the second look on. Used by `veth.py`.
"""

import threading
from collections.abc import Collection, Mapping

from msgspec import Struct

from reconciler.linux.elsewhere import Listener
from reconciler.linux.netlink import Link, Route


class Inside(Struct, frozen=True):
    """What a namespace has."""

    links: Mapping[str, Link]
    addresses: Mapping[int, tuple[str, ...]]
    routes: list[Route]


class _Kept(Struct, frozen=True):
    namespace: str
    """Which one was mounted there, as mountinfo says: `net:[4026532345]`."""
    number: int
    """Its id here."""
    inside: Inside


class Insides:
    """Of one root. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._looks = 0
        self._deaf = False
        self._changes = 0
        self._kept: dict[str, _Kept] = {}

    def begin(self) -> int:
        """A look begins: forget what changed. A number for `keep`."""
        with self._lock:
            self._looks += 1
            if self._listener is None:
                self._listen()
                return self._changes
            heard = self._listener.heard()
            if heard is None:
                self._kept.clear()
            else:
                self._kept = {path: kept for path, kept in self._kept.items() if kept.number not in heard}
            self._changes += heard is None or bool(heard)
            return self._changes

    def _listen(self) -> None:
        if self._deaf or self._looks < 2:
            return
        try:
            self._listener = Listener()
        except OSError:  # Kernel: without it, or without CAP_NET_BROADCAST, each look enters all of them.
            self._deaf = True

    def find(self, path: str, namespace: str, number: int) -> Inside | None:
        """What is known of the namespace that is mounted at a path and has this id here; None where nothing is."""
        with self._lock:
            kept = self._kept.get(path)
        known = kept is not None and (kept.namespace, kept.number) == (namespace, number)
        return kept.inside if kept is not None and known else None

    def keep(self, path: str, namespace: str, number: int, inside: Inside, *, begun: int) -> None:
        """Know what a look that `begun` so has read."""
        with self._lock:
            # Race: what another look heard meanwhile may be of this namespace, and later than what was read.
            if self._listener is not None and number >= 0 and begun == self._changes:
                self._kept[path] = _Kept(namespace, number, inside)

    def forget_others(self, incarnations: Collection[str]) -> None:
        """Forget all but those of these."""
        with self._lock:
            self._kept = {path: kept for path, kept in self._kept.items() if path.rpartition("/")[2] in incarnations}

    def close(self) -> None:
        """Hear nothing any more."""
        with self._lock:
            if self._listener is not None:
                self._listener.close()
            self._listener, self._kept, self._looks = None, {}, 0
