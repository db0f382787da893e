"""Rows F of what is hostile: whoever may connect sends what he likes, and the others are answered all the same."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from unittest import mock

import pytest

from api.conftest import Served, read_all
from lab.world import wait_until
from reconciler.api import asks
from reconciler.api.frames import Listener
from reconciler.api.server import Server
from reconciler.api.sockets import listen, read_address
from reconciler.model.errors import Failed, Usage

POST = b"POST /v1/plan HTTP/1.1\r\nHost: reconcile\r\nContent-Type: application/json\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "reconcile"}, 200),
        ({"Host": "localhost:80"}, 200),
        ({"Host": "evil.test"}, 403),
        ({"Host": "localhost.evil.test"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_f1_web_page_and_a_name_made_to_lead_here_are_refused(served: Served, headers: dict[str, str], status: int) -> None:
    assert served.ask("/v1/version", **headers)[0] == status


def test_f1_what_a_form_of_a_web_page_can_send_changes_nothing(served: Served) -> None:
    served.apply()
    body = json.dumps({"names": ["blog"]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert served.ask("/v1/containers/stop", "POST", body, Content_Type=kind)[0] == 415
    assert [thing.phase.value for thing in served.machine.containers.values()] == ["running"]


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:2375", "127.0.0.1:80", "http://localhost", "unix://api.sock", "/a.sock"])
def test_f1_only_unix_sockets_are_offered(text: str) -> None:
    with pytest.raises(Usage, match="only UNIX sockets are offered"):
        read_address(text)
    assert read_address("unix:///run/a.sock") == Path("/run/a.sock")


def test_f2_slow_heads_are_dropped_and_others_are_answered_meanwhile(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.protocol.HEAD_SECONDS", 0.5):
        served = serve()
        with ExitStack() as left:
            slow = [left.enter_context(closing(served.open())) for _ in range(20)]
            for sock in slow:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: rec")
            assert served.is_well()
            # A byte now and then buys no time, and neither does an earlier request.
            slow[0].sendall(b"o")
            assert [read_all(sock) for sock in slow] == [b""] * 20
            kept = left.enter_context(closing(served.open()))
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: reconcile\r\n\r\nGET /hea")
            assert read_all(kept).count(b"200 OK") == 1


def test_f2_more_connections_than_there_may_be(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.protocol.MOST_CONNECTIONS", 16):
        served = serve()
        served.apply()
        with ExitStack() as left:
            at_work = left.enter_context(closing(served.open()))
            at_work.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: reconcile\r\n\r\n")
            assert at_work.recv(10)
            for _ in range(100):
                left.enter_context(closing(served.open()))
                assert served.is_well()
            wait_until(lambda: len(served.server._state.connections) <= 17, "no more are held")
            at_work.setblocking(False)  # Who is at work is not dropped for who is silent.
            assert not _has_ended(at_work)


def test_f2_more_requests_at_work_than_there_may_be(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.routes.MOST_AT_WORK", 2):
        served = serve()
        served.apply()
        with ExitStack() as left:
            for _ in range(2):
                sock = left.enter_context(closing(served.open()))
                sock.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: reconcile\r\n\r\n")
                assert sock.recv(10)
            status, body = served.ask("/v1/version")
            assert (status, b"too many requests" in body) == (503, True)
            assert served.is_well()


def test_f2_body_too_large_or_that_never_comes(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.routes.MOST_BODY", 1 << 16), mock.patch("reconciler.api.routes.BODY_SECONDS", 0.3):
        served = serve()
        assert b"HTTP/1.1 413" in served.send(POST + b"Content-Length: 1000000000\r\n\r\n" + b"x" * (1 << 17))
        assert b"HTTP/1.1 413" in served.send(
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%s\r\n" % (b"x" * 65536) * 3
        )
        assert b"HTTP/1.1 408" in served.send(POST + b"Content-Length: 10\r\n\r\n{")
        assert served.is_well()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\r\nHost: reconcile\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n",
        b"GET /v1/resources?name=" + b"y" * (1 << 20) + b" HTTP/1.1\r\nHost: reconcile\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
        b"GET http://evil.test/healthz HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n",
        b"\r\n" * 100_000,
        b"GET /\xff HTTP/1.1\r\nHost: reconcile\r\n\r\n",
    ],
    ids=["head", "query", "chunks", "lengths", "negative", "hosts", "tls", "absolute", "empty", "bytes"],
)
def test_f2_what_is_no_request_ends_its_connection_and_no_other(serve: Callable[[], Served], data: bytes) -> None:
    with mock.patch("reconciler.api.protocol.HEAD_SECONDS", 0.5):
        served = serve()
        answer = served.send(data)
        assert not answer or answer.split()[1] in (b"400", b"403", b"404", b"415"), answer[:200]
        assert served.is_well()


def test_f2_who_reads_nothing_is_given_up(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.streams.PATIENCE", 0.3), mock.patch("reconciler.api.streams.MOST_WAITING", 4):
        served = serve()
        served.apply()
        with ExitStack() as left:
            sock = left.enter_context(closing(served.open()))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: reconcile\r\n\r\n")
            for number in range(12):
                served.apply(command=f"c{number}")
            wait_until(lambda: served.is_well(), "others are answered")


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_f3_body_that_was_cut_off_is_never_looked_at(served: Served, cut: int) -> None:
    """CVE-2024-41110 was a body that who authorized did not see, and who acted did."""
    served.apply()
    body = json.dumps({"what": "blog", "manifests": {"paths": []}, "yes": True}).encode()
    head = POST.replace(b"plan", b"delete") + b"Content-Length: %d\r\n\r\n" % len(body)
    with closing(served.open()) as sock:
        sock.sendall(head + body[:-cut])
    assert served.post("/v1/delete", what="blog", yes=True)[0] == 400, "a field that must be given was not"
    assert served.post("/v1/delete", what="blog", manifests={"paths": []}, yes=True, extra=1)[0] == 400
    assert served.is_well()
    assert len(served.machine.containers) == 1


def test_f4_secrets_come_in_no_answer(served: Served) -> None:
    more = ', env: {PASSWORD: "${TOKEN}"}'
    told: list[bytes] = []
    variables = {"TOKEN": "hunter2-and-more"}
    manifests = asks.Manifests(**{**_fields(served.manifests(more=more)), "variables": variables})  # type: ignore[arg-type]
    import msgspec

    listener = Listener(
        emit=lambda event: told.append(msgspec.json.encode(event)), show=lambda lines: told.append(str(lines).encode())
    )
    for ask in (
        asks.Plan(manifests=manifests, why="web", save=True),
        asks.Apply(manifests=manifests, yes=True),
        asks.Get(),
        asks.Describe(name="web"),
        asks.History(stack="blog"),
        asks.Status(),
    ):
        answer = served.client.call(ask, listener)
        told.append(msgspec.json.encode(answer))
    items: list[object] = []
    served.client.call(asks.Events(), Listener(item=items.append))
    told.append(str(items).encode())
    assert b"(sensitive)" in b"".join(told)
    assert b"hunter2" not in b"".join(told)
    broken = served.post("/v1/plan", manifests={"paths": ["x"], "variables": {"TOKEN": ["hunter2"]}})
    assert broken[0] == 400
    assert b"hunter2" not in broken[1]


def _has_ended(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


def _fields(manifests: asks.Manifests) -> dict[str, object]:
    import msgspec

    return msgspec.structs.asdict(manifests)


def test_f5_socket_is_of_root_and_its_group_alone(served: Served) -> None:
    found = served.path.lstat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) in (0o600, 0o660)
    assert found.st_uid == os.geteuid()
    served.server.stop()
    assert not served.path.exists()
    served.server = served.server.__class__(served.root, served.path, own=True)
    served.server.start()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.write_text("x"), "there is something else"),
        (lambda path: path.mkdir(), "there is something else"),
        (lambda path: path.symlink_to("/run/elsewhere"), "there is something else"),
        (lambda path: path.parent.chmod(0o777), "others may write to it"),
        (lambda path: path.parent.chmod(0o1777), "others may write to it"),
        (lambda path: path.parent.parent.chmod(0o777), "others may put another folder"),
        (lambda path: (_bind(path), os.chown(path, 1000, 1000)), "belongs to uid 1000"),
        (lambda path: os.chown(path.parent, 1000, 1000), "it belongs to uid 1000"),
        (lambda path: _bind(path), "this root's controller did not leave"),
        (lambda path: path.parent.rmdir(), "it is not there"),
    ],
    ids=["file", "folder", "link", "world", "sticky", "above", "owner", "folder's owner", "not ours", "nothing"],
)
def test_f5_path_of_somebody_else_is_refused_and_left_as_it_is(
    short: Path, make: Callable[[Path], object], words: str
) -> None:
    path = short / "of" / "api.sock"
    path.parent.mkdir(mode=0o700)
    make(path)
    before = sorted((str(one), one.lstat().st_ino, one.lstat().st_mode) for one in short.rglob("*"))
    with pytest.raises(Failed, match=words):
        listen(path, own=False)
    assert sorted((str(one), one.lstat().st_ino, one.lstat().st_mode) for one in short.rglob("*")) == before


def test_f5_stale_socket_of_ours_is_replaced_and_one_that_answers_is_not(short: Path) -> None:
    path = short / "api.sock"
    _bind(path)
    with closing(listen(path, own=True)), pytest.raises(Failed, match="somebody listens there"):
        listen(path, own=True)


def _bind(path: Path) -> None:
    """A socket that nobody listens at any more."""
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(str(path))


def test_connection_that_comes_as_the_server_stops_is_closed_as_all_are(served: Served) -> None:
    """asyncio makes none of what it accepted once its listener is closed, and leaves the socket to who collects garbage."""
    server = Server(served.root, served.path.with_name("other.sock"), own=True)
    server.start()
    wind_up = server._wind_up
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)

    async def come_and_stop() -> None:
        sock.connect(str(server.path))
        for _ in range(2):  # It is accepted, and no connection yet.
            await asyncio.sleep(0)
        await wind_up()

    with mock.patch.object(server, "_wind_up", come_and_stop), closing(sock):
        server.stop()
        assert sock.recv(1) == b""
