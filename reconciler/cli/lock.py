"""`reconcile lock`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.manifests import load_manifests, name_manifests
from reconciler.cli.options import output_option, root_option
from reconciler.cli.reach import ask

if TYPE_CHECKING:
    from reconciler.verbs.lock import Entry


@click.command(epilog="Example: reconcile lock stack.yaml --update redis")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--update", is_flag=False, flag_value="*", metavar="[IMAGE]",
    help="Ask anew for what is locked: for one image, or for all.",
)  # fmt: skip
@click.option("--var", "variables", multiple=True, metavar="K=V", help="A variable for ${K} in manifests.")
@output_option("table", "json")
@root_option
@click.pass_context
def lock(
    ctx: click.Context, *, paths: tuple[Path, ...], update: str | None, variables: tuple[str, ...], form: str,
    root: Path | None,
) -> int:  # fmt: skip
    """Write the lock file of manifests: every tag with the digest that it names now. apply and plan use it.

    What is locked already stays as it is, until --update. `stack.yaml` has `stack.yaml.lock`.
    """
    from reconciler.cli.render import show, show_json, show_table
    from reconciler.verbs.lock import write

    if update and Path(update).exists():  # `--update stack.yaml`: the word after it is a path, and all are meant
        paths, update = (Path(update), *paths), "*"
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    compare = _compare_there if ctx.obj.get("host") else _compare_here
    entries = compare(ctx, root, paths, variables, update or "")
    write(entries)
    if form == "json":
        show_json([entry.json() for entry in entries])
    elif entries:
        rows = [[entry.tag, (entry.digest or entry.was)[:19], entry.what, entry.file] for entry in entries]
        show_table(("TAG", "DIGEST", "", "FILE"), rows)
    else:
        show("there is no tag to lock")
    return 0


def _compare_here(
    ctx: click.Context, root: Path | None, paths: tuple[Path, ...], variables: tuple[str, ...], update: str
) -> "list[Entry]":
    """What this machine is told: it needs no root."""
    from reconciler.engine.registry import open_engine
    from reconciler.verbs.lock import compare
    from reconciler.verbs.root import RUN
    from reconciler.verbs.serving import DEFAULT_ROOT

    stacks = load_manifests(paths, variables, pinned=False)
    engine = open_engine("native", root or ctx.obj["root"] or DEFAULT_ROOT, RUN, "")
    try:
        return compare(stacks, engine.images, update=update)
    finally:
        engine.close()


def _compare_there(
    ctx: click.Context, root: Path | None, paths: tuple[Path, ...], variables: tuple[str, ...], update: str
) -> "list[Entry]":
    """What registries tell the host that pulls."""
    from reconciler.api.asks import Lock
    from reconciler.manifest.lockfile import SUFFIX
    from reconciler.model.errors import Failed
    from reconciler.verbs.lock import Entry

    found = ask(ctx, root, Lock(manifests=name_manifests(ctx, paths, variables), update=update))
    entries = [Entry(file=one["file"], tag=one["tag"], digest=one["digest"], was=one["was"]) for one in found]
    for entry in entries:  # Whoever answers chooses no file of ours.
        manifest = Path(entry.file.removesuffix(SUFFIX))
        if not entry.file.endswith(SUFFIX) or not {manifest, manifest.parent} & set(paths) or not manifest.is_file():
            raise Failed(f"{entry.file}: the controller answered for a file that was not asked for")
    return entries


COMMANDS = {"lock": lock}
