"""What the work on images of one process shares: connections to registries, what they answered, threads, and an end.

The image driver owns one. `resolve.py`, `pull.py` and `load.py` work through it, so that an apply which resolves and then
creates asks once, and so that all pulls together have one bound. Importing it costs nothing: clients and threads are made
when first asked for.
"""

import threading
from functools import cached_property
from typing import TYPE_CHECKING

from reconciler.engine.native.content.blobs import digest_of
from reconciler.engine.native.content.documents import Platform
from reconciler.engine.native.layout import Layout

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from reconciler.engine.native.registry.client import Client

AT_ONCE = 4
"""Layers that are brought in at once, over all images."""
_MOST_SEEN = 64 << 20


class Session:
    """Safe for threads."""

    def __init__(self, layout: Layout, platform: Platform) -> None:
        self.layout = layout
        self.platform = platform
        self.closing = threading.Event()
        """Set: what is under way ends with an error."""
        self.seen = Seen()
        self._clients: dict[str, Client] = {}
        self._lock = threading.Lock()

    def client(self, host: str) -> "Client":
        """The client of a registry."""
        from reconciler.engine.native.registry.client import Client  # http.client is a fifth of the no-op path's time

        with self._lock:
            if host not in self._clients:
                self._clients[host] = Client(host)
            return self._clients[host]

    @cached_property
    def pool(self) -> "Executor":
        """The threads that bring layers in."""
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor(AT_ONCE, "layers")

    def close(self) -> None:
        """End what is under way, and let connections and threads go."""
        self.closing.set()
        with self._lock:
            clients = [*self._clients.values()]
            self._clients.clear()
        for client in clients:
            client.close()
        if "pool" in self.__dict__:
            self.pool.shutdown(wait=True, cancel_futures=True)


class Seen:
    """What was read, by digest: bytes of manifests, indexes and configs, with the type that they were sent as; and which
    index a reference named when it led to an image."""

    def __init__(self) -> None:
        self._documents: dict[str, tuple[bytes, str]] = {}
        self._targets: dict[tuple[str, str], str] = {}
        self._size = 0
        self._lock = threading.Lock()

    def find(self, digest: str) -> tuple[bytes, str] | None:
        """What was read under a digest."""
        return self._documents.get(digest)

    def add(self, data: bytes, media_type: str = "") -> None:
        """Remember bytes, unless there are too many of them already."""
        with self._lock:
            if self._size + len(data) <= _MOST_SEEN:
                self._size += len(data)
                self._documents[digest_of(data)] = (data, media_type)

    def target_of(self, reference: str, digest: str) -> str:
        """The digest that a reference named when it meant this image; the image's own where nothing else is known."""
        return self._targets.get((reference, digest), digest)

    def add_target(self, reference: str, digest: str, target: str) -> None:
        """Remember what a reference named."""
        self._targets[reference, digest] = target
