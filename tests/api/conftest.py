"""An API over a root whose machine is made of values, at a real socket."""

import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from unittest import mock

import pytest

from reconciler.api.asks import Apply, Manifests
from reconciler.api.client import Client
from reconciler.api.server import Server
from reconciler.converge import workers
from reconciler.engine.memory.engine import MemoryEngine, MemoryLine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.verbs.root import Root, opened_root

MANIFEST = """\
apiVersion: reconcile/v1
name: {name}
containers:
  web: {{image: "box:1", command: [{command}], restart: always{more}}}
"""


class Served:
    """A root, the server on it, and a client of that."""

    def __init__(self, root: Root, folder: Path, path: Path) -> None:
        self.root, self.folder, self.path = root, folder, path
        self.server = Server(root, path, own=True)
        self.server.start()
        self.client = Client(str(path))

    @property
    def machine(self) -> Machine:
        assert isinstance(self.root.engine, MemoryEngine)
        return self.root.engine.machine

    def manifests(self, name: str = "blog", command: str = "a", more: str = "") -> Manifests:
        (self.folder / f"{name}.yaml").write_text(MANIFEST.format(name=name, command=command, more=more))
        return Manifests(paths=(f"{name}.yaml",), folder=str(self.folder))

    def apply(self, name: str = "blog", command: str = "a", more: str = "") -> object:
        return self.client.call(Apply(manifests=self.manifests(name, command, more), yes=True))

    def open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(self.path))
        return sock

    def send(self, data: bytes) -> bytes:
        """Everything that comes back for these bytes until the server closes, or its one answer is there."""
        with closing(self.open()) as sock:
            with suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(data)
            return read_all(sock)

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        """One request as anybody may write it; its status and body."""
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{k.replace('_', '-')}: {v}" for k, v in self.headers(body, headers).items()),
        ]
        answer = self.send("\r\n".join([*lines, "", ""]).encode() + body)
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head, f"no answer to {method} {path}"
        return int(head.split()[1]), rest

    def headers(self, body: bytes, given: dict[str, str]) -> dict[str, str]:
        found = {"Host": "reconcile", "Connection": "close"}
        if body:
            found |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return found | {name.replace("_", "-"): value for name, value in given.items()}

    def post(self, path: str, **fields: object) -> tuple[int, bytes]:
        return self.ask(path, "POST", json.dumps(fields).encode())

    def is_well(self) -> bool:
        status, body = self.ask("/healthz")
        return status == 200 and b"ok" in body


def read_all(sock: socket.socket) -> bytes:
    out = b""
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            return out
        if not data:
            return out
        out += data


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder by a name that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="api-") as name:
        yield Path(name)


@pytest.fixture
def serve(tmp_path: Path, short: Path) -> Iterator[Callable[[], Served]]:
    """Makes one; a socket's path must be short."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    made: list[Served] = []
    with opened_root(tmp_path / "root", create=True, engine="memory") as root:
        assert isinstance(root.engine, MemoryEngine)
        root.engine.machine.registry = {"docker.io/library/box:1": Published(digest="sha256:b0")}
        with mock.patch.object(workers, "GATHER", 0), mock.patch("reconciler.converge.waits.SEEN_AFTER", 0.0):

            def make() -> Served:
                made.append(Served(root, folder, short / "api.sock"))
                return made[-1]

            yield make
            for one in made:
                one.server.stop()


@pytest.fixture
def ending() -> Iterator[None]:
    """Whoever attaches sees the end at once."""
    with mock.patch.object(MemoryLine, "has_ended", return_value=True):
        yield


@pytest.fixture
def served(serve: Callable[[], Served]) -> Served:
    return serve()
