"""Who answers: the controller of the root over its socket, where one lives, and else this process itself.

The answers are the same data, the events the same events; the socket is faster, for whoever listens there has everything
imported. So nothing that is slow to import may be imported here at the top.
"""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reconciler.api.asks import Ask
    from reconciler.api.client import Client
    from reconciler.api.frames import Listener


def ask(ctx: click.Context, root: Path | None, question: "Ask", listener: "Listener | None" = None) -> Any:
    """What is asked, answered. Raises ReconcileError."""
    from reconciler.api.frames import Listener

    listener = listener or Listener()
    if (client := find_client(ctx, root)) is not None:
        from reconciler.api.client import Unreachable

        try:
            return client.call(question, listener)
        except Unreachable:  # It ends just now, or has just begun; nothing was asked of it.
            if client.remote:
                raise
    from reconciler.api.answers import answer
    from reconciler.cli.options import opened

    return answer(partial(opened, ctx, root), question, listener)


def find_client(ctx: click.Context, root: Path | None, *, asks: bool = True) -> "Client | None":
    """A client of the controller that lives and has the root; None without one, or with `--local`. Without `asks` nobody
    is asked for a password on the way."""
    from reconciler.cli.options import root_path
    from reconciler.verbs.serving import DEFAULT_ROOT, DEFAULT_SOCKET, read_serving

    given = ctx.obj or ctx.find_root().params
    if host := given.get("host"):
        from reconciler.api.client import Client
        from reconciler.cli.hosts import Way

        way = Way(host, root or given["root"], asks=asks)
        return Client(host, connect=way.connect, explain=way.explain)
    if given.get("local"):
        return None
    path = root_path(ctx, root)
    serving = read_serving(path)
    where = serving.socket if serving is not None else ""
    if not where and path == DEFAULT_ROOT and os.geteuid() != 0:  # A member of the group sees nothing of the root itself.
        where = DEFAULT_SOCKET
    if not where or not os.path.exists(where):  # noqa: PTH110
        return None
    from reconciler.api.client import Client

    return Client(where, pid=serving.process.pid if serving is not None else 0)


def read_environment(paths: tuple[Path, ...], stdin: str | None) -> dict[str, str]:
    """Of our environment what these manifests may name, and nothing else: it may leave this process."""
    import re

    texts = [stdin or ""]
    for path in paths:
        try:
            files = [each for each in path.iterdir() if each.suffix in (".yaml", ".yml")] if path.is_dir() else [path]
            texts += [_read(file) for file in files]
        except OSError:  # Whoever loads it says so.
            continue
    words = {word for text in texts for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", text)}
    return {name: value for name, value in os.environ.items() if name in words}


MOST = 32 << 20
"""Bytes of a manifest that are looked through."""


def _read(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(MOST).decode(errors="replace")
