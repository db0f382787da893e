"""`reconcile run`."""

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.attach import READER_GONE, detach_option, parse_keys
from reconciler.cli.exec import OURS
from reconciler.cli.options import opened, output_option, root_option

if TYPE_CHECKING:
    from reconciler.manifest.command import Flags
    from reconciler.model.errors import ReconcileError
    from reconciler.model.events import AnyEvent
    from reconciler.verbs.root import Root
    from reconciler.verbs.run import Started


@click.command(
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog="Example: reconcile run --rm -it docker.io/library/busybox:1 sh",
)
@click.option("-d", "--detach", is_flag=True, help="Leave it running and print its name.")
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--rm", "remove", is_flag=True, help="Remove it, and its unnamed volumes, once it has ended.")
@click.option("--name", default="", help="Its name; left out, one is made up.")
@click.option("-e", "--env", multiple=True, metavar="K[=V]", help="A variable; without a value, ours of that name.")
@click.option("--env-file", multiple=True, metavar="FILE", help="A file of NAME=VALUE lines.")
@click.option(
    "-v", "--volume", multiple=True, metavar="[SOURCE:]TARGET[:ro]", help="A named volume, or a path of the host."
)
@click.option("-p", "--publish", multiple=True, metavar="[IP:]HOST:CONTAINER[/udp]", help="A port of the host.")
@click.option("--network", multiple=True, metavar="NAME", help="host, none, a network of `run`, or STACK/NAME.")
@click.option("-u", "--user", default="", help="NAME[:GROUP] or UID[:GID].")
@click.option("-w", "--workdir", default="", help="The folder that it begins in.")
@click.option("--entrypoint", help="In place of the image's entrypoint; empty for none.")
@click.option("-m", "--memory", default="", help="The most that it may use: 64M.")
@click.option("--cpus", type=float, help="So many CPUs at most: 1.5.")
@click.option("--read-only", is_flag=True, help="Its root file system is read-only.")
@click.option("--cap-add", multiple=True, metavar="NAME", help="A capability more.")
@click.option("--cap-drop", multiple=True, metavar="NAME", help="A capability less.")
@click.option("--restart", default="no", show_default=True, help="no, always, on-failure[:N].")
@click.option("-l", "--label", multiple=True, metavar="K=V", help="A label.")
@click.option("-h", "--hostname", default="", help="Its host name.")
@click.option("--init", is_flag=True, help="A small init is its first process.")
@click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing", show_default=True)
@click.option("--stop-signal", default="", help="The signal that asks it to end.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Whether signals that we get are passed on.")
@detach_option
@output_option("table", "json")
@root_option
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context, /, *, root: Path | None, detach: bool, sig_proxy: bool, detach_keys: str, form: str, **given: Any
) -> int:
    """Run a command in a new container of the stack `run`. Its exit code is ours; 125: we failed, 126: not executable, 127:
    not found."""
    from reconciler.cli.render import is_terminal, show_error
    from reconciler.model.errors import ReconcileError
    from reconciler.model.events import silent
    from reconciler.verbs.end import remove

    keys = parse_keys(detach_keys)
    if given["tty"] and given["interactive"] and not detach and not is_terminal(sys.stdin):
        raise click.UsageError("-t: standard input is no terminal; leave -t out")
    if given["remove"] and given["restart"] != "no":
        raise click.UsageError("--rm and --restart contradict each other; leave one out")
    try:
        flags = read_flags(given)
        _check(flags)
        with opened(ctx, root, create=True) as found:
            started = _start(found, flags, attach=not detach)
            with closing(started):
                if started.line is None:
                    _show_started(started, form)
                    return 0
                ended = started.line.relay(stdin=given["interactive"], keys=keys, signals=sig_proxy)
                over = ended.exit_code is not None or ended.unread
                if given["remove"] and over:
                    remove(found, started.key, emit=silent)
                elif ended.unread:
                    click.echo(f"nobody reads its output any more; {started.name} goes on", err=True)
                return READER_GONE if ended.unread else ended.exit_code or 0
    except ReconcileError as error:
        show_error(error)
        return _code(error)


def _show_started(started: "Started", form: str) -> None:
    from reconciler.cli.render import show, show_json_line

    if form != "json":
        show(started.name)
        return
    show_json_line({"key": started.key, "name": started.name, "incarnation": started.made.incarnation})


def _code(error: "ReconcileError") -> int:
    from reconciler.model.errors import ProgramFailed

    return error.code if isinstance(error, ProgramFailed) else OURS


def read_flags(given: dict[str, Any]) -> "Flags":
    """The flags as a manifest would have them."""
    from reconciler.manifest.command import Flags

    written = {
        "command": list(given["command"]),
        "env": [pair for pair in given["env"] if "=" in pair or pair in os.environ],
        "env_file": list(given["env_file"]),
        "mounts": list(given["volume"]),
        "ports": list(given["publish"]),
        "user": given["user"],
        "workdir": given["workdir"],
        "read_only": given["read_only"],
        "cap_add": list(given["cap_add"]),
        "cap_drop": list(given["cap_drop"]),
        "labels": list(given["label"]),
        "hostname": given["hostname"],
        "init": given["init"],
        "stop_signal": given["stop_signal"],
        "tty": given["tty"],
        "stdin": given["interactive"],
        "resources": {k: v for k, v in (("memory", given["memory"]), ("cpus", given["cpus"])) if v not in ("", None)},
    }
    written = {name: value for name, value in written.items() if value not in ("", [], {}, False)}
    written["restart"] = given["restart"]
    if given["entrypoint"] is not None:
        written["entrypoint"] = [given["entrypoint"]] if given["entrypoint"] else []
    return Flags(
        name=given["name"],
        image=given["image"],
        written=written,
        networks=tuple(dict.fromkeys(given["network"])),
        pull=given["pull"],
        remove=given["remove"],
    )


def _check(flags: "Flags") -> None:
    from reconciler.verbs.run import check

    check(flags, environment=os.environ)


def _start(root: "Root", flags: "Flags", *, attach: bool) -> "Started":
    from reconciler.verbs.face import Face
    from reconciler.verbs.run import start

    told = Told()
    try:
        return start(root, flags, environment=os.environ, attach=attach, face=Face(emit=told))
    finally:
        told.close()


class Told:
    """Standard output is the container's: what a person should see before it begins is a pull's progress and warnings, on
    standard error."""

    def __init__(self) -> None:
        self._watcher: Any = None

    def __call__(self, event: "AnyEvent") -> None:
        """One event; from any thread."""
        from reconciler.model.events import Note, Progress

        if isinstance(event, Note) and event.level == "warning" and event.key is None:
            click.echo(event.text, err=True)
        if not isinstance(event, Progress):
            return
        if self._watcher is None:
            if event.text == "exists":
                return
            self._watcher = _open_watcher()
        self._watcher(event)

    def close(self) -> None:
        """The container has the terminal from now on."""
        if self._watcher is not None:
            self._watcher.close()


def _open_watcher() -> Any:
    from reconciler.cli.progress import LiveBlock, PlainLines
    from reconciler.cli.render import coloured

    return LiveBlock(sys.stderr) if coloured(sys.stderr) else PlainLines(sys.stderr)


COMMANDS = {"run": run}
