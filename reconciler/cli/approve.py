"""`reconcile approve`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, lock_option, output_option, root_option, wait_options
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile approve /etc/reconcile/stacks --stack blog")
@click.argument("source")
@click.option("--stack", default="", metavar="NAME", shell_complete=complete_stacks, help="Only this one of its stacks.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@wait_options
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def approve(
    ctx: click.Context, *, source: str, stack: str, yes: bool, timeout: float, no_wait: bool, lock_timeout: float,
    form: str, root: Path | None,
) -> int:  # fmt: skip
    """Show the plans that a source waits with, and carry out what is approved: those very plans.

    One that does not fit any more is refused (exit code 3), and the controller makes another.
    """
    from reconciler.api.asks import Approve, Waiting
    from reconciler.cli.apply import carry_out, may_ask, show_done

    for waiting in ask(ctx, root, Waiting(source=source, stack=stack)):
        wanted = Approve(
            source=source, stack=waiting["stack"], yes=yes, asks=may_ask(form), wait=not no_wait, timeout=timeout,
            lock_timeout=lock_timeout,
        )  # fmt: skip
        show_done(carry_out(ctx, root, wanted, form), form)
    return 0


COMMANDS = {"approve": approve}
