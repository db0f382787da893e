"""`reconcile boot`."""

from pathlib import Path

import click

from reconciler.cli.options import lock_option, output_option, root_option, wait_options


@click.command(epilog="Example: reconcile boot --no-wait")
@wait_options
@click.option("--accept-data-loss", "accepted", metavar="KEY", multiple=True, help="Make this volume anew, empty.")
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def boot(
    ctx: click.Context, *, timeout: float, no_wait: bool, accepted: tuple[str, ...], lock_timeout: float, form: str,
    root: Path | None,
) -> int:  # fmt: skip
    """Bring everything back after a reboot, as recorded and in order; what runs is left alone.

    Holds and restart policies are respected. No manifest is read, and no registry asked for what is here.
    """
    from reconciler.api.asks import Boot
    from reconciler.cli.apply import carry_out, show_done

    wanted = Boot(wait=not no_wait, timeout=timeout, accept_data_loss=accepted, lock_timeout=lock_timeout)
    return show_done(carry_out(ctx, root, wanted, form), form)


COMMANDS = {"boot": boot}
