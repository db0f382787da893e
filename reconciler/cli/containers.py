"""`reconcile logs`, `stop`, `start`, `restart`, `kill`, `pause`, `unpause`: by hand, on containers or whole stacks."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from reconciler.cli.options import Duration, complete_names, not_built, opened, output_option, read_moment, root_option

CONTAINER = click.argument("names", nargs=-1, required=True, metavar="CONTAINER|STACK...", shell_complete=complete_names)


def _each(ctx: click.Context, root: Path | None, names: tuple[str, ...], form: str, work: Callable[..., None]) -> int:
    from reconciler.cli.progress import make_watcher

    watcher = make_watcher("json" if form == "json" else "plain")
    with opened(ctx, root, frees=True) as found:
        for name in names:
            work(found, name, emit=watcher)
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
    from reconciler.verbs import containers

    def work(found: Any, name: str, *, emit: Any) -> None:
        containers.stop(found, name, emit=emit, note=note, grace=grace)

    return _each(ctx, root, names, form, work)


@click.command(epilog="Example: reconcile start web")
@CONTAINER
@output_option("table", "json")
@root_option
@click.pass_context
def start(ctx: click.Context, *, names: tuple[str, ...], form: str, root: Path | None) -> int:
    """Start containers and end their hold; a count of `on-failure:N` begins anew."""
    from reconciler.verbs import containers

    return _each(ctx, root, names, form, containers.start)


@click.command(epilog="Example: reconcile restart blog")
@CONTAINER
@click.option("-t", "--time", "grace", type=Duration(), help="How long it may take before it is killed.")
@output_option("table", "json")
@root_option
@click.pass_context
def restart(ctx: click.Context, *, names: tuple[str, ...], grace: float | None, form: str, root: Path | None) -> int:
    """Stop and start containers, with the same address and files."""
    from reconciler.verbs import containers

    def work(found: Any, name: str, *, emit: Any) -> None:
        containers.restart(found, name, emit=emit, grace=grace)

    return _each(ctx, root, names, form, work)


@click.command(epilog="Example: reconcile kill --signal HUP web")
@CONTAINER
@click.option("-s", "--signal", "name", default="KILL", help="Name or number.", show_default=True)
@output_option("table", "json")
@root_option
@click.pass_context
def kill(ctx: click.Context, *, names: tuple[str, ...], name: str, form: str, root: Path | None) -> int:
    """Send a signal. It holds nothing: what follows an exit is the restart policy's."""
    from reconciler.model.signals import parse_signal
    from reconciler.verbs import containers

    try:
        number = parse_signal(name)
    except ValueError:
        raise click.UsageError(f"there is no signal {name}") from None

    def work(found: Any, text: str, *, emit: Any) -> None:
        containers.kill(found, text, number, emit=emit)

    return _each(ctx, root, names, form, work)


@click.command(epilog="Example: reconcile pause db --note 'snapshot of its disk'")
@CONTAINER
@click.option("--note", default="", help="Why, for whoever finds it held.")
@output_option("table", "json")
@root_option
@click.pass_context
def pause(ctx: click.Context, *, names: tuple[str, ...], note: str, form: str, root: Path | None) -> int:
    """Freeze containers and hold them so; ports, addresses and memory stay. `unpause` lets them go on."""
    from reconciler.verbs import containers

    def work(found: Any, name: str, *, emit: Any) -> None:
        containers.pause(found, name, emit=emit, note=note)

    return _each(ctx, root, names, form, work)


@click.command(epilog="Example: reconcile unpause db")
@CONTAINER
@output_option("table", "json")
@root_option
@click.pass_context
def unpause(ctx: click.Context, *, names: tuple[str, ...], form: str, root: Path | None) -> int:
    """Let paused containers go on and end their hold."""
    from reconciler.verbs import containers

    return _each(ctx, root, names, form, containers.unpause)


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
    from reconciler.model.key import split_key
    from reconciler.verbs import containers

    not_built(ctx, until=until)
    last = None if tail == "all" else _count(tail)
    moment = read_moment(since, "--since")
    with opened(ctx, root) as found:
        lines = containers.logs(found, name, tail=last, since=moment, follow=follow, stop=lambda: False)
        several = False
        for key, line in lines:
            if form == "json":
                _print_json(key, line)
                continue
            parts = split_key(key)
            several = several or parts.index > 1
            head = f"{parts.name}/{parts.index} | " if several else ""
            _print_line(line, head, timestamps=timestamps)
    return 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise click.UsageError(f"--tail {text}: expected a number of lines, or all")
    return int(text)


def _print_line(line: Any, head: str, *, timestamps: bool) -> None:
    """On the stream that it was written to: as it was written, but for a terminal, which it must not steer."""
    from reconciler.cli.render import clean_log, is_terminal

    out = sys.stdout if line.stream == "stdout" else sys.stderr
    if line.lost:
        print(f"{head}… lines before this one were lost", file=sys.stderr, flush=True)
    stamp = f"{render_time(line.at)} " if timestamps else ""
    text = clean_log(line.text) if is_terminal(out) else line.text
    out.buffer.write((head + stamp).encode() + text + (b"" if line.partial else b"\n"))
    out.flush()


def render_time(at: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC."""
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9)) + f".{at % 10**9:09d}Z"


def _print_json(key: str, line: Any) -> None:
    from reconciler.cli.render import show_json_line

    data = {
        "key": key, "at": render_time(line.at), "stream": line.stream, "text": line.text.decode(errors="replace"),
        "partial": line.partial, "lost": line.lost,
    }  # fmt: skip
    show_json_line(data)


COMMANDS = {
    "stop": stop,
    "start": start,
    "restart": restart,
    "kill": kill,
    "pause": pause,
    "unpause": unpause,
    "logs": logs,
}
