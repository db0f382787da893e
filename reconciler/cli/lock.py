"""`reconcile lock`."""

from pathlib import Path

import click

from reconciler.cli.manifests import load_manifests
from reconciler.cli.options import output_option, root_option


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
    from reconciler.engine.registry import open_engine
    from reconciler.verbs.lock import lock as verb
    from reconciler.verbs.root import RUN
    from reconciler.verbs.serving import DEFAULT_ROOT

    if update and Path(update).exists():  # `--update stack.yaml`: the word after it is a path, and all are meant
        paths, update = (Path(update), *paths), "*"
    if not paths:
        raise click.UsageError("Missing argument 'PATH...'.")
    stacks = load_manifests(paths, variables, pinned=False)
    engine = open_engine("native", root or ctx.obj["root"] or DEFAULT_ROOT, RUN, "")
    try:
        entries = verb(stacks, engine.images, update=update or "")
    finally:
        engine.close()
    if form == "json":
        show_json([{"file": e.file, "tag": e.tag, "digest": e.digest, "was": e.was, "what": e.what} for e in entries])
    elif entries:
        rows = [[entry.tag, (entry.digest or entry.was)[:19], entry.what, entry.file] for entry in entries]
        show_table(("TAG", "DIGEST", "", "FILE"), rows)
    else:
        show("there is no tag to lock")
    return 0


COMMANDS = {"lock": lock}
