"""Calls with streams, over the socket of a machine that is made of values: who has gone is let go; how much may wait."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pytest

from api.conftest import Served
from lab.world import wait_until
from reconciler.api import asks, sessions
from reconciler.api.files import FarSide
from reconciler.api.frames import Input, Listener, Resize, Signal
from reconciler.api.line import Ends
from reconciler.api.pump import Pump
from reconciler.api.streams import MOST_WAITING, Room
from reconciler.engine.memory.engine import MemoryInside
from reconciler.engine.protocol import Begun, ExecResult, Streams
from reconciler.linux.process import wait_readable
from reconciler.model.errors import RootError
from reconciler.model.events import AnyEvent, Note, silent
from reconciler.store.store import Store
from reconciler.verbs import containers, copying

EXEC = sessions.Exec(name="blog/web", command=("tool", "planted"), stdin=True)


def begin(served: Served, ask: sessions.Session) -> socket.socket:
    """A session whose body stays open."""
    [call] = [call for call in asks.CALLS if call.ask is type(ask)]
    lines = [f"POST /v1{call.path} HTTP/1.1", "Host: reconcile", "Content-Type: application/jsonl"]
    sock = served.open()
    sock.sendall("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
    send(sock, ask)
    return sock


def send(sock: socket.socket, *lines: Any) -> None:
    for line in lines:
        data = msgspec.json.encode(line) + b"\n"
        sock.sendall(b"%x\r\n" % len(data) + data + b"\r\n")


def hear(sock: socket.socket, words: bytes) -> bytes:
    heard = b""
    while words not in heard:
        data = sock.recv(65536)
        assert data, heard
        heard += data
    return heard


def doing(work: Callable[[Streams], int]) -> Any:
    """A command in the place of the engine's."""

    def run(*_: Any, streams: Streams, **__: Any) -> ExecResult:
        return ExecResult(exit_code=work(streams))

    return mock.patch.object(MemoryInside, "exec", run)


def test_sizes_and_signals_ring_the_bell_and_input_comes_through(served: Served) -> None:
    served.apply()
    seen: list[Any] = []

    def work(streams: Streams) -> int:
        streams.begun(Begun(tty=True, stdin=True))
        seen.append(streams.size())
        heard = b""
        while len(heard) < 2:
            heard += os.read(streams.bell, 1) if wait_readable(streams.bell, seconds=10) else b""
        seen.extend([heard, streams.size(), os.read(streams.stdin, 100)])
        os.write(streams.stderr, b"err")
        return 3

    ask = sessions.Exec(name="blog/web", command=("x",), tty=True, stdin=True, rows=24, columns=80)
    with doing(work), closing(begin(served, ask)) as sock:
        heard = hear(sock, b'"type":"begun"')
        wait_until(lambda: seen, "it knows its size")
        send(sock, Resize(rows=50, columns=132), Signal(number=10), Input(data=b"typed"))
        heard += hear(sock, b'"type":"answer"')
    assert seen == [(24, 80), bytes([28, 10]), (50, 132), b"typed"]
    assert b'"type":"begun","tty":true,"stdin":true' in heard
    assert b'"stream":"stderr","data":"ZXJy"' in heard
    assert b'{"exit_code":3}' in heard


@pytest.mark.parametrize("way", ["cancel", "hang up"])
def test_who_lets_go_rings_a_zero_and_who_has_gone_ends_the_bell(served: Served, way: str) -> None:
    served.apply()
    rung: list[bytes] = []
    ended = threading.Event()

    def work(streams: Streams) -> int:
        streams.begun(Begun())
        assert wait_readable(streams.bell, seconds=10)
        rung.append(os.read(streams.bell, 10))
        ended.set()
        return 0

    with doing(work):
        with closing(begin(served, EXEC)) as sock:
            hear(sock, b'"type":"begun"')
            if way == "cancel":
                [name] = served.server._api.running
                served.client.call(asks.Cancel(call=name))
                hear(sock, b'"type":"answer"')
        assert ended.wait(10)
    assert rung == ([b"\0"] if way == "cancel" else [b""])
    wait_until(lambda: not served.server._api.running, "nothing runs any more")


