"""Repositories over smart HTTP: git's own http-backend behind a small server, as hostile as a test wants it."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BACKEND = Path(subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip())


class Served(ThreadingHTTPServer):
    """One folder of repositories, and what was asked of it."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.seen: list[tuple[str, str]] = []
        """Path and Authorization of each request."""
        self.credentials = ""
        """`Basic …` that is asked for; empty: nothing is."""
        self.redirect = ""
        """Where everything is sent on to."""
        self.first_protocol = False
        """Whether it knows git's first protocol only, as over an sshd that accepts no GIT_PROTOCOL."""
        self.plain = False
        """Whether it serves files and knows nothing of git, as any web server."""
        self.before: Callable[[], object] = lambda: None
        """Called with each request, before it is answered."""

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what some tests are about."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Served

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_GET

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._read_chunks()
        self.server.seen.append((self.path, self.headers.get("Authorization", "")))
        self.server.before()
        if self.server.redirect:
            return self._send(302, {"Location": self.server.redirect + self.path})
        if self.server.credentials and self.headers.get("Authorization") != self.server.credentials:
            return self._send(401, {"WWW-Authenticate": 'Basic realm="git"'})
        if self.server.plain:
            path = self.server.folder / self.path.partition("?")[0].lstrip("/")
            return self._send(200, {}, path.read_bytes()) if path.is_file() else self._send(404, {})
        return self._run_backend(body)

    def _read_chunks(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _run_backend(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": "" if self.server.first_protocol else self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run([BACKEND / "git-http-backend"], input=body, env=env, capture_output=True, check=False)
        head, _, out = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self._send(int(headers.pop("Status", "200").split()[0]), headers, out)

    def _send(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A server of the repositories in a folder, on loopback, until the block ends."""
    with Served(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)
