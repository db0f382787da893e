"""`reconcile logs`, `stop`, `start`, `restart`, `kill`, `pause`, `unpause`: by hand, on containers or whole stacks."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.options import Duration, complete_names, not_built, output_option, read_moment, root_option
from reconciler.cli.reach import ask

if TYPE_CHECKING:
    from reconciler.api.asks import Ask

CONTAINER = click.argument("names", nargs=-1, required=True, metavar="CONTAINER|STACK...", shell_complete=complete_names)


def _by_hand(ctx: click.Context, root: Path | None, wanted: "Ask", form: str) -> int:
    from reconciler.api.frames import Listener
    from reconciler.cli.progress import make_watcher

    ask(ctx, root, wanted, Listener(emit=make_watcher("json" if form == "json" else "plain")))
    return 0


@click.command(epilog="Example: reconcile stop web --note 'disk is being replaced'")
@CONTAINER
@click.option("-t", "--time", "grace", type=Duration(), help="How long it may take before it is killed.")
@click.option("--note", default="", help="Why, for whoever finds it held.")
@output_option("table", "json")
@root_option
@click.pass_context
def stop(
    ctx: click.Context, *, names: tuple[str, ...], grace: float | None, note: str, form: str, root: Path | None
) -> int:
    """Stop containers and hold them: only `start` and `apply --resume` start them again."""
    from reconciler.api.asks import Stop

    return _by_hand(ctx, root, Stop(names=names, note=note, grace=grace), form)


@click.command(epilog="Example: reconcile start web")
@CONTAINER
@output_option("table", "json")
@root_option
@click.pass_context
def start(ctx: click.Context, *, names: tuple[str, ...], form: str, root: Path | None) -> int:
    """Start containers and end their hold; a count of `on-failure:N` begins anew."""
    from reconciler.api.asks import Start

    return _by_hand(ctx, root, Start(names=names), form)


@click.command(epilog="Example: reconcile restart blog")
@CONTAINER
@click.option("-t", "--time", "grace", type=Duration(), help="How long it may take before it is killed.")
@output_option("table", "json")
@root_option
@click.pass_context
def restart(ctx: click.Context, *, names: tuple[str, ...], grace: float | None, form: str, root: Path | None) -> int:
    """Stop and start containers, with the same address and files."""
    from reconciler.api.asks import Restart

    return _by_hand(ctx, root, Restart(names=names, grace=grace), form)


@click.command(epilog="Example: reconcile kill --signal HUP web")
@CONTAINER
@click.option("-s", "--signal", "name", default="KILL", help="Name or number.", show_default=True)
@output_option("table", "json")
@root_option
@click.pass_context
def kill(ctx: click.Context, *, names: tuple[str, ...], name: str, form: str, root: Path | None) -> int:
    """Send a signal. It holds nothing: what follows an exit is the restart policy's."""
    from reconciler.api.asks import Kill
    from reconciler.model.signals import parse_signal

    try:
        parse_signal(name)
    except ValueError:
        raise click.UsageError(f"there is no signal {name}") from None
    return _by_hand(ctx, root, Kill(names=names, signal=name), form)


@click.command(epilog="Example: reconcile pause db --note 'snapshot of its disk'")
@CONTAINER
@click.option("--note", default="", help="Why, for whoever finds it held.")
@output_option("table", "json")
@root_option
@click.pass_context
def pause(ctx: click.Context, *, names: tuple[str, ...], note: str, form: str, root: Path | None) -> int:
    """Freeze containers and hold them so; ports, addresses and memory stay. `unpause` lets them go on."""
    from reconciler.api.asks import Pause

    return _by_hand(ctx, root, Pause(names=names, note=note), form)


@click.command(epilog="Example: reconcile unpause db")
@CONTAINER
@output_option("table", "json")
@root_option
@click.pass_context
def unpause(ctx: click.Context, *, names: tuple[str, ...], form: str, root: Path | None) -> int:
    """Let paused containers go on and end their hold."""
    from reconciler.api.asks import Unpause

    return _by_hand(ctx, root, Unpause(names=names), form)


@click.command(epilog="Example: reconcile logs -f --tail 20 web")
@click.argument("name", metavar="CONTAINER", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option("-n", "--tail", default="all", help="So many of the last lines, or all.", show_default=True)
@click.option("--since", default="", help="A duration back from now, or a time as 2026-01-31T12:00:00.")
@click.option("-t", "--timestamps", is_flag=True, help="The time before each line.")
@click.option("--until", hidden=True)
@output_option("table", "json")
@root_option
@click.pass_context
def logs(
    ctx: click.Context, *, name: str, follow: bool, tail: str, since: str, timestamps: bool, until: str | None, form: str,
    root: Path | None,
) -> int:  # fmt: skip
    """Show the log of a container: standard output and standard error, each on its own.

    Into a file or a pipe each line goes as it was written; on a terminal without what would steer it, but for colours.
    """
    from reconciler.api.asks import Logs
    from reconciler.api.frames import Listener

    not_built(ctx, until=until)
    last = -1 if tail == "all" else _count(tail)
    printer = _Printer(form, timestamps=timestamps)
    wanted = Logs(name=name, tail=last, since=read_moment(since, "--since"), follow=follow)
    ask(ctx, root, wanted, Listener(item=lambda frame: printer(frame.item)))
    return 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise click.UsageError(f"--tail {text}: expected a number of lines, or all")
    return int(text)


class _Printer:
    """Prints the lines of a log."""

    def __init__(self, form: str, *, timestamps: bool) -> None:
        from reconciler.api.text import LogText
        from reconciler.cli.render import is_terminal

        self._json = form == "json"
        self._outs = {"stdout": sys.stdout, "stderr": sys.stderr}
        terminals = frozenset(name for name, out in self._outs.items() if is_terminal(out))
        self._text = LogText(terminals, timestamps=timestamps)

    def __call__(self, line: dict[str, Any]) -> None:
        """Print one. Its text comes in base64."""
        if self._json:
            _print_json(line)
            return
        for stream, text in self._text(line):
            out = self._outs[stream]
            out.buffer.write(text)
            out.flush()


def _print_json(line: dict[str, Any]) -> None:
    from base64 import b64decode

    from reconciler.api.look import render_log_time
    from reconciler.cli.render import show_json_line

    text = b64decode(line["text"]).decode(errors="replace")
    show_json_line({**line, "at": render_log_time(line["at"]), "text": text})


COMMANDS = {
    "stop": stop,
    "start": start,
    "restart": restart,
    "kill": kill,
    "pause": pause,
    "unpause": unpause,
    "logs": logs,
}
