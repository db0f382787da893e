"""A registry that is down, broken or lying: what runs goes on, and apply says what is the matter (X5)."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.world import World, wait_until

sys.path.append(str(Path(__file__).parents[1] / "images"))
from hostile_registry import HostileRegistry

pytestmark = pytest.mark.root

HTML = b"<!doctype html><title>Please log in</title>\x1b[2J"


def answer(status: int, body: bytes) -> Callable[[Any], bool]:
    def lie(handler: Any) -> bool:
        handler.send(status, body, {"Content-Type": "text/html"})
        return True

    return lie


def is_closed(world: World) -> bool:
    with world.network(), socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 5000)) != 0


@contextmanager
def in_its_place(world: World, lie: Callable[[Any], bool]) -> Iterator[HostileRegistry]:
    with world.network():
        server = HostileRegistry(lies=[lie], port=5000)
    try:
        yield server
    finally:
        server.stop()


def stack(**more: Any) -> dict[str, Any]:
    image = {"from": "127.0.0.1:5000/busybox:1", "pull": "always"}
    web = {"image": "app", "command": ["pause"], "stop_grace": "0s"}
    return {
        "apiVersion": "reconcile/v1", "name": "blog", "images": {"app": image}, "containers": {"web": web, **more},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "code", "words"),
    [
        (0, b"", 0, "refused"),
        (500, b"broken", 0, "500"),
        (200, HTML, 1, "expected JSON"),  # Known and wrong is an error: `pull: always` asks for what the registry says now.
        (404, b"{}", 1, "no such image"),
    ],
    ids=["down", "broken", "captive-portal", "empty"],
)
def test_x5_what_runs_goes_on_while_its_registry_is_down_or_wrong_and_apply_says_so(
    world: World, status: int, body: bytes, code: int, words: str
) -> None:
    world.write(stack())
    world.run("apply", "stack.yaml", "--yes", check=0)
    pid = world.pid("blog/web")
    assert world.registry is not None
    world.signal(world.registry.process)
    wait_until(lambda: is_closed(world), "the registry is gone")

    def watch() -> None:
        for _ in range(3):
            again = world.run("apply", "stack.yaml", "--yes")
            assert again.code == code, str(again)
            assert words in again.out + again.err, str(again)
            assert "127.0.0.1:5000" in again.out + again.err, str(again)
            assert "\x1b" not in again.out + again.err
        absent = {"image": "127.0.0.1:5000/absent:1", "command": ["pause"], "stop_grace": "0s"}
        world.write(stack(new=absent))
        failed = world.run("apply", "stack.yaml", "--yes")
        assert failed.code == 1, str(failed)
        assert "127.0.0.1:5000" in failed.err, str(failed)
        assert "Traceback" not in failed.err
        assert world.pid("blog/web") == pid
        assert "\x1b" not in failed.out + failed.err

    if status:
        with in_its_place(world, answer(status, body)):
            watch()
    else:
        watch()
