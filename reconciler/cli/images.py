"""`reconcile pull` and `reconcile images`."""

import sys
from pathlib import Path

import click

from reconciler.cli.options import output_option, root_option
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile pull docker.io/library/redis:7")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@output_option("table", "json")
@root_option
@click.pass_context
def pull(ctx: click.Context, *, references: tuple[str, ...], form: str, root: Path | None) -> int:
    """Pull images by hand; `images prune` keeps them until `images rm`."""
    from reconciler.api.asks import Pull
    from reconciler.api.frames import Listener
    from reconciler.cli.progress import make_watcher
    from reconciler.cli.render import show, show_json

    watcher = make_watcher(form)
    try:
        pulled = ask(ctx, root, Pull(references=references), Listener(emit=watcher))
    finally:
        watcher.close()
    if form == "json":
        show_json(pulled)
    else:
        for reference, digest in pulled.items():
            show(f"{reference} {digest}")
    return 0


@click.group(invoke_without_command=True, epilog="Example: reconcile images prune")
@output_option("table", "wide", "json")
@root_option
@click.pass_context
def images(ctx: click.Context, *, form: str, root: Path | None) -> None:
    """List, inspect, remove and prune images."""
    if root:
        ctx.obj["root"] = root
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_images, form=form, root=None)


@images.command("ls", epilog="Example: reconcile images ls -o wide")
@output_option("table", "wide", "json")
@root_option
@click.pass_context
def list_images(ctx: click.Context, *, form: str, root: Path | None) -> int:
    """List the images that are here, and who needs them."""
    from reconciler.api.asks import Images
    from reconciler.cli.render import show_json, show_table
    from reconciler.model.units import render_size_rounded

    rows = ask(ctx, root, Images())
    if form == "json":
        show_json(rows)
        return 0
    head = ("IMAGE", "DIGEST", "SIZE", "USED BY")
    wide = form == "wide"
    show_table(
        head,
        [
            [
                ", ".join(one["names"]) or "-",
                one["digest"] if wide else one["digest"][:19],
                render_size_rounded(one["size"]),
                ", ".join(one["used_by"]) if wide else (f"{len(one['used_by'])}" if one["used_by"] else "nobody"),
            ]
            for one in rows
        ],
    )
    return 0


@images.command(epilog="Example: reconcile images inspect busybox:1")
@click.argument("image")
@root_option
@click.pass_context
def inspect(ctx: click.Context, *, image: str, root: Path | None) -> int:
    """Show everything known of an image, as JSON."""
    from reconciler.api.asks import Inspect
    from reconciler.cli.render import show_json

    show_json(ask(ctx, root, Inspect(image=image)))
    return 0


@images.command("rm", epilog="Example: reconcile images rm busybox:1")
@click.argument("image")
@root_option
@click.pass_context
def remove(ctx: click.Context, *, image: str, root: Path | None) -> int:
    """Remove an image that no resource uses."""
    from reconciler.api.asks import RemoveImage

    _show_gone(ask(ctx, root, RemoveImage(image=image)), "removed")
    return 0


@images.command(epilog="Example: reconcile images prune --dry-run")
@click.option("--all", "all_", is_flag=True, help="Also what was pulled by hand and what only revisions need.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@root_option
@click.pass_context
def prune(ctx: click.Context, *, all_: bool, dry_run: bool, yes: bool, root: Path | None) -> int:
    """Remove images and layers that no resource, no kept revision and no pull by hand needs."""
    from reconciler.api.asks import Prune
    from reconciler.cli.render import is_terminal
    from reconciler.model.errors import NeedsYes

    if not (yes or dry_run) and is_terminal(sys.stdin) and is_terminal(sys.stdout):
        _show_gone(ask(ctx, root, Prune(all=all_, dry_run=True)), "would remove")
        if not click.confirm("Go on?", default=False):
            raise NeedsYes("images prune", "not confirmed; nothing was removed")
    _show_gone(ask(ctx, root, Prune(all=all_, dry_run=dry_run)), "would remove" if dry_run else "removed")
    return 0


def _show_gone(gone: list[tuple[str, int]], word: str) -> None:
    from reconciler.cli.render import show
    from reconciler.model.units import render_size_rounded

    for name, number in gone:
        show(f"{word} {name}  {render_size_rounded(number)}")
    show(f"{word} {len(gone)}, {render_size_rounded(sum(number for _, number in gone))} in all")


COMMANDS: dict[str, click.Command] = {"pull": pull, "images": images}
