"""`reconcile drift`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, output_option, root_option
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile drift blog")
@click.argument("stack", required=False, default="", shell_complete=complete_stacks)
@output_option("table", "json")
@root_option
@click.pass_context
def drift(ctx: click.Context, *, stack: str, form: str, root: Path | None) -> int:
    """Show what was changed on the machine though no manifest changed, and what `apply` would do about it.

    Exit code 0: nothing; 2: something drifted.
    """
    from reconciler.api.asks import Drift
    from reconciler.cli.render import show, show_json

    answer = ask(ctx, root, Drift(stack=stack))
    found = answer["drift"]
    drifted = found["actions"] or found["lost"] or found["strays"]
    if form == "json":
        show_json(found)
    else:
        for line in answer["lines"]:
            show(line)
        for stray in found["strays"]:
            show(f"{stray}: belongs to nobody  (apply: remove)")
        for text in found["warnings"]:
            show(f"warning: {text}")
        if not drifted:
            show("no drift")
    return 2 if drifted else 0


COMMANDS = {"drift": drift}
