"""`reconcile exec`."""

import sys
from pathlib import Path

import click

from reconciler.cli.options import complete_names, root_option

OURS = 125
"""The exit code where not the command but we failed, as docker has it."""


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="Example: reconcile exec -it web sh",
)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-u", "--user", default="", help="NAME[:GROUP] or UID[:GID].")
@click.option("-w", "--workdir", default="", help="The folder that it begins in.")
@click.option("-e", "--env", "variables", multiple=True, metavar="K=V", help="A variable of its environment.")
@root_option
@click.argument("name", metavar="CONTAINER", shell_complete=complete_names)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def exec_(
    ctx: click.Context, *, interactive: bool, tty: bool, user: str, workdir: str, variables: tuple[str, ...],
    root: Path | None, name: str, command: tuple[str, ...],
) -> int:  # fmt: skip
    """Run a command in a running container. Its exit code is ours; 125: we failed, 126: not executable, 127: not found."""
    from reconciler.cli.render import is_terminal, show_error
    from reconciler.model.errors import ReconcileError

    if tty and not is_terminal(sys.stdin):
        raise click.UsageError("-t: standard input is no terminal; leave -t out")
    if command[0] == "--" and len(command) > 1:  # Compat: kubectl wants it there, docker takes it for the command.
        command = command[1:]
    env = dict(pair.partition("=")[::2] for pair in variables)
    from reconciler.api.sessions import Exec
    from reconciler.cli.streams import join, size_fields

    wanted = Exec(
        name=name, command=command, tty=tty, stdin=interactive or tty, user=user, workdir=workdir, env=env,
        **(size_fields() if tty else {}),
    )  # fmt: skip
    try:
        return int(join(ctx, root, wanted)["exit_code"])
    except ReconcileError as error:
        show_error(error)
        return OURS


COMMANDS = {"exec": exec_}
