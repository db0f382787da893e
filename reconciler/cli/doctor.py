"""`reconcile doctor`."""

from pathlib import Path

import click

from reconciler.cli.options import output_option, root_option


@click.command(epilog="Example: reconcile doctor")
@output_option("table", "json")
@root_option
@click.pass_context
def doctor(ctx: click.Context, *, form: str, root: Path | None) -> int:
    """Check programs, kernel and host; say how to mend what is missing. Exit code 1 where something is."""
    import sys

    from reconciler.api.look import paint
    from reconciler.cli.render import look_of, show, show_json
    from reconciler.verbs.doctor import examine
    from reconciler.verbs.serving import DEFAULT_ROOT

    findings = examine(root or ctx.obj["root"] or DEFAULT_ROOT)
    if form == "json":
        show_json(findings)
    marks = {"ok": ("✓", "32"), "warning": ("!", "33;1"), "missing": ("✗", "31;1")}
    for finding in findings if form != "json" else ():
        mark, colour = marks[finding.state]
        print(f"{paint(mark, colour, look_of(sys.stdout))} ", end="")
        show(f"{finding.what}: {finding.found}")
        if finding.mend:
            show(f"    mend: {finding.mend}")
    return 1 if any(finding.state == "missing" for finding in findings) else 0


COMMANDS = {"doctor": doctor}
