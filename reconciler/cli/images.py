"""`reconcile pull` and `reconcile images`."""

import sys
from pathlib import Path

import click

from reconciler.cli.options import opened, output_option, root_option


@click.command(epilog="Example: reconcile pull docker.io/library/redis:7")
@click.argument("references", nargs=-1, required=True, metavar="REF...")
@output_option("table", "json")
@root_option
@click.pass_context
def pull(ctx: click.Context, *, references: tuple[str, ...], form: str, root: Path | None) -> int:
    """Pull images by hand; `images prune` keeps them until `images rm`."""
    from reconciler.cli.progress import make_watcher
    from reconciler.cli.render import show, show_json
    from reconciler.verbs import images

    watcher = make_watcher(form)
    pulled = {}
    with opened(ctx, root, create=True) as found:
        try:
            for reference in references:
                pulled[reference] = images.pull(found, reference, emit=watcher)
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
    from reconciler.cli.render import show_json, show_table
    from reconciler.model.units import render_size_rounded
    from reconciler.verbs import images as verb

    with opened(ctx, root) as found:
        rows = verb.list_images(found)
    if form == "json":
        show_json(
            [{"digest": r.image.digest, "names": r.image.names, "size": r.image.size, "used_by": r.used_by} for r in rows]
        )
        return 0
    head = ("IMAGE", "DIGEST", "SIZE", "USED BY")
    wide = form == "wide"
    show_table(
        head,
        [
            [
                ", ".join(r.image.names) or "-",
                r.image.digest if wide else r.image.digest[:19],
                render_size_rounded(r.image.size),
                ", ".join(r.used_by) if wide else (f"{len(r.used_by)}" if r.used_by else "nobody"),
            ]
            for r in rows
        ],
    )
    return 0


@images.command(epilog="Example: reconcile images inspect busybox:1")
@click.argument("image")
@root_option
@click.pass_context
def inspect(ctx: click.Context, *, image: str, root: Path | None) -> int:
    """Show everything known of an image, as JSON."""
    from reconciler.cli.render import show_json
    from reconciler.verbs import images as verb

    with opened(ctx, root) as found:
        show_json(verb.inspect(found, image))
    return 0


@images.command("rm", epilog="Example: reconcile images rm busybox:1")
@click.argument("image")
@root_option
@click.pass_context
def remove(ctx: click.Context, *, image: str, root: Path | None) -> int:
    """Remove an image that no resource uses."""
    from reconciler.verbs import images as verb

    with opened(ctx, root, frees=True) as found:
        _show_gone(verb.remove(found, image), "removed")
    return 0


@images.command(epilog="Example: reconcile images prune --dry-run")
@click.option("--all", "all_", is_flag=True, help="Also what was pulled by hand and what only revisions need.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@root_option
@click.pass_context
def prune(ctx: click.Context, *, all_: bool, dry_run: bool, yes: bool, root: Path | None) -> int:
    """Remove images and layers that no resource, no kept revision and no pull by hand needs."""
    from reconciler.cli.render import is_terminal
    from reconciler.model.errors import NeedsYes
    from reconciler.verbs import images as verb

    with opened(ctx, root, frees=not dry_run) as found:
        if not (yes or dry_run) and is_terminal(sys.stdin) and is_terminal(sys.stdout):
            _show_gone(verb.prune(found, all_=all_, dry_run=True), "would remove")
            if not click.confirm("Go on?", default=False):
                raise NeedsYes("images prune", "not confirmed; nothing was removed")
        _show_gone(verb.prune(found, all_=all_, dry_run=dry_run), "would remove" if dry_run else "removed")
    return 0


def _show_gone(gone: list[tuple[str, int]], word: str) -> None:
    from reconciler.cli.render import show
    from reconciler.model.units import render_size_rounded

    for name, number in gone:
        show(f"{word} {name}  {render_size_rounded(number)}")
    show(f"{word} {len(gone)}, {render_size_rounded(sum(number for _, number in gone))} in all")


COMMANDS: dict[str, click.Command] = {"pull": pull, "images": images}
