"""Ports of containers that are asked: over TCP and HTTP, from inside their network namespace, within bounds."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.engine.native.runtime import probes
from reconciler.engine.native.runtime.inside import NativeInside
from reconciler.linux import namespaces, process
from reconciler.model.observation import Health
from reconciler.model.spec import Healthcheck
from tests.runtime.bundles import Bundles

pytestmark = pytest.mark.root

Answer = Callable[[socket.socket], None]


@pytest.fixture
def place(tmp_path: Path) -> Iterator["Place"]:
    made = Place(tmp_path)
    yield made
    made.close()


class Place:
    """A network namespace with a process in it, as a container has, and servers that answer as they are told."""

    def __init__(self, folder: Path) -> None:
        self.netns = folder / "netns"
        self.listeners: list[socket.socket] = []
        with namespaces.created(self.netns):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with self.inside():
            self.child = subprocess.Popen(["sleep", "1000"])

    def inside(self):  # type: ignore[no-untyped-def]  # a context manager of namespaces
        return namespaces.entered(namespaces.open_netns(self.netns))

    def serve(self, answer: Answer) -> int:
        with self.inside():
            listener = socket.create_server(("127.0.0.1", 0))
        self.listeners.append(listener)

        def run() -> None:
            with suppress(OSError):
                while True:
                    with listener.accept()[0] as accepted, suppress(OSError):
                        answer(accepted)

        threading.Thread(target=run, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    def ask(self, *test: str, timeout: float = 5.0) -> tuple[bool, str]:
        init = (self.child.pid, process.read_start_time(self.child.pid))
        return probes.ask(test, init=init, address="127.0.0.1", timeout=timeout)

    def http(self, answer: bytes, statuses: str = "200-399", path: str = "/", timeout: float = 5.0) -> tuple[bool, str]:
        port = self.serve(lambda accepted: (accepted.recv(4096), accepted.sendall(answer))[1])
        return self.ask("HTTP", f"http://:{port}{path}", statuses, timeout=timeout)

    def close(self) -> None:
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.child.kill()
        self.child.wait()
        namespaces.remove_netns(self.netns)


def test_open_port_is_healthy_and_only_inside(place: Place) -> None:
    port = place.serve(lambda _: None)
    assert place.ask("TCP", f"{port}") == (True, f"connected to 127.0.0.1:{port}")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    assert place.ask("TCP", "1") == (False, "127.0.0.1: Connection refused")


@pytest.mark.parametrize(
    ("answer", "statuses", "healthy", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nall well", "200-399", True, "200 OK: all well"),
        (b"HTTP/1.0 204\r\n\r\n", "204-204", True, "204"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", "200-399", True, "302 Found"),
        (b"HTTP/1.1 500 Oops\r\n\r\nbroken", "200-399", False, "500 Oops: broken"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "204-204", False, "200 OK"),
        (b"SSH-2.0-x\r\n", "200-399", False, "it does not speak HTTP: b'SSH-2.0-x\\r\\n'"),
        (b"x" * 100_000, "200-399", False, "it does not speak HTTP"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "200-399", False, "it does not speak HTTP"),
        (b"", "200-399", False, "it closed the connection without an answer"),
    ],
)
def test_status_decides(place: Place, answer: bytes, statuses: str, healthy: bool, said: str) -> None:
    found, text = place.http(answer, statuses)
    assert (found, text[: len(said)]) == (healthy, said)
    assert said == text or said == "it does not speak HTTP"


def test_answer_is_bounded_in_bytes_and_time(place: Place) -> None:
    healthy, text = place.http(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 1_000_000)
    assert (healthy, len(text) <= 300) == (True, True)

    def drip(accepted: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" * 100:
            accepted.sendall(bytes([byte]))
            time.sleep(0.1)

    for answer in (drip, lambda _: time.sleep(3)):
        port = place.serve(answer)
        began = time.monotonic()
        assert place.ask("HTTP", f"http://:{port}/", "200-399", timeout=0.5) == (False, "it took longer than 0.5 s")
        assert time.monotonic() - began < 1.5


def test_request_names_path_and_host(place: Place) -> None:
    seen: list[bytes] = []
    port = place.serve(lambda accepted: seen.append(accepted.recv(4096)))
    place.ask("HTTP", f"http://:{port}/healthz?a=1", "200-399")
    assert seen[0].startswith(b"GET /healthz?a=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)


def test_https_is_asked_whoever_signed_it(place: Place, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=other", "-days", "1"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def answer(accepted: socket.socket) -> None:
        with context.wrap_socket(accepted, server_side=True) as wrapped:
            wrapped.recv(4096)
            wrapped.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    port = place.serve(answer)
    assert place.ask("HTTP", f"https://:{port}/", "200-399") == (True, "200 OK")
    plain = place.serve(lambda accepted: accepted.sendall(b"no"))
    assert place.ask("HTTP", f"https://:{plain}/", "200-399", timeout=2)[0] is False


def test_process_that_has_ended_is_not_taken_for_another(place: Place) -> None:
    init = (place.child.pid, process.read_start_time(place.child.pid) - 1)
    assert probes.ask(("TCP", "1"), init=init, address="127.0.0.1", timeout=1) == (False, "it has ended")


def test_thread_is_back_in_its_own_namespace(place: Place) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    place.http(b"HTTP/1.1 200 OK\r\n\r\n")
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_probe_of_a_port_starts_no_process_and_is_remembered(bundles: Bundles) -> None:
    made = bundles.make(healthcheck=Healthcheck(test=("TCP", "1"), interval=0.01, retries=1))
    bundles.run(made)
    inside = NativeInside(bundles.layout)
    while (told := inside.probe(made, timeout=5))[0] is Health.UNHEALTHY:
        assert told[1] == "127.0.0.1: Connection refused"
        if bundles.status(made).health is Health.UNHEALTHY:
            break
    assert list(bundles.path(made).glob("new-*")) == []
