"""Calls that say that something was pushed: only who knows the secret has a source looked at."""

import hashlib
import hmac
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.listeners import open_listeners
from reconciler.controller.pushhook import MOST, is_genuine, read_secret
from reconciler.controller.scrape import ScrapeServer
from reconciler.controller.settings import HookOptions, Settings
from reconciler.model.errors import Failed

SECRET, BODY = "It's a Secret to Everybody", b"Hello, World!"
# The example of GitHub's own documentation, "Validating webhook deliveries".
SIGNATURE = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-hub-signature-256": f"sha256={SIGNATURE}"},
        {"x-gitea-signature": SIGNATURE},
        {"x-forgejo-signature": SIGNATURE.upper()},
        {"x-gitlab-token": SECRET},
    ],
)
def test_calls_of_the_usual_hosts_are_known(headers: dict[str, str]) -> None:
    assert is_genuine(headers, BODY, secret=SECRET)
    assert not is_genuine(headers, BODY, secret="another")
    assert not is_genuine(headers, BODY, secret="")
    assert "x-gitlab-token" in headers or not is_genuine(headers, BODY + b"x", secret=SECRET)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-hub-signature": f"sha1={SIGNATURE}"},
        {"x-hub-signature-256": ""},
        {"x-hub-signature-256": "sha256=ü"},
        {"x-hub-signature-256": "sha256=00", "x-gitlab-token": SECRET},
        {"x-gitlab-token": "\udcff"},
    ],
)
def test_calls_without_the_secret_are_not(headers: dict[str, str]) -> None:
    assert not is_genuine(headers, BODY, secret=SECRET)


def test_body_that_is_too_large_is_not_even_looked_at() -> None:
    body = bytes(MOST + 1)
    signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert not is_genuine({"x-gitea-signature": signed}, body, secret=SECRET)


@given(st.dictionaries(st.sampled_from(["x-hub-signature-256", "x-gitlab-token", "x-other"]), st.text()), st.binary())
def test_no_call_is_a_mistake_of_ours(headers: dict[str, str], body: bytes) -> None:
    assert is_genuine(headers, body, secret=SECRET) in (False, headers.get("x-gitlab-token") == SECRET)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def looked(secret_file: Path) -> Iterator[tuple[ScrapeServer, list[int]]]:
    """What listens, and its looks."""
    looks: list[int] = []

    def look() -> int:
        looks.append(1)
        return 2

    options = HookOptions(listen=("127.0.0.1", 0), secret_file=secret_file)
    [server] = open_listeners(Settings(sources=(), webhook=options), metrics=bytes, ready=bool, look=look)
    server.start()
    yield server, looks
    server.stop()


def post(server: ScrapeServer, body: bytes, path: str = "/hooks/push", **headers: str) -> tuple[int, bytes]:
    client = http.client.HTTPConnection(*server.address, timeout=5)
    client.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    found = answer.status, answer.read()
    client.close()
    return found


def test_push_that_bears_the_secret_has_repositories_looked_at_and_no_other(
    looked: tuple[ScrapeServer, list[int]],
) -> None:
    server, looks = looked
    signed = f"sha256={SIGNATURE}"
    assert post(server, BODY, X_Hub_Signature_256=signed, Host="hooks.example") == (202, b"repositories looked at: 2\n")
    assert looks == [1]
    assert post(server, BODY + b"x", X_Hub_Signature_256=signed)[0] == 403
    assert post(server, BODY)[0] == 403
    assert post(server, BODY, path="/other", X_Gitlab_Token=SECRET)[0] == 405
    assert looks == [1]
    large = bytes(MOST - 1)
    signed = hmac.new(SECRET.encode(), large, hashlib.sha256).hexdigest()
    assert post(server, large, X_Gitea_Signature=signed)[0] == 202


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: 1048577", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: 99999999999999999999999", 413),
        ("Transfer-Encoding: chunked", 411),
        ("X: y", 411),
        ("Content-Length: 0", 403),
    ],
)
def test_f2_bodies_are_bounded_before_they_are_read(looked: tuple[ScrapeServer, list[int]], head: str, status: int) -> None:
    server, looks = looked
    with socket.create_connection(server.address, timeout=5) as opened:
        opened.sendall(f"POST /hooks/push HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert opened.makefile("rb").readline().split()[1] == str(status).encode()
    assert looks == []


def test_secret_that_others_may_read_or_guess_is_refused(secret_file: Path) -> None:
    assert read_secret(secret_file) == SECRET
    secret_file.chmod(0o640)
    with pytest.raises(Failed, match="others may read it"):
        read_secret(secret_file)
    secret_file.chmod(0o600)
    for data in (b"", b"short", b"\xff" * 40):
        secret_file.write_bytes(data)
        with pytest.raises(Failed):
            read_secret(secret_file)
