"""`reconcile dial`: joins the standard streams to the socket of the controller, for `--host` of another machine."""

import os
import select
import socket
from pathlib import Path

import click

from reconciler.cli.options import root_option, root_path

_LARGEST = 65_536


@click.command(epilog="Example: reconcile dial, which `reconcile --host ssh://ann@db1 get` runs on db1")
@root_option
@click.pass_context
def dial(ctx: click.Context, *, root: Path | None) -> int:
    """Join our streams to the controller's socket, until either ends: the far end of --host."""
    from reconciler.api.client import forbid
    from reconciler.model.errors import Failed
    from reconciler.verbs.serving import DEFAULT_ROOT, DEFAULT_SOCKET, read_serving

    path = root_path(ctx, root)
    serving = read_serving(path)
    where = serving.socket if serving is not None else ""
    if not where and path == DEFAULT_ROOT:  # A member of the group sees nothing of the root itself.
        where = DEFAULT_SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(where or f"{path}/api.sock")
        except PermissionError as error:
            raise forbid(where) from error
        except OSError as error:
            words = f"{path}: no controller answers here: {error.strerror}"
            raise Failed(words, hint="`systemctl start reconcile` on this host, or give the --root of one") from error
        _pass_through(sock)
    return 0


def _pass_through(sock: socket.socket) -> None:
    ends: dict[int, int] = {0: sock.fileno(), sock.fileno(): 1}
    while sock.fileno() in ends:
        ready, _, _ = select.select(list(ends), [], [])
        for number in ready:
            data = os.read(number, _LARGEST)
            if not data:
                del ends[number]
                if number == 0:
                    return  # Whoever asked has gone.
                continue
            left = memoryview(data)
            while left:
                left = left[os.write(ends[number], left) :]


COMMANDS = {"dial": dial}
