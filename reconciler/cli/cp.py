"""`reconcile cp`."""

import sys
from pathlib import Path

import click

from reconciler.cli.options import opened, root_option


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
    from reconciler.verbs import copy

    there, here = split_place(source), split_place(target)
    if bool(there) == bool(here):
        which = "both are containers'" if there else "none is a container's"
        raise click.UsageError(f"one of the two must be CONTAINER:PATH; {which}. Write a local path with a colon as ./a:b")
    watcher = make_watcher("plain")
    with opened(ctx, root) as found:
        if there and target == "-":
            copy.copy_tar_from(found, *there, sys.stdout.buffer, follow=follow, emit=watcher)
        elif there:
            copy.copy_from(found, *there, target, archive=archive, follow=follow, emit=watcher)
        elif here and source == "-":
            copy.copy_tar_to(found, sys.stdin.buffer, *here, emit=watcher)
        elif here:
            copy.copy_to(found, source, *here, archive=archive, follow=follow, emit=watcher)
    return 0


def split_place(text: str) -> tuple[str, str] | None:
    """`web:/etc` → (`web`, `/etc`); None for a local path, which one that begins with `/` or `.` always is."""
    name, sign, path = text.partition(":")
    if not sign or text.startswith(("/", ".")) or not name:
        return None
    return name, path if path.startswith("/") else f"/{path}"


COMMANDS = {"cp": cp}
