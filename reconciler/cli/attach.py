"""`reconcile attach` and `reconcile wait`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.cli.options import complete_names, output_option, root_option
from reconciler.cli.reach import ask

F = TypeVar("F", bound=Callable[..., Any])

DETACH_KEYS = "ctrl-p,ctrl-q"
READER_GONE = 141


def detach_option(command: F) -> F:
    """`--detach-keys ctrl-p,ctrl-q`."""
    text = "What to type on a terminal to let go of it; empty for nothing."
    return click.option("--detach-keys", default=DETACH_KEYS, show_default=True, help=text)(command)


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` → the bytes that a terminal sends. A key is one character, or `ctrl-` and one of a-z @ [ \\ ] ^ _."""
    out = bytearray()
    for key in text.split(",") if text else ():
        name = key.removeprefix("ctrl-")
        if key != name and len(name) == 1 and ((name.isascii() and name.isalpha()) or name in "@[\\]^_"):
            out.append(ord(name.upper()) - 64)
        elif key == name and len(name.encode()) == 1:
            out += name.encode()
        else:
            raise click.UsageError(f"--detach-keys {text}: {key or 'nothing'} is no key; write ctrl-p,ctrl-q or a,b")
    return bytes(out)


@click.command(epilog="Example: reconcile attach web")
@click.argument("name", metavar="CONTAINER", shell_complete=complete_names)
@click.option("--no-stdin", is_flag=True, help="Do not pass standard input on.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Whether signals that we get are passed on.")
@detach_option
@root_option
@click.pass_context
def attach(ctx: click.Context, *, name: str, no_stdin: bool, sig_proxy: bool, detach_keys: str, root: Path | None) -> int:
    """Join the streams of a running container, until it ends (its exit code is ours) or the detach keys are typed."""
    from reconciler.api.sessions import Attach
    from reconciler.cli.streams import join, size_fields

    wanted = Attach(
        name=name, stdin=not no_stdin, keys=choose_keys(parse_keys(detach_keys)), signals=sig_proxy, **size_fields()
    )  # fmt: skip
    ended = join(ctx, root, wanted, signals=sig_proxy)
    return READER_GONE if ended["unread"] else ended["exit_code"] or 0


def choose_keys(keys: bytes) -> bytes:
    """What lets go, which is typed on a terminal or not at all."""
    return keys if os.isatty(0) else b""


@click.command(epilog="Example: reconcile wait migrate")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...", shell_complete=complete_names)
@output_option("table", "json")
@root_option
@click.pass_context
def wait(ctx: click.Context, *, names: tuple[str, ...], form: str, root: Path | None) -> int:
    """Wait until containers have ended, and print their exit codes, a line each."""
    from reconciler.api.asks import Wait
    from reconciler.api.frames import Listener

    failed: list[str] = []

    def show(ended: dict[str, Any]) -> None:
        if ended["problem"] is not None:
            failed.append(ended["key"])
        _show_ended(ended, form)

    ask(ctx, root, Wait(names=names), Listener(item=lambda frame: show(frame.item)))
    return 1 if failed else 0


def _show_ended(ended: dict[str, Any], form: str) -> None:
    from reconciler.cli.render import show_error, show_json_line

    if ended["problem"] is not None:
        import msgspec

        from reconciler.api.problem import ProblemDetails, revive

        show_error(revive(msgspec.convert(ended["problem"], ProblemDetails)))
    elif form == "json":
        show_json_line({name: ended[name] for name in ("key", "exit_code", "note")})
    else:
        click.echo(ended["exit_code"])
    if ended["note"]:
        click.echo(f"{ended['key']}: {ended['note']}", err=True)


COMMANDS = {"attach": attach, "wait": wait}
