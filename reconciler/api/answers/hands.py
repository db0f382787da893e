"""By hand, on containers: stop, start, restart, kill, pause, unpause, logs, wait."""

from collections.abc import Callable
from typing import Any

import msgspec

from reconciler.api import asks
from reconciler.api.answers import Answerer, Opener
from reconciler.api.frames import Item, Listener
from reconciler.api.problem import describe_error
from reconciler.model.errors import Usage
from reconciler.model.signals import parse_signal
from reconciler.verbs import containers
from reconciler.verbs.root import Root


def _each(opened: Opener, ask: asks.ByHand, work: Callable[[Root, str], None]) -> Any:
    with opened(frees=True) as root:
        for name in ask.names:
            work(root, name)


def stop(opened: Opener, ask: asks.Stop, listener: Listener) -> Any:
    """Events are all there is."""

    def work(root: Root, name: str) -> None:
        containers.stop(root, name, emit=listener.emit, note=ask.note, grace=ask.grace)

    return _each(opened, ask, work)


def start(opened: Opener, ask: asks.Start, listener: Listener) -> Any:
    """As stop."""
    return _each(opened, ask, lambda root, name: containers.start(root, name, emit=listener.emit))


def restart(opened: Opener, ask: asks.Restart, listener: Listener) -> Any:
    """As stop."""
    return _each(
        opened, ask, lambda root, name: containers.restart(root, name, emit=listener.emit, grace=ask.grace)
    )  # fmt: skip


def kill(opened: Opener, ask: asks.Kill, listener: Listener) -> Any:
    """As stop. Raises Usage for what is no signal."""
    try:
        number = parse_signal(ask.signal)
    except ValueError:
        raise Usage(f"there is no signal {ask.signal}") from None
    return _each(opened, ask, lambda root, name: containers.kill(root, name, number, emit=listener.emit))


def pause(opened: Opener, ask: asks.Pause, listener: Listener) -> Any:
    """As stop."""
    return _each(opened, ask, lambda root, name: containers.pause(root, name, emit=listener.emit, note=ask.note))


def unpause(opened: Opener, ask: asks.Unpause, listener: Listener) -> Any:
    """As stop."""
    return _each(opened, ask, lambda root, name: containers.unpause(root, name, emit=listener.emit))


def logs(opened: Opener, ask: asks.Logs, listener: Listener) -> Any:
    """A line an item; its text in base64, for it may be no text."""
    tail = None if ask.tail < 0 else ask.tail
    with opened() as root:
        lines = containers.logs(
            root, ask.name, tail=tail, since=ask.since, follow=ask.follow, stop=listener.gone
        )  # fmt: skip
        for key, line in lines:
            listener.item(Item(item={"key": key, **msgspec.to_builtins(line)}))


def wait(opened: Opener, ask: asks.Wait, listener: Listener) -> Any:
    """An item each: its exit code, or the problem."""
    from reconciler.verbs import attach  # as much as all the rest

    with opened() as root:
        for ended in attach.wait(root, ask.names, stop=listener.gone):
            problem = None if ended.error is None else msgspec.to_builtins(describe_error(ended.error))
            item = {"key": ended.key, "exit_code": ended.exit_code, "note": ended.note, "problem": problem}
            listener.item(Item(item=item))


ANSWERS: dict[type[asks.Ask], Answerer] = {
    asks.Stop: stop,
    asks.Start: start,
    asks.Restart: restart,
    asks.Kill: kill,
    asks.Pause: pause,
    asks.Unpause: unpause,
    asks.Logs: logs,
    asks.Wait: wait,
}
