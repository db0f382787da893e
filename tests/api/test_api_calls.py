"""What is asked over the socket is answered as in process: the same data, the same words."""

import subprocess
import sys
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api.conftest import Served, read_all
from reconciler.api import asks
from reconciler.api.answers import answer
from reconciler.api.client import Client, Unreachable
from reconciler.api.frames import Listener
from reconciler.api.problem import ProblemDetails as Far
from reconciler.api.problem import Question, describe_error, revive
from reconciler.model import errors
from reconciler.model.events import ActionDone, AnyEvent

READ = [
    asks.Version(),
    asks.Get(),
    asks.Get(kind="container", name="blog/web"),
    asks.Describe(name="blog/web"),
    asks.Status(),
    asks.Drift(),
    asks.History(stack="blog"),
    asks.Images(),
    asks.Difference(stack="blog", old=1, new=2),
]


def here(served: Served, ask: asks.Ask) -> Any:
    @contextmanager
    def opened(**_: object) -> Any:
        yield served.root

    return answer(opened, ask, Listener())


def test_each_answer_is_where_its_call_says() -> None:
    for call in asks.CALLS:
        assert call.ask is asks.Cancel or call.ask in import_module(f"reconciler.api.answers.{call.by}").ANSWERS


@pytest.mark.parametrize("ask", READ, ids=lambda ask: type(ask).__name__)
def test_answers_are_those_of_this_process(served: Served, ask: asks.Ask) -> None:
    served.apply()
    served.apply(command="b")
    expected = msgspec.json.decode(msgspec.json.encode(here(served, ask)))
    assert served.client.call(ask) == expected


