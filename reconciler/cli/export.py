"""`reconcile export`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, opened, root_option


@click.command(epilog="Example: reconcile export blog > stack.yaml")
@click.argument("what", metavar="STACK|run/NAME", shell_complete=complete_stacks)
@root_option
@click.pass_context
def export(ctx: click.Context, *, what: str, root: Path | None) -> int:
    """Write a manifest of what is recorded of a stack, or of one container that `run` made. Secrets become variables."""
    from reconciler.verbs.export import export as verb

    with opened(ctx, root) as found:
        click.echo(verb(found, what), nl=False)
    return 0


COMMANDS = {"export": export}
