"""One connection of the server: uvicorn's HTTP/1.1 with bounds (row F2 of what is hostile).

A head that does not come in time, too many connections, a head that is too large: each ends that connection, and no other.
"""

import asyncio
import logging
import socket
import struct
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from reconciler.api.problem import MEDIA_TYPE, BadRequest, describe_error

MOST_CONNECTIONS = 256
HEAD_SECONDS = 10.0
"""Within which the head of a request must have come."""
MOST_HEAD = 32 << 10
"""Bytes of it."""
KEEP_ALIVE = 30


class Connection(H11Protocol):
    """One connection, with who is at its other end."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(config, server_state, {**app_state, "line": self}, loop)
        self.uid, self.pid = -1, 0
        self.working = False
        """Whether it holds a request that is worked on: it is not dropped for another then."""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take it, in place of the one that is silent for the longest time where there are too many."""
        sock = transport.get_extra_info("socket")
        self.pid, self.uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self.server_state.order[self] = None  # type: ignore[attr-defined]
        if len(self.connections) > MOST_CONNECTIONS:
            self._drop_one()
        self._expect_head()

    def _drop_one(self) -> None:
        order: dict[Connection, None] = self.server_state.order  # type: ignore[attr-defined]
        silent = next((one for one in order if not one.working), self)
        silent.transport.abort()
        order.pop(silent, None)
        self.connections.discard(silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.server_state.order.pop(self, None)  # type: ignore[attr-defined]
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What came; a head that began must end in time."""
        super().data_received(data)
        if self._is_at_request():
            self._disarm()
        elif self._late is None:
            self._expect_head()

    def on_response_complete(self) -> None:
        """The next request may come."""
        self.working = False
        super().on_response_complete()
        if self.conn.trailing_data[0] and not self._is_at_request():
            self._expect_head()

    def _is_at_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._disarm()
        self._late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _disarm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 uvicorn's words
        """What is no request is told so, as a problem."""
        error = BadRequest(400, "this is no HTTP/1.1 request that is taken here")
        body = _encode(error)
        head = ["HTTP/1.1 400 Bad Request", f"Content-Type: {MEDIA_TYPE}", f"Content-Length: {len(body)}"]
        self.transport.write("\r\n".join([*head, "Connection: close", "", ""]).encode() + body)
        self.transport.close()


def _encode(error: BadRequest) -> bytes:
    import msgspec

    return msgspec.json.encode(describe_error(error))


def make_state() -> ServerState:
    """What the connections of one server share."""
    state = ServerState()
    state.order = {}  # type: ignore[attr-defined]
    return state


def silence_logs() -> None:
    """What a client does wrong is told to him, and fills no log."""
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
