"""`reconcile export`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, root_option
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile export blog > stack.yaml")
@click.argument("what", metavar="STACK|run/NAME", shell_complete=complete_stacks)
@root_option
@click.pass_context
def export(ctx: click.Context, *, what: str, root: Path | None) -> int:
    """Write a manifest of what is recorded of a stack, or of one container that `run` made. Secrets become variables."""
    from reconciler.api.asks import Export

    click.echo(ask(ctx, root, Export(what=what))["manifest"], nl=False)
    return 0


COMMANDS = {"export": export}
