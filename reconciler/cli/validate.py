"""`reconcile validate` and `reconcile schema`."""

from pathlib import Path

import click

from reconciler.cli.manifests import load_manifests
from reconciler.cli.options import output_option
from reconciler.schema.load import FILES, read_schema_text


@click.command(epilog="Example: reconcile validate stack.yaml")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--var", "variables", multiple=True, metavar="K=V", help="A variable for ${K} in manifests.")
@output_option("table", "json")
def validate(*, paths: tuple[Path, ...], variables: tuple[str, ...], form: str) -> int:
    """Check manifests as far as they can be checked without the machine: every error at once, each with its place."""
    from collections import Counter

    from reconciler.cli.render import show, show_json
    from reconciler.model.errors import BadManifest
    from reconciler.model.key import kind_of

    try:
        stacks = load_manifests(paths, variables, judged=True)
    except BadManifest as error:
        if form != "json":
            raise
        show_json(list(error.problems))
        return error.exit_code
    if form == "json":
        show_json([])
        return 0
    for stack in stacks:
        counts = Counter(kind_of(key).value for key in stack.specs)
        words = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))
        show(f"{stack.source}: stack {stack.name} is valid: {words}")
    return 0


_OF_SCHEMA = f"""\
Print a JSON Schema: of a manifest (stack), of a part of it, or of what `-o json` prints (plan, get, events).

KIND is one of {", ".join(FILES)}."""


@click.command(help=_OF_SCHEMA, epilog="Example: reconcile schema container")
@click.argument("kind", required=False, default="stack", metavar="[KIND]", type=click.Choice(FILES))
def schema(*, kind: str) -> int:
    """Print a JSON Schema."""
    click.echo(read_schema_text(kind), nl=False)
    return 0


COMMANDS = {"validate": validate, "schema": schema}
