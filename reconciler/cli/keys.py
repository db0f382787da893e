"""`reconcile keys`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.options import opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.verbs.agekeys import AgeKey


@click.group(invoke_without_command=True, epilog="Example: reconcile keys new")
@output_option("table", "json")
@root_option
@click.pass_context
def keys(ctx: click.Context, *, form: str, root: Path | None) -> None:
    """List, make and add the keys that open encrypted secrets."""
    if root:
        ctx.obj["root"] = root
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_keys, form=form, root=None)


@keys.command("ls", epilog="Example: reconcile keys ls")
@output_option("table", "json")
@root_option
@click.pass_context
def list_keys(ctx: click.Context, *, form: str, root: Path | None) -> int:
    """List the recipients that this root opens files for."""
    with opened(ctx, root) as found:
        _show(found.age_keys.read(), form, none="no keys yet: `reconcile keys new` makes one")
    return 0


@keys.command("new", epilog="Example: reconcile keys new && age -r age1… -o token.age token")
@output_option("table", "json")
@root_option
@click.pass_context
def new_key(ctx: click.Context, *, form: str, root: Path | None) -> int:
    """Make a key, and print its recipient: files encrypted for that are opened here, and nowhere else."""
    with opened(ctx, root, create=True) as found, found.lock_root("keys"):
        made = found.age_keys.make()
    _show([made], form)
    return 0


@keys.command("add", epilog="Example: reconcile keys add key.txt")
@click.argument("file", type=click.Path())
@output_option("table", "json")
@root_option
@click.pass_context
def add_keys(ctx: click.Context, *, file: str, form: str, root: Path | None) -> int:
    """Take over the keys of a file of age-keygen (- for the standard input)."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise click.UsageError(f"{file} can't be read: {why}", ctx) from None
    what = "the standard input" if file == "-" else file
    with opened(ctx, root, create=True) as found, found.lock_root("keys"):
        added = found.age_keys.add(text, what)
    _show(added, form, none="nothing new: this root has all of them already")
    return 0


def _show(found: "Iterable[AgeKey]", form: str, *, none: str = "") -> None:
    from reconciler.cli.render import show, show_json

    listed = list(found)
    if form == "json":
        show_json([{"recipient": key.recipient, "created": key.created} for key in listed])
        return
    for key in listed:
        show(key.recipient + (f"  made {key.created}" if key.created else ""))
    if not listed and none:
        show(none)


COMMANDS = {"keys": keys}
