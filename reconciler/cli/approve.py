"""`reconcile approve`."""

from pathlib import Path

import click

from reconciler.cli.options import complete_stacks, lock_option, opened, output_option, root_option, wait_options


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
    from reconciler.api.answers.changing import make_face
    from reconciler.cli.apply import make_listener, show_done
    from reconciler.cli.progress import make_watcher
    from reconciler.verbs.apply import ApplyOptions
    from reconciler.verbs.approval import approve as verb
    from reconciler.verbs.approval import choose_waiting

    options = ApplyOptions(yes=yes, wait=not no_wait, timeout=timeout)
    watcher = make_watcher(form)
    with opened(ctx, root, lock_timeout=lock_timeout) as found:
        try:
            for waiting in choose_waiting(found, source, stack):
                applied = verb(found, waiting, options, face=make_face(make_listener(watcher, form)))
                show_done(None if applied.result is None else len(applied.result.done), form)
        finally:
            watcher.close()
    return 0


COMMANDS = {"approve": approve}
