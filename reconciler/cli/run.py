"""`reconcile run`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.attach import READER_GONE, choose_keys, detach_option, parse_keys
from reconciler.cli.exec import OURS
from reconciler.cli.options import output_option, root_option

if TYPE_CHECKING:
    from reconciler.api.sessions import Run
    from reconciler.model.errors import ReconcileError
    from reconciler.model.events import AnyEvent


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
    from reconciler.cli.streams import join
    from reconciler.model.errors import ReconcileError

    keys = parse_keys(detach_keys)
    if given["tty"] and given["interactive"] and not detach and not is_terminal(sys.stdin):
        raise click.UsageError("-t: standard input is no terminal; leave -t out")
    if given["remove"] and given["restart"] != "no":
        raise click.UsageError("--rm and --restart contradict each other; leave one out")
    far = str((ctx.obj or {}).get("host") or "").startswith("ssh://")
    if here := [mount for mount in given["volume"] if far and mount.startswith(".") and ":" in mount]:
        raise click.UsageError(f"-v {here[0]}: with --host it is a path of that host: give it whole, or cp what is here")
    told = Told()
    try:
        wanted = read_flags(given, detach=detach, keys=choose_keys(keys), signals=sig_proxy)
        ended = join(ctx, root, wanted, emit=told, signals=sig_proxy, begun=told.close)
    except ReconcileError as error:
        told.close()  # Order: before what is said beneath it.
        show_error(error)
        return _code(error)
    except BrokenPipeError:  # The controller sees us go.
        ended = {"name": "it", "exit_code": None, "unread": True}
    finally:
        told.close()
    if detach:
        _show_started(ended, form)
        return 0
    if ended["unread"] and not given["remove"]:
        click.echo(f"nobody reads its output any more; {ended['name']} goes on", err=True)
    return READER_GONE if ended["unread"] else ended["exit_code"] or 0


def _show_started(started: dict[str, Any], form: str) -> None:
    from reconciler.cli.render import show, show_json_line

    if form == "json":
        show_json_line(started)
    else:
        show(started["name"])


def _code(error: "ReconcileError") -> int:
    from reconciler.model.errors import Interrupted, ProgramFailed

    if isinstance(error, Interrupted):
        return error.exit_code
    return error.code if isinstance(error, ProgramFailed) else OURS


def read_flags(given: dict[str, Any], *, detach: bool, keys: bytes, signals: bool) -> "Run":
    """The flags as a call. Files of --env-file are read here, with our rights. Raises BadManifest for one that is none,
    Failed."""
    from reconciler.api.sessions import Run
    from reconciler.cli.streams import size_fields

    env, environment = list(given["env"]), _read_env_files(given["env_file"])
    named = {pair.partition("=")[0] for pair in env}
    env += [name for name in environment if name not in named]
    environment |= {name: os.environ[name] for name in given["env"] if "=" not in name and name in os.environ}
    return Run(
        image=given["image"],
        command=given["command"],
        name=given["name"],
        detach=detach,
        stdin=given["interactive"],
        tty=given["tty"],
        remove=given["remove"],
        env=tuple(env),
        environment=environment,
        folder=os.getcwd(),  # noqa: PTH109 text is wanted
        mounts=given["volume"],
        ports=given["publish"],
        networks=given["network"],
        user=given["user"],
        workdir=given["workdir"],
        entrypoint=given["entrypoint"],
        memory=given["memory"],
        cpus=given["cpus"],
        read_only=given["read_only"],
        cap_add=given["cap_add"],
        cap_drop=given["cap_drop"],
        restart=given["restart"],
        labels=given["label"],
        hostname=given["hostname"],
        init=given["init"],
        pull=given["pull"],
        stop_signal=given["stop_signal"],
        keys=keys,
        signals=signals,
        **size_fields(),
    )


def _read_env_files(files: tuple[str, ...]) -> dict[str, str]:
    """The variables of files, a later one winning."""
    from reconciler.manifest.envfile import parse_env_text
    from reconciler.model.errors import Failed

    found: dict[str, str] = {}
    for name in files:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Failed(f"--env-file {name}: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
        found |= parse_env_text(text, file=name)
    return found


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
            self._watcher = None


def _open_watcher() -> Any:
    from reconciler.cli.progress import LiveBlock, PlainLines
    from reconciler.cli.render import coloured

    return LiveBlock(sys.stderr) if coloured(sys.stderr) else PlainLines(sys.stderr)


COMMANDS = {"run": run}
