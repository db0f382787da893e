"""`reconcile rollback`."""

from pathlib import Path
from typing import Any

import click

from reconciler.cli.options import (
    COUNT,
    accept_option,
    complete_stacks,
    keep_option,
    lock_option,
    output_option,
    root_option,
    wait_options,
)
from reconciler.cli.reach import ask


@click.command(epilog="Example: reconcile rollback blog 12 --note 'the new one leaks memory'")
@click.argument("stack", shell_complete=complete_stacks)
@click.argument("revision", type=COUNT, required=False)
@click.option("--dry-run", is_flag=True, help="Show the plan; exit code 2 where there is something to do.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option("--note", default="", help="Why, for whoever finds the stack held.")
@wait_options
@click.option("--allow-delete", is_flag=True, help="Let the plan delete more than half of what runs.")
@click.option("--offline", is_flag=True, help="Ask no registry.")
@keep_option
@accept_option
@lock_option
@output_option("table", "json")
@root_option
@click.pass_context
def rollback(
    ctx: click.Context, *, stack: str, revision: int | None, dry_run: bool, yes: bool, note: str, timeout: float,
    no_wait: bool, allow_delete: bool, offline: bool, keep: int, accept_data_loss: tuple[str, ...], lock_timeout: float,
    form: str, root: Path | None,
) -> int:  # fmt: skip
    """Take a stack back to a revision: the last good one before this, or the one of that number.

    Specs, image digests, configs and secrets go back; volumes never do. The stack is held there until its manifest changes
    or `apply --resume` is given.
    """
    from reconciler.api.asks import Rollback
    from reconciler.cli.apply import carry_out, may_ask, show_done

    wanted = Rollback(
        stack=stack, revision=revision or 0, dry_run=dry_run, note=note, offline=offline,
        accept_data_loss=accept_data_loss, yes=yes, asks=may_ask(form), allow_delete=allow_delete, wait=not no_wait,
        timeout=timeout, keep=keep, lock_timeout=lock_timeout,
    )  # fmt: skip
    if dry_run:
        return show_plan(ask(ctx, root, wanted), form)
    return show_done(carry_out(ctx, root, wanted, form), form)


def show_plan(made: dict[str, Any], form: str) -> int:
    """A plan that was not carried out; the exit code."""
    from reconciler.cli.render import show_json, show_plan_lines

    if form == "json":
        show_json(made["plan"])
    else:
        show_plan_lines(made["lines"])
    return 2 if made["plan"]["actions"] else 0


COMMANDS = {"rollback": rollback}
