"""`reconcile context`: names for hosts, and which of them commands go to."""

import os
import re
from pathlib import Path

import click

from reconciler.cli.options import output_option

LOCAL = "local"
"""The name of this machine."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", re.ASCII)


def contexts_path() -> Path:
    """`~/.config/reconcile/contexts.json`, by the XDG base directory specification."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    folder = base if base.startswith("/") else os.path.expanduser("~/.config")  # noqa: PTH111 without a home it stays so
    return Path(folder, "reconcile", "contexts.json")


def read_contexts() -> tuple[str, dict[str, str]]:
    """The name that is in use, empty for this machine, and hosts by name. Raises UsageError where it is no such file."""
    import json

    path = contexts_path()
    try:
        found = json.loads(path.read_text())
        hosts = {str(name): str(host) for name, host in found["hosts"].items()}
        current = str(found.get("current", ""))
    except (FileNotFoundError, NotADirectoryError):
        return "", {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError(f"{path} can't be read ({error}): mend it, or remove it") from error
    return current if current in hosts else "", hosts


def _write(current: str, hosts: dict[str, str]) -> None:
    import json

    from reconciler.linux import files
    from reconciler.model.errors import Failed

    path = contexts_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_atomic(path, json.dumps({"current": current, "hosts": hosts}, indent=1).encode())
    except OSError as error:
        raise Failed(f"{path}: write the contexts: {error.strerror}", hint="see whether it is yours to write") from error


@click.group(invoke_without_command=True, epilog="Example: reconcile context use db1")
@output_option("table", "json")
@click.pass_context
def context(ctx: click.Context, *, form: str) -> None:
    """Give hosts names, and choose the one that commands go to."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_contexts, form=form)


@context.command("ls", epilog="Example: reconcile context ls")
@output_option("table", "json")
def list_contexts(*, form: str) -> int:
    """List the names; the one in use has a star."""
    from reconciler.cli.render import show_json, show_table

    current, hosts = read_contexts()
    rows = [(name, host, name == (current or LOCAL)) for name, host in ((LOCAL, ""), *sorted(hosts.items()))]
    if form == "json":
        show_json([{"name": name, "host": host, "current": in_use} for name, host, in_use in rows])
    else:
        show_table(("CONTEXT", "HOST"), [(f"{name} *" if in_use else name, host) for name, host, in_use in rows])
    return 0


@context.command("add", epilog="Example: reconcile context add db1 ssh://root@db1")
@click.argument("name")
@click.argument("host")
def add_context(*, name: str, host: str) -> int:
    """Name a host: ssh://USER@HOST, or unix:///PATH of a socket."""
    from reconciler.cli.hosts import check_host

    if not _NAME.match(name) or name == LOCAL:
        raise click.UsageError(f"{name}: expected letters, digits, `.`, `_`, `-`, and not {LOCAL}")
    check_host(host, "status")
    current, hosts = read_contexts()
    _write(current, {**hosts, name: host})
    return 0


@context.command("use", epilog="Example: reconcile context use local")
@click.argument("name")
def use_context(*, name: str) -> int:
    """Have commands go to a host from now on; `local` is this machine."""
    _, hosts = read_contexts()
    if name != LOCAL:
        _check_known(name, hosts)
    _write("" if name == LOCAL else name, hosts)
    return 0


@context.command("rm", epilog="Example: reconcile context rm db1")
@click.argument("name")
def remove_context(*, name: str) -> int:
    """Forget a name."""
    current, hosts = read_contexts()
    _check_known(name, hosts)
    del hosts[name]
    _write("" if current == name else current, hosts)
    return 0


def _check_known(name: str, hosts: dict[str, str]) -> None:
    from reconciler.model.errors import NotFound

    if name not in hosts:
        raise NotFound("context", name, hosts, meant="`reconcile context` lists them")


COMMANDS = {"context": context}
