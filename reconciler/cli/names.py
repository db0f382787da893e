"""Names of what there is, for the shell's completion: from the root where we may read it, else from whoever answers for it.

Nobody wants to wait at a prompt: a host that takes longer is asked in the background, and known with the next key. Nothing
is said, and nobody is asked for a password.
"""

import json
import os
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.api.client import Client

PATIENCE = 0.2
"""Seconds that are waited for an answer."""
LONGEST = 20
"""Seconds after which nobody waits for one any more."""
KNOWN = 600.0
"""Seconds for which an answer that came later is good."""

Names = dict[str, list[str]]
"""By kind: `stacks` and `containers`."""
NOTHING: Names = {"stacks": [], "containers": []}


def read_names(ctx: click.Context) -> Names:
    """What there is, at the root or host that the line means; nothing where that is not known."""
    from reconciler.model.errors import ReconcileError

    try:
        host = _choose_host(ctx)
    except click.UsageError:
        return NOTHING
    if not host:
        with suppress(ReconcileError, OSError):
            return _read_root(ctx)
    client = _find_client(ctx, host.partition(",")[0])
    return NOTHING if client is None else _ask_within(client)


def _choose_host(ctx: click.Context) -> str:
    from reconciler.cli.hosts import choose_host

    given, verb = ctx.find_root().params, ctx
    while verb.parent is not None and verb.parent.parent is not None:
        verb = verb.parent
    return (
        "" if given.get("local") and not given.get("host") else choose_host(given.get("host") or "", verb.info_name or "")
    )


def _read_root(ctx: click.Context) -> Names:
    from reconciler.cli.options import opened

    with opened(ctx, ctx.params.get("root")) as root, root.store.read() as tx:
        return _sort(tx.records(), tx.stacks())


def _sort(keys: "Iterable[str]", stacks: "Iterable[str]" = ()) -> Names:
    from reconciler.model.key import Key, Kind, split_key

    parts = [split_key(Key(key)) for key in keys]
    containers = {part.name for part in parts if part.kind is Kind.CONTAINER}
    return {"stacks": sorted({*stacks, *(part.stack for part in parts)}), "containers": sorted(containers)}


def _find_client(ctx: click.Context, host: str) -> "Client | None":
    from reconciler.cli.reach import find_client

    # While the shell completes, no group was called that could have put this there.
    ctx.obj = {**ctx.find_root().params, "host": host}
    return find_client(ctx, ctx.params.get("root"), asks=False)


def _ask_within(client: "Client") -> Names:
    """What it says, or said a while ago where that takes too long."""
    from reconciler.linux.process import work_apart

    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base if base.startswith("/") else os.path.expanduser("~/.cache"), "reconcile")  # noqa: PTH111 as for contexts
    kept = folder / f"names-{sha256(client.path.encode()).hexdigest()[:16]}.json"
    answer = work_apart(lambda: _ask(client, kept), patience=PATIENCE, longest=LONGEST)
    with suppress(OSError, ValueError):
        if not answer and time.time() - kept.stat().st_mtime < KNOWN:
            answer = kept.read_bytes()
        found = json.loads(answer)
        return {kind: [str(name) for name in found[kind]] for kind in NOTHING}
    return NOTHING


def _ask(client: "Client", kept: Path) -> bytes:
    from reconciler.api.asks import Get
    from reconciler.linux import files

    answer = json.dumps(_sort(one["key"] for one in client.call(Get()))).encode()
    with suppress(OSError):
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomic(kept, answer)
    return answer
