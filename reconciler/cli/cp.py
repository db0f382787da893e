"""`reconcile cp`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import opened, root_option
from reconciler.cli.reach import find_client

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.model.events import Emit
    from reconciler.verbs.copying import Side


@click.command(epilog="Example: reconcile cp web:/srv/www/. ./backup    tar -c ./conf | reconcile cp - web:/etc")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("-a", "--archive", is_flag=True, help="Keep owners (and, out of a container, setuid bits).")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="Copy what a link SOURCE leads to, not the link.")
@root_option
@click.pass_context
def cp(ctx: click.Context, *, source: str, target: str, archive: bool, follow: bool, root: Path | None) -> int:
    """Copy files out of a container or into one: CONTAINER:PATH on one side, a local path or - (a tar) on the other."""
    from reconciler.cli.progress import make_watcher
    from reconciler.verbs import copying

    there, here = split_place(source), split_place(target)
    if bool(there) == bool(here):
        which = "both are containers'" if there else "none is a container's"
        raise click.UsageError(f"one of the two must be CONTAINER:PATH; {which}. Write a local path with a colon as ./a:b")
    watcher = make_watcher("plain")
    name, path = there or here or ("", "")

    def copy(side: "Side") -> None:
        if there and target == "-":
            copying.copy_tar_from(side, path, sys.stdout.buffer, follow=follow)
        elif there:
            copying.copy_from(side, path, target, archive=archive, follow=follow, emit=watcher)
        elif source == "-":
            copying.copy_tar_to(side, sys.stdin.buffer, path)
        else:
            copying.copy_to(side, source, path, archive=archive, follow=follow, emit=watcher)

    _with_side(ctx, root, name, watcher, copy)
    return 0


def _with_side(ctx: click.Context, root: Path | None, name: str, emit: "Emit", copy: "Callable[[Side], None]") -> None:
    """Copy with the container's side: the controller's over its socket, or this process's."""
    if (client := find_client(ctx, root)) is not None:
        from reconciler.api.client import Unreachable
        from reconciler.api.files import FarSide

        try:
            return copy(FarSide(client, name, emit=emit))
        except Unreachable:  # Nothing was asked of it.
            if client.remote:
                raise
    from reconciler.verbs.copy import NearSide

    with opened(ctx, root) as found:
        copy(NearSide(found, name, emit=emit))


def split_place(text: str) -> tuple[str, str] | None:
    """`web:/etc` → (`web`, `/etc`); None for a local path, which one that begins with `/` or `.` always is."""
    name, sign, path = text.partition(":")
    if not sign or text.startswith(("/", ".")) or not name:
        return None
    return name, path if path.startswith("/") else f"/{path}"


COMMANDS = {"cp": cp}
