"""Who answers on loopback addresses: Prometheus, and git hosts that say that something was pushed."""

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from reconciler.controller.metrics import METRICS_KIND
from reconciler.controller.pushhook import PATH, is_genuine, read_secret
from reconciler.controller.scrape import Answer, Post, ScrapeServer
from reconciler.controller.settings import HookOptions, Settings
from reconciler.model.errors import Failed


def open_listeners(
    settings: Settings, *, metrics: Callable[[], bytes], ready: Callable[[], bool], look: Callable[[], int]
) -> list[ScrapeServer]:
    """Those that a configuration asks for, not started; `look` has all repositories looked at, and says how many that are.

    Raises Failed.
    """
    found = []
    if settings.metrics is not None:
        paths = {
            "/metrics": lambda: Answer(200, metrics(), METRICS_KIND),
            "/healthz": lambda: Answer(200, b"ok\n"),
            "/readyz": lambda: Answer(200, b"ok\n") if ready() else Answer(503, b"not everything was looked at yet\n"),
        }
        found.append(_bind("metrics", settings.metrics.listen, paths))
    if settings.webhook is not None:
        found.append(_bind("webhook", settings.webhook.listen, {}, {PATH: _hear_pushes(settings.webhook, look)}))
    return found


def _hear_pushes(options: HookOptions, look: Callable[[], int]) -> Post:
    def pushed(headers: Mapping[str, str], body: bytes) -> Answer:
        if not is_genuine(headers, body, secret=read_secret(options.secret_file)):
            return Answer(403, b"that is not the secret\n")
        return Answer(202, f"repositories looked at: {look()}\n".encode())

    return pushed


def _bind(
    what: str,
    address: tuple[str, int],
    paths: Mapping[str, Callable[[], Answer]],
    posts: Mapping[str, Post] = MappingProxyType({}),
) -> ScrapeServer:
    try:
        return ScrapeServer(address, paths, posts)
    except OSError as error:
        tried = f"{what}: {address[0]}:{address[1]} can't be listened on"
        raise Failed(f"{tried}: {os.strerror(error.errno or 0)}", hint="choose another port") from error
