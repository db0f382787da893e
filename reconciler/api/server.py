"""The server: an event loop in a thread of its own, which sleeps until somebody connects.

uvicorn's own main loop wakes ten times a second; its protocol class needs none of it (decision 0095).
"""

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.routing import Route
from uvicorn.config import Config

from reconciler.api.answers import Opener
from reconciler.api.protocol import KEEP_ALIVE, MOST_HEAD, Connection, make_state, silence_logs
from reconciler.api.routes import Api
from reconciler.api.sockets import listen
from reconciler.verbs.reserve import release_reserve
from reconciler.verbs.root import LOCK_TIMEOUT, Root

LAST_WORK = 20.0
"""Seconds that requests have to end by themselves once we are told to stop."""


class Server:
    """The API of one root, on one socket."""

    def __init__(
        self,
        root: Root,
        path: Path,
        *,
        own: bool,
        ready: Any = None,
        metrics: Callable[[], bytes] | None = None,
        routes: tuple[Route, ...] = (),
    ) -> None:
        self.path = path
        self._own = own
        self._api = Api(share(root), metrics=metrics, **({"ready": ready} if ready else {}))
        self._routes = routes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._state = make_state()

    def start(self) -> None:
        """Listen and answer. Raises Failed for a socket that is not to be had."""
        silence_logs()
        self._socket = listen(self.path, own=self._own)
        app = self._api.app(*self._routes)
        config = Config(
            app, http=Connection, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, timeout_keep_alive=KEEP_ALIVE, h11_max_incomplete_event_size=MOST_HEAD,
        )  # fmt: skip
        config.load()
        make = partial(Connection, config, self._state, {}, self._loop)
        self._listener = self._loop.run_until_complete(self._loop.create_unix_server(make, sock=self._socket, backlog=512))
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def stop(self) -> None:
        """Take no more, have what runs end at its next action, and wait for that, for a while."""
        self._api.cancel_all()
        asyncio.run_coroutine_threadsafe(self._wind_up(), self._loop).result(LAST_WORK + 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._api.pool.shutdown(wait=False)
        self._api.sessions.shutdown(wait=False)
        self._loop.close()
        with suppress(FileNotFoundError):
            self.path.unlink()

    async def _wind_up(self) -> None:
        self._loop.remove_reader(self._socket)
        # Order: those that were accepted become connections only while the listener is open (asyncio's Server._attach).
        await _turn()
        self._listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORK):
                while self._state.tasks:
                    await asyncio.wait(list(self._state.tasks))
        for connection in list(self._state.connections):
            connection.transport.abort()
        await _turn()  # in which they are closed


async def _turn() -> None:
    """Let the loop do what is due, and what follows from that."""
    for _ in range(4):
        await asyncio.sleep(0)


def share(root: Root) -> Opener:
    """A controller's root for requests: each with its own patience."""

    @contextmanager
    def opened(
        *,
        create: bool = False,  # noqa: ARG001 it is there
        frees: bool = False,
        lock_timeout: float | None = None,
    ) -> Iterator[Root]:
        mine = copy.copy(root)
        mine.lock_timeout = LOCK_TIMEOUT if lock_timeout is None else lock_timeout
        if frees:
            mine.used_reserve = release_reserve(root.path)
        yield mine

    return opened
