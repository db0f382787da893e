"""The files of a container over the socket: the container's side of a `cp`, for `verbs/copying.py` and for others."""

from typing import IO

from reconciler.api.client import Client
from reconciler.api.frames import Listener, Output
from reconciler.api.line import Ends
from reconciler.api.sessions import CopyIn, CopyOut, Look
from reconciler.engine.protocol import FileSeen
from reconciler.model.events import Emit


class FarSide:
    """A container that a controller has. Each call is a connection."""

    def __init__(self, client: Client, name: str, *, emit: Emit) -> None:
        self.name = name
        self._client = client
        self._emit = emit

    def look(self, path: str, *, follow: bool) -> FileSeen | None:
        """As the protocol says; from now on the container goes by its key."""
        found = self._client.call(Look(name=self.name, path=path, follow=follow))
        self.name = found["key"]
        return None if found["seen"] is None else FileSeen(**found["seen"])

    def read(self, path: str, to: IO[bytes], *, top: str, follow: bool) -> None:
        """As the protocol says."""

        def take(frame: object) -> None:
            if isinstance(frame, Output):
                to.write(frame.data)

        self._client.call(CopyOut(name=self.name, path=path, top=top, follow=follow), Listener(emit=self._emit, item=take))
        to.flush()

    def write(self, folder: str, stream: IO[bytes], *, owners: bool) -> None:
        """As the protocol says."""
        asked = CopyIn(name=self.name, path=folder, owners=owners)
        self._client.join(asked, Ends(stdin=stream.fileno()), Listener(emit=self._emit))
