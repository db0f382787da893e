"""`reconcile boot`."""

from pathlib import Path

import click

from reconciler.cli.options import lock_option, opened, output_option, root_option, wait_options


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
    from reconciler.api.answers.changing import make_face
    from reconciler.cli.apply import make_listener, show_done
    from reconciler.cli.progress import make_watcher
    from reconciler.verbs.boot import BootOptions
    from reconciler.verbs.boot import boot as verb

    watcher = make_watcher(form)
    options = BootOptions(wait=not no_wait, timeout=timeout, accepted=accepted)
    with opened(ctx, root, lock_timeout=lock_timeout) as found:
        try:
            applied = verb(found, options, face=make_face(make_listener(watcher, form)))
        finally:
            watcher.close()
    return show_done(None if applied.result is None else len(applied.result.done), form)


COMMANDS = {"boot": boot}
