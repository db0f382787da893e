"""`reconcile backup` and `reconcile restore`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import opened, output_option, root_option, root_path

if TYPE_CHECKING:
    from reconciler.model.events import AnyEvent
    from reconciler.verbs.backup import BackedUp
    from reconciler.verbs.restore import Restored

STANDARD = "-"


@click.command(epilog="Example: reconcile backup /backup/host.tar --volumes")
@click.argument("file", type=click.Path())
@click.option("--volumes", is_flag=True, help="With the data of all volumes.")
@output_option("table", "json")
@root_option
@click.pass_context
def backup(ctx: click.Context, *, file: str, volumes: bool, form: str, root: Path | None) -> int:
    """Write what is recorded, with the key, into one tar file (- for the standard output), while everything runs.

    Whoever has the file has the secrets in it: it is made 0600.
    """
    from reconciler.cli.render import is_terminal
    from reconciler.verbs.backup import backup as verb

    if file == STANDARD and is_terminal(sys.stdout):
        raise click.UsageError("an archive is not for a terminal: give a file, or send it on with |", ctx)
    target = sys.stdout.buffer if file == STANDARD else Path(file)
    with opened(ctx, root) as found:
        done = verb(found, target, volumes=volumes, emit=_say)
    # Order: the archive first, for what is said next goes to the error output then.
    sys.stdout.flush()
    _tell_backup(done, file, form)
    return 0


def _say(event: "AnyEvent") -> None:
    from reconciler.api.told import final_lines
    from reconciler.cli.render import look_of

    for line in final_lines(event, look_of(sys.stderr)):
        click.echo(line, err=True)


def _tell_backup(done: "BackedUp", file: str, form: str) -> None:
    from reconciler.api.look import counted
    from reconciler.cli.render import show, show_json
    from reconciler.model.units import render_size_rounded

    stream = sys.stderr if file == STANDARD else sys.stdout
    if form == "json" and file != STANDARD:
        plain: dict[str, Any] = {"file": file, "size": done.size, "root": done.manifest.root_id}
        plain |= {"stacks": list(done.manifest.stacks), "volumes": sorted(done.manifest.volumes.values())}
        show_json({**plain, "left_out": list(done.left_out), "unfetchable": list(done.unfetchable)})
        return
    volumes = len(done.manifest.volumes)
    of = f"{counted(len(done.manifest.stacks), 'stack')}, {counted(done.records, 'record')}"
    show(f"{file}: {render_size_rounded(done.size)}: {of}, {counted(volumes, 'volume')} with data", stream)
    for line in done.left_out:
        show(f"  ! left out: {line}", stream)
    for key in done.unfetchable:
        show(f"  ! {key} comes from an archive file: keep that file too", stream)


@click.command(epilog="Example: reconcile restore /backup/host.tar && reconcile boot")
@click.argument("file", type=click.Path())
@output_option("table", "json")
@root_option
@click.pass_context
def restore(ctx: click.Context, *, file: str, form: str, root: Path | None) -> int:
    """Make a new root of a backup (- for the standard input). What is there already is never written over.

    Nothing is started: `reconcile boot` does that, and pulls the images.
    """
    from reconciler.verbs.restore import restore as verb

    place = root_path(ctx, root)
    if file == STANDARD:
        done = verb(place, sys.stdin.buffer, what="standard input")
    else:
        try:
            with Path(file).open("rb") as source:
                done = verb(place, source, what=file)
        except FileNotFoundError:
            raise click.UsageError(f"there is no file {file}", ctx) from None
    _tell_restore(done, place, form)
    return 0


def _tell_restore(done: "Restored", place: Path, form: str) -> None:
    from reconciler.api.look import counted
    from reconciler.cli.render import show, show_json

    if form == "json":
        plain = {"root": done.root_id, "of": done.manifest.root_id, "stacks": list(done.manifest.stacks)}
        show_json({**plain, "volumes": list(done.volumes), "empty": list(done.empty), "old_runs": done.old_runs})
        return
    of = f"{counted(len(done.manifest.stacks), 'stack')}, {counted(len(done.volumes), 'volume')} with data"
    show(f"{place}: restored {of}; its id is {done.root_id} (it was {done.manifest.root_id})")
    for key in done.empty:
        show(f"  ! {key}: its data was not in the backup; `reconcile boot` does not make it anew by itself")
    if done.old_runs:
        show(f"  ! the old root {done.manifest.root_id} still runs on this machine, and holds its ports and subnets")
    show("not in a backup: what containers wrote outside of volumes, logs, images (pulled again by their digests)")
    show("`reconcile boot` starts everything")


COMMANDS = {"backup": backup, "restore": restore}