def test_wait_whose_client_has_gone_holds_no_thread(served: Served) -> None:
    served.apply()
    with mock.patch("reconciler.verbs.attach._AT_ONCE", 0.05):
        with closing(served.open()) as sock:
            sock.sendall(b"GET /v1/containers/wait?names=web HTTP/1.1\r\nHost: reconcile\r\n\r\n")
            wait_until(lambda: served.server._api.running, "it waits")
        wait_until(lambda: not served.server._api.running, "it waits no more")


def test_f2_sessions_keep_nobody_else_from_being_answered(serve: Callable[[], Served]) -> None:
    with mock.patch("reconciler.api.routes.MOST_SESSIONS", 1):
        served = serve()
    served.apply()
    with closing(begin(served, sessions.Attach(name="blog/web"))) as sock:
        hear(sock, b'"type":"begun"')
        status, body = served.post("/v1/containers/attach", name="blog/web")
        assert (status, b"too many requests" in body) == (503, True)
        assert served.ask("/v1/version")[0] == 200


def test_f2_output_that_nobody_reads_waits_in_bounded_memory(served: Served) -> None:
    served.apply()
    written = 0

    def work(streams: Streams) -> int:
        nonlocal written
        streams.begun(Begun())
        while True:
            try:
                written += os.write(streams.stdout, bytes(65536))
            except BrokenPipeError:
                return 0
            if wait_readable(streams.bell, seconds=0):
                return 0

    with doing(work), closing(begin(served, EXEC)) as sock:
        hear(sock, b'"type":"begun"')
        before = -1
        while written != before:
            before = written
            threading.Event().wait(0.2)
        assert 0 < written < 4 << 20  # What waits, a pipe, and the buffers of the sockets.
    wait_until(lambda: not served.server._api.running, "it ends with its reader")


def test_room_takes_what_is_larger_than_all_of_it_once_it_is_empty() -> None:
    room = Room(MOST_WAITING)
    assert room.take(MOST_WAITING * 2, seconds=0)
    assert not room.take(1, seconds=0)
    room.give(MOST_WAITING * 2)
    assert room.take(1, seconds=0)


def test_pump_that_was_never_run_leaves_no_descriptor(served: Served) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))

    async def make() -> None:
        pump = Pump(EXEC, lambda _: None)
        pump.take(b'{"type":"input","data":"eA=="}')
        pump.close()
        pump.close()

    asyncio.run(make())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_go_both_ways_and_are_recorded(served: Served) -> None:
    served.apply()
    source = served.folder / "source"
    source.mkdir()
    (source / "a").write_text("one")
    side = FarSide(served.client, "web", emit=silent)
    copying.copy_to(side, str(source), "/srv", archive=False, follow=False, emit=silent)
    copying.copy_from(side, "/srv", str(served.folder / "target"), archive=False, follow=False, emit=silent)
    assert (served.folder / "target/a").read_text() == "one"
    found: list[Any] = []
    served.client.call(asks.Events(changes=True), Listener(item=found.append))
    assert [one.item["actions"][0] for one in found][-2:] == [
        "cp container/blog/web/1: in /",
        "cp container/blog/web/1: out /srv",
    ]


def test_exec_runs_and_says_so_where_it_can_not_be_recorded(served: Served) -> None:
    served.apply()
    told: list[AnyEvent] = []
    full = RootError("the disk is full")
    with mock.patch.object(Store, "write", side_effect=full):
        containers.exec_(served.root, "web", ("tool", "planted"), tty=False, stdin=False, emit=told.append)
    [note] = told
    assert isinstance(note, Note)
    assert (note.level, "the disk is full" in note.text, "planted" in note.text) == ("warning", True, False)
    assert served.client.join(EXEC, Ends()) == {"exit_code": 0}


def test_input_that_comes_after_the_end_is_written_nowhere(served: Served) -> None:
    """The descriptor that wakes the pump is closed by then, and its number may be anything's."""
    found: list[Pump] = []

    async def make() -> None:
        pump = Pump(EXEC, lambda _: None)
        found.append(pump)
        await asyncio.get_running_loop().run_in_executor(None, pump.run, lambda _: 0)

    asyncio.run(make())
    [pump] = found
    reads, writes = os.pipe()
    others = [os.dup(writes) for _ in range(32)]  # Which have the numbers that it had.
    pump.end_input()
    pump.let_go()
    for number in (writes, *others):
        os.close(number)
    assert os.read(reads, 10) == b""
    os.close(reads)
