"""`reconcile drift`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, opened, output_option, root_option


@click.command(epilog="Example: reconcile drift blog")
@click.argument("stack", required=False, default="", shell_complete=complete_stacks)
@output_option("table", "json")
@root_option
@click.pass_context
def drift(ctx: click.Context, *, stack: str, form: str, root: Path | None) -> int:
    """Show what was changed on the machine though no manifest changed, and what `apply` would do about it.

    Exit code 0: nothing; 2: something drifted.
    """
    from reconciler.cli.render import show, show_json
    from reconciler.plan.explain import render_drift
    from reconciler.plan.forms import plan_json
    from reconciler.verbs.observe import drift as verb

    with opened(ctx, root) as found:
        seen = verb(found, stack)
    if form == "json":
        show_json(
            {
                **plan_json(seen.plan),
                "lost": list(seen.plan.lost),
                "strays": [f"{stray.kind} {stray.name}" for stray in seen.strays],
                "warnings": list(seen.warnings),
            }
        )
    else:
        for line in render_drift(seen.plan):
            show(line)
        for stray in seen.strays:
            show(f"{stray.kind} {stray.name}: belongs to nobody  (apply: remove)")
        for text in seen.warnings:
            show(f"warning: {text}")
        if not (seen.plan.actions or seen.plan.lost or seen.strays):
            show("no drift")
    return 2 if seen.plan.actions or seen.plan.lost or seen.strays else 0


COMMANDS = {"drift": drift}
