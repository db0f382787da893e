"""A small registry in this process that serves one image, and lies where a test says so; it remembers all requests."""

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab import images as lab
from lab.images import Blob, Entry, Image

SMALL = Image((lab.layer(Entry("etc", folder=True), Entry("etc/motd", "hello\n")),), {"Cmd": ["sh"]})
TWO = Image((SMALL.layers[0], lab.layer(Entry("etc/more", "x" * 100_000))), {"Cmd": ["sh"]})


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


Lie = Callable[["_Handler"], bool]
"""Answers a request itself and returns True, or leaves it alone."""


class HostileRegistry:
    """`lies` are tried in turn; the truth about `image` follows. Serves every repository and tag alike."""

    def __init__(
        self,
        *,
        image: Image = SMALL,
        lies: list[Lie] | None = None,
        tls: "Certificate | None" = None,
        user: str = "",
        port: int = 0,
    ) -> None:
        self.blobs: dict[str, Blob] = {}
        self.lies = lies or []
        self.user = user
        self.requests: list[Seen] = []
        self.top = b""
        self.media = ""
        self.server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self.server.daemon_threads = True
        self.server.registry = self  # type: ignore[attr-defined]
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.serve_image(image)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    @property
    def reference(self) -> str:
        return f"{self.host}/app:1"

    def serve_image(self, image: Image) -> None:
        manifest = image.manifest()
        self.serve_manifest(manifest)
        for blob in [image.config_blob(), *image.layer_blobs()]:
            self.blobs[blob.digest] = blob

    def serve_manifest(self, manifest: Blob) -> None:
        """Under every tag, and its digest."""
        self.blobs[manifest.digest] = manifest
        self.top, self.media = manifest.data, manifest.media

    def serve_json(self, value: Any, media: str = lab.OCI + "manifest.v1+json") -> None:
        self.serve_manifest(Blob(media, json.dumps(value).encode()))

    def asked(self, word: str) -> list[Seen]:
        return [seen for seen in self.requests if word in seen.path]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> HostileRegistry:
        return self.server.registry  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.registry.requests.append(Seen(self.command, self.path, dict(self.headers.items()), self.rfile.read(length)))
        try:
            if not any(lie(self) for lie in self.registry.lies):
                self.truth()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_HEAD = do_GET
    do_POST = do_GET

    def truth(self) -> None:
        if self.registry.user:
            wanted = "Basic " + base64.b64encode(self.registry.user.encode()).decode()
            if self.headers.get("Authorization") != wanted:
                self.send(401, headers={"WWW-Authenticate": 'Basic realm="here"'})
                return
        name = self.path.rpartition("/")[2]
        if "/manifests/" in self.path:
            blob = self.registry.blobs.get(name) or Blob(self.registry.media, self.registry.top)
            self.send(200, blob.data, {"Content-Type": blob.media, "Docker-Content-Digest": blob.digest})
        elif name in self.registry.blobs:
            self.send_range(self.registry.blobs[name].data)
        else:
            self.send(404)

    def send_range(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self.send(206 if asked else 200, data[start:], headers)

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int = -1) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length if length >= 0 else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()

    def cut(self) -> None:
        """End the connection in the middle of an answer."""
        self.close_connection = True


def lie_about(word: str, answer: Callable[[Any], None], *, times: int = 1_000_000) -> Lie:
    """Answer requests whose path has `word` in it, so often."""
    left = [times]

    def lie(handler: _Handler) -> bool:
        if word not in handler.path or left[0] <= 0:
            return False
        left[0] -= 1
        answer(handler)
        return True

    return lie


def redirect(to: str, *, status: int = 307) -> Callable[[Any], None]:
    return lambda handler: handler.send(status, headers={"Location": to})


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """A self-signed one for 127.0.0.1, its own CA."""
    made = Certificate(folder / "tls.crt", folder / "tls.key")
    subject = ["-subj", "/CN=hostile", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    out = ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(["openssl", "req", "-x509", *key, *out, "-days", "2", *subject], check=True, capture_output=True)
    return made


def write_credentials(host: str, user: str) -> None:
    """Into the config file that the test's environment names."""
    write_config({"auths": {host: {"auth": base64.b64encode(user.encode()).decode()}}})


def write_config(value: Any) -> None:
    import os

    folder = Path(os.environ["DOCKER_CONFIG"])
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(value))
