"""`reconcile completion`."""

import click
from click.shell_completion import get_completion_class


@click.command(epilog="Example: reconcile completion bash > /etc/bash_completion.d/reconcile")
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> int:
    """Print the completion script of a shell: verbs, flags, names of containers and stacks."""
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    click.echo(found(root, {}, "reconcile", "_RECONCILE_COMPLETE").source())
    return 0


COMMANDS = {"completion": completion}