@pytest.mark.parametrize(
    ("ask", "kind", "words", "code"),
    [
        (asks.Get(name="nothere"), errors.NotFound, "no container named nothere", 1),
        (asks.Get(kind="pod"), errors.Usage, "there is no kind pod", 64),
        (asks.Apply(manifests=asks.Manifests(paths=("nothere.yaml",))), errors.BadManifest, "nothere.yaml: 1 problem", 65),
        (asks.Kill(names=("blog",), signal="BOO"), errors.Usage, "there is no signal BOO", 64),
        (asks.Rollback(stack="blog"), errors.Failed, "stack blog has no revision to go back to", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_those_of_this_process(
    served: Served, ask: asks.Ask, kind: type[errors.ReconcileError], words: str, code: int
) -> None:
    served.apply()
    with pytest.raises(kind) as far:
        served.client.call(ask)
    with pytest.raises(kind) as near:
        here(served, ask)
    assert words in far.value.brief
    assert (far.value.brief, far.value.detail, far.value.hint) == (near.value.brief, near.value.detail, near.value.hint)
    assert far.value.exit_code == code


def test_apply_streams_its_events_and_what_it_would_show(served: Served) -> None:
    events: list[AnyEvent] = []
    shown: list[str] = []
    done = served.client.call(
        asks.Apply(manifests=served.manifests(), yes=True), Listener(emit=events.append, show=shown.extend)
    )
    assert done == {"done": 3}
    assert [event.key for event in events if isinstance(event, ActionDone)][-1] == "container/blog/web/1"
    assert "3 actions: 3 create" in shown[-1]
    assert served.client.call(asks.Apply(manifests=served.manifests(), yes=True)) == {"done": None}


def test_plan_that_needs_a_yes_is_asked_for_and_another_plan_is_asked_for_anew(served: Served) -> None:
    served.apply()
    asked: list[Question] = []
    wanted = asks.Delete(what="blog", manifests=asks.Manifests(paths=("blog",)), asks=True)
    with pytest.raises(errors.NeedsYes, match="not confirmed"):
        served.client.call(wanted, Listener(confirm=lambda question: bool(asked.append(question))))
    assert "Go on?" in asked[0].text
    served.apply("shop")
    stale = msgspec.structs.replace(wanted, what="shop", agreed=asked[0].token)
    served.client.call(stale, Listener(confirm=lambda question: not asked.append(question)))
    assert len(asked) == 2
    assert asked[0].token != asked[1].token
    assert served.client.call(asks.Status())["stacks"][0]["stack"] == "blog"
    with pytest.raises(errors.NeedsYes, match="nobody can be asked"):
        served.client.call(msgspec.structs.replace(wanted, asks=False))


def test_events_resume_behind_the_last_one_that_was_heard(served: Served) -> None:
    served.apply()
    items: list[Any] = []
    served.client.call(asks.Events(), Listener(item=items.append))
    assert len(items) >= 3
    middle = items[1].id
    rest: list[Any] = []
    served.client.call(asks.Events(after=middle), Listener(item=rest.append))
    assert [one.id for one in rest] == [one.id for one in items[2:]]
    status, body = served.ask("/v1/events", Accept="text/event-stream", Last_Event_ID=str(middle))
    assert status == 200
    assert f"id: {items[2].id}\n".encode() in body
    assert f"id: {middle}\n".encode() not in body


def test_follower_hears_what_happens_after_it_came(served: Served) -> None:
    with closing(served.open()) as sock:
        sock.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: reconcile\r\nAccept: text/event-stream\r\n\r\n")
        served.apply()
        heard = b""
        while b"container/blog/web/1" not in heard:
            heard += sock.recv(65536)


def test_logs_bring_bytes_as_they_are(served: Served) -> None:
    served.apply()
    items: list[Any] = []
    served.client.call(asks.Logs(name="web"), Listener(item=items.append))
    assert [one.item["text"] for one in items] == ["bWFkZSBjb250YWluZXIvYmxvZy93ZWIvMQ=="]


@pytest.mark.parametrize("way", ["cancel", "hang up"])
def test_apply_ends_at_its_next_action_when_nobody_wants_it_any_more(served: Served, way: str) -> None:
    """An apply that waits for a container that never gets well."""
    check = ', healthcheck: {test: [CMD, "false"], interval: 1h, start_period: 1h}'
    ask = msgspec.json.encode(asks.Apply(manifests=served.manifests(more=check), yes=True))
    lines = ["POST /v1/apply HTTP/1.1", "Host: reconcile", "Reconcile-Call: mine", "Connection: close"]
    head = "\r\n".join([*lines, "Content-Type: application/json", f"Content-Length: {len(ask)}", "", ""])
    with closing(served.open()) as sock:
        sock.sendall(head.encode() + ask)
        heard = b""
        while b'"done"' not in heard:
            heard += sock.recv(65536)
        if way == "cancel":
            assert served.post("/v1/cancel", call="mine") == (200, b'{"found":true}')
            heard += read_all(sock)
            assert b"interrupted" in heard
            assert b'"type":"problem"' in heard
    # Whoever comes next need not wait for its lock.
    assert served.client.call(asks.Delete(what="blog", manifests=asks.Manifests(paths=()), yes=True, lock_timeout=10))


def test_every_error_comes_back_as_what_it_was() -> None:
    from reconciler.model.errors import BadManifest, Problem, ProgramFailed, RolledBack

    found = [
        BadManifest([Problem(file="a.yaml", line=3, column=2, path="x", text="no", hint="try", source="  x: 1")]),
        ProgramFailed("container/a/b/1", "start", "no such file", "look", code=127),
        RolledBack({"a": 2}, errors.Failed("it fell", "down")),
        errors.LockTimeout("stack a", "pid 1"),
        errors.StalePlan("p", "why"),
    ]
    for error in found:
        back = revive(msgspec.json.decode(msgspec.json.encode(describe_error(error)), type=Far))
        assert type(back) is type(error)
        assert (back.brief, back.detail, back.hint, back.exit_code) == (
            error.brief,
            error.detail,
            error.hint,
            error.exit_code,
        )
        assert getattr(back, "code", 0) == getattr(error, "code", 0)
        assert getattr(back, "problems", ()) == getattr(error, "problems", ())


def test_the_client_imports_nothing_that_is_slow(tmp_path: Path) -> None:
    code = "import sys, reconciler.api.client; print(*sorted({n.partition('.')[0] for n in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"starlette", "uvicorn", "click", "sqlalchemy", "yaml", "http", "ssl", "email", "asyncio", "urllib"} & set(
        out
    )


def test_nobody_at_the_socket_is_told_and_so_is_a_controller_that_hangs(tmp_path: Path, served: Served) -> None:
    import socket
    from unittest import mock

    with pytest.raises(Unreachable, match="nobody answers"):
        Client(f"{served.path}.not").call(asks.Get())
    path = f"{served.path}.hangs"
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(path)
        hangs.listen()
        with (
            mock.patch("reconciler.api.client.PATIENCE", 0.1),
            mock.patch("reconciler.api.client.CONNECT", 0.1),
            pytest.raises(errors.Failed, match=r"the controller \(pid 7\) does not answer"),
        ):
            Client(path, pid=7).call(asks.Get())


def test_who_asked_is_recorded_by_the_word_of_the_kernel(served: Served) -> None:
    import getpass
    import os

    served.apply()
    [change] = [one.item for one in _items(served, asks.Events(changes=True))]
    assert (change["who"], change["uid"], change["pid"]) == (getpass.getuser(), os.getuid(), os.getpid())


def _items(served: Served, ask: asks.Ask) -> list[Any]:
    items: list[Any] = []
    served.client.call(ask, Listener(item=items.append))
    return items
