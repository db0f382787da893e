"""The entry point: which verbs there are, and what becomes of an error. Each verb is a module, imported when it is called.

`reconcile version` must feel instant, so nothing but click is imported before the verb is known.
"""

import gc
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

USAGE = 64

COMMANDS: dict[str, tuple[str, str]] = {
    "apply": ("apply", "Make the machine agree with manifests."),
    "plan": ("plan", "Show what apply would do, and why; changes nothing."),
    "rollback": ("rollback", "Take a stack back to one of its revisions."),
    "drift": ("drift", "Show what was changed on the machine behind our back."),
    "delete": ("delete", "Delete a stack or a resource; volumes stay unless named."),
    "status": ("status", "Show how each stack is, and what is wrong."),
    "serve": ("serve", "Keep the machine as watched folders say, until stopped."),
    "approve": ("approve", "Carry out what a source waits with."),
    "get": ("get", "List resources with their state."),
    "describe": ("get", "Show everything known of a resource."),
    "logs": ("containers", "Show the log of a container."),
    "exec": ("exec", "Run a command in a container."),
    "cp": ("cp", "Copy files out of a container or into one."),
    "run": ("run", "Run a command in a new container."),
    "attach": ("attach", "Join the streams of a running container."),
    "wait": ("attach", "Wait until containers have ended."),
    "stop": ("containers", "Stop containers and hold them."),
    "start": ("containers", "Start containers and end their hold."),
    "restart": ("containers", "Stop and start containers."),
    "kill": ("containers", "Send a signal to containers."),
    "pause": ("containers", "Freeze containers and hold them so."),
    "unpause": ("containers", "Let paused containers go on."),
    "boot": ("boot", "Bring everything back after a reboot, as recorded."),
    "recover": ("recover", "Rebuild a lost database from what is there."),
    "backup": ("backup", "Write what is recorded, and volumes, into one file."),
    "restore": ("backup", "Make a new root of a backup."),
    "pull": ("images", "Pull an image by hand."),
    "images": ("images", "List, inspect, remove and prune images."),
    "history": ("history", "List the revisions of a stack."),
    "export": ("export", "Write a manifest of what is recorded."),
    "events": ("history", "Show what happened."),
    "lock": ("lock", "Write down what the tags of manifests name now."),
    "keys": ("keys", "List, make and add the keys that open encrypted secrets."),
    "validate": ("validate", "Check manifests without looking at the machine."),
    "schema": ("validate", "Print the JSON Schema of manifests."),
    "doctor": ("doctor", "Check programs and kernel, and say how to mend what is missing."),
    "completion": ("completion", "Print the completion script of a shell."),
    "version": ("version", "Print the version."),
    "context": ("context", "Name hosts, and choose the one that commands go to."),
    "dial": ("dial", "Join our streams to the controller's socket: the far end of --host."),
}

NOT_BUILT = frozenset(
    "stats top explain push tag save"  # noqa: SIM905 30 words, one a line, would hide the table above
    " load login logout build prune".split()
)
"""Verbs of the design that are refused by name until they are built."""


class ReaderGone(Exception):
    """Whoever read our output has gone."""


class Verbs(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 click's signature
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 click's signature
        """Import the verb's module."""
        if name in NOT_BUILT:
            raise click.UsageError(f"`reconcile {name}` is not built yet")
        if name not in COMMANDS:
            import difflib  # 5 ms that only an error needs

            near = difflib.get_close_matches(name, COMMANDS, 1)
            hint = f"; did you mean {near[0]}?" if near else "; `reconcile --help` lists them"
            raise click.UsageError(f"there is no command {name}{hint}")
        module = import_module(f"reconciler.cli.{COMMANDS[name][0]}")
        command: click.Command = module.COMMANDS[name]
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call the verb. click would make exit code 1 of an output that nobody reads any more."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 click's signature
        """Names and first sentences, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example: reconcile plan stack.yaml && reconcile apply stack.yaml",
)
@click.option("--root", type=click.Path(path_type=Path), envvar="RECONCILE_ROOT", help="Where the engine keeps its state.")
@click.option(
    "--local", is_flag=True, envvar="RECONCILE_LOCAL", help="Go without the controller, even where one has the root."
)
@click.option(
    "--host",
    envvar="RECONCILE_HOST",
    metavar="ssh://USER@HOST",
    help="Ask another host's controller.",
)
@click.pass_context
def cli(ctx: click.Context, *, root: Path | None, local: bool, host: str | None) -> None:
    """A declarative container engine: manifests in, a machine that agrees with them out."""
    from reconciler.cli.context import contexts_path

    if host or (not local and contexts_path().exists()):
        from reconciler.cli.hosts import choose_host

        host = choose_host(host or "", ctx.invoked_subcommand or "")
    ctx.obj = {"root": root, "local": local, "host": host}


def main() -> None:
    """Run a command; every end has its exit code, and no traceback reaches a user."""
    # A command lives for a second and leaves its memory to the kernel: looking for cycles again and again in all that it
    # imported took a tenth of its time.
    gc.set_threshold(200_000, 50, 50)
    _fill_standard_streams()
    sys.exit(run(sys.argv[1:]))


def _fill_standard_streams() -> None:
    """Order: before anything is opened. What is opened where a caller closed 0, 1 or 2 would get that number, and what is
    written to our output would go into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or open(0, encoding="utf-8")  # noqa: SIM115 for as long as we live
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def run(arguments: list[str]) -> int:
    """One command in this process; its exit code."""
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            return _tell_output(error)
        _drop_output()
        return 141
    return code


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(arguments, prog_name="reconcile", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return USAGE
    except click.UsageError as error:
        error.show()
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except (ReaderGone, BrokenPipeError):
        _drop_output()
        return 141
    except Exception as error:  # noqa: BLE001 the last line before the user: words, not a traceback
        return _tell(error)


def _output_is_taken() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True


def _is_of_output(error: OSError) -> bool:
    """Whether we were writing: what was too large for a buffer leaves nothing to flush. This room writes and no other."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return error.filename is None and module.startswith(("click.", "reconciler.cli."))


def _tell_output(error: OSError) -> int:
    _drop_output()
    click.echo(f"error: write the output: {error.strerror}", err=True)
    return 1


def _drop_output() -> None:
    """Nobody takes our output; Python must not try to flush it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(error: Exception) -> int:
    """Say what an error says; one that is none of ours is a mistake."""
    from reconciler.cli.render import show_error
    from reconciler.model.errors import MachineRefused, ReconcileError, find_refusal

    if isinstance(error, ReconcileError):
        show_error(error)
        return error.exit_code
    if isinstance(error, OSError) and (_is_of_output(error) or not _output_is_taken()):
        return _tell_output(error)
    if os.environ.get("RECONCILE_DEBUG"):
        raise error
    if (refusal := find_refusal(error)) is not None:
        show_error(MachineRefused("", refusal))
        return 1
    click.echo(f"error: this is a mistake in reconcile: {type(error).__name__}: {error}", err=True)
    click.echo("  hint: RECONCILE_DEBUG=1 shows where; please report it", err=True)
    return 1


if __name__ == "__main__":
    main()
