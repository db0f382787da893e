"""Options of the verbs that read manifests, and what they lead to."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from reconciler.api.asks import Manifests
    from reconciler.model.record import Stack

F = TypeVar("F", bound=Callable[..., Any])


def manifest_options(command: F) -> F:
    """PATH..., `--var K=V`, `--offline`."""
    command = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))(command)
    command = click.option("--var", "variables", multiple=True, metavar="K=V", help="A variable for ${K} in manifests.")(
        command
    )
    return click.option("--offline", is_flag=True, help="Ask no registry.")(command)


def load_manifests(
    paths: Sequence[Path], variables: Sequence[str], *, judged: bool = False, pinned: bool = True
) -> "tuple[Stack, ...]":
    """Read manifests with the variables of flags, environment and `.env`. `-` is standard input."""
    from reconciler.verbs.plan import load

    stdin = sys.stdin.read() if Path("-") in paths else None
    given = read_variables(variables)
    return load(paths, variables=given, environment=dict(os.environ), stdin=stdin, judged=judged, pinned=pinned)


def name_manifests(
    ctx: click.Context, paths: Sequence[Path], variables: Sequence[str], *, named: bool = False
) -> "Manifests":
    """Manifests to be read by whoever answers, or with all that they name where that is another machine, or root while we
    are not: he reads no file that we may not. Standard input is read here. With `named`, what is given may be the name of
    something else.
    """
    from reconciler.api.asks import Manifests
    from reconciler.cli.reach import read_environment

    stdin = sys.stdin.read() if Path("-") in paths else None
    manifests = Manifests(
        paths=tuple(map(str, paths)),
        folder=os.getcwd(),  # noqa: PTH109 text is wanted
        variables=read_variables(variables),
        environment=read_environment(tuple(paths), stdin),
        stdin=stdin,
    )
    host = (ctx.obj or {}).get("host") or ""
    if not host and os.geteuid() == 0:
        return manifests
    return _with_files(manifests, paths, far=host.startswith("ssh://"), named=named)


def _with_files(manifests: "Manifests", paths: Sequence[Path], *, far: bool, named: bool) -> "Manifests":
    from msgspec.structs import replace

    from reconciler.verbs.sending import gather, read_sender

    sender = read_sender() if far else ""
    given = [path for path in paths if not named or path == Path("-") or os.path.exists(path)]  # noqa: PTH110 no name is too long
    gathered = gather(
        given, variables=manifests.variables, environment=manifests.environment, stdin=manifests.stdin, sender=sender,
        lenient=named,
    )  # fmt: skip
    return replace(manifests, files=gathered.files, origins=gathered.origins, sender=sender)


def read_variables(pairs: Sequence[str]) -> dict[str, str]:
    """What `--var K=V` gives. Raises UsageError."""
    given = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--var {name or pair}: expected NAME=VALUE")
        given[name] = value
    return given
