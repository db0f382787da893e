"""Options that several verbs share, and the root that they lead to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from reconciler.verbs.root import Root

F = TypeVar("F", bound=Callable[..., Any])


class _Count(click.IntRange):
    """A whole number from 1 on, and an error that says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"'{value}' is no whole number from 1 on", param, ctx)


COUNT = _Count(min=1)


def root_option(command: F) -> F:
    """`--root DIR` after the verb as well as before it."""
    return click.option("--root", type=click.Path(path_type=Path), help="Where the engine keeps its state.")(command)


def output_option(*forms: str) -> Callable[[F], F]:
    """`-o FORM`, `--format FORM`; the first form is the default."""
    return click.option("-o", "--format", "form", type=click.Choice(forms), default=forms[0], help="Form of the output.")


def lock_option(command: F) -> F:
    """`--lock-timeout 30s`."""
    return click.option(
        "--lock-timeout", type=Duration(), default="30s", help="How long to wait for another command.", show_default=True
    )(command)


def accept_option(command: F) -> F:
    """`--accept-data-loss KEY`, as often as wanted."""
    return click.option(
        "--accept-data-loss",
        metavar="KEY",
        multiple=True,
        help="Let a container go on without data that it had, or a volume whose folder is gone be made anew; repeatable.",
    )(command)


def wait_options(command: F) -> F:
    """`--timeout 5m`, `--no-wait`."""
    help_text = "How long a container may take to be seen running."
    timeout = click.option("--timeout", type=Duration(), default="5m", show_default=True, help=help_text)
    return timeout(click.option("--no-wait", is_flag=True, help="Do not wait for containers to be seen running.")(command))


def keep_option(command: F) -> F:
    """`--keep N`: how many revisions stay."""
    return click.option(
        "--keep",
        type=COUNT,
        default=20,
        envvar="RECONCILE_KEEP",
        show_default=True,
        help="How many revisions of each stack are kept.",
    )(command)


class Duration(click.ParamType[float]):
    """`5s`, `1m30s` → seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds, or a usage error with the reason."""
        from reconciler.model.units import parse_duration

        if isinstance(value, float):
            return value
        try:
            return parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def read_moment(text: str, flag: str) -> float:
    """`5m`, or a time as 2026-01-31T12:00:00, in seconds since the epoch; 0 for empty text. Raises UsageError."""
    import time
    from datetime import datetime

    from reconciler.model.units import parse_duration

    if not text:
        return 0.0
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise click.UsageError(f"{flag} {text}: expected a duration (5m) or a time (2026-01-31T12:00:00)") from None


@contextmanager
def opened(
    ctx: click.Context, root: Path | None, *, create: bool = False, frees: bool = False, lock_timeout: float | None = None
) -> "Iterator[Root]":
    """The root that the options, the environment or the default name."""
    from reconciler.verbs.root import opened_root

    with opened_root(root_path(ctx, root), create=create, frees=frees) as found:
        if found.used_reserve:
            text = f"the disk of {found.path} is full: used the space that is kept for this; free some more"
            click.echo(f"warning: {text}", err=True)
        if lock_timeout is not None:
            found.lock_timeout = lock_timeout
        if create or frees:
            found.forget_dead_controller()
        yield found


def root_path(ctx: click.Context, root: Path | None) -> Path:
    """Where the root is, by the options, the environment or the default."""
    from reconciler.verbs.serving import DEFAULT_ROOT

    # While the shell completes, no group was called that could have put the root into `obj`.
    path: Path = root or (ctx.obj or ctx.find_root().params)["root"] or DEFAULT_ROOT
    return path


def not_built(ctx: click.Context, **flags: object) -> None:
    """Refuse flags of the design that are not built yet, by name."""
    for flag, value in flags.items():
        if value:
            raise click.UsageError(f"--{flag.replace('_', '-')} is not built yet", ctx)


def complete_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 click's signature
    """Names of containers and stacks that begin so, for the shell."""
    from reconciler.cli.names import read_names

    found = read_names(ctx)
    return sorted(name for name in {*found["containers"], *found["stacks"]} if name.startswith(incomplete))


def complete_stacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 click's signature
    """Names of stacks that begin so."""
    from reconciler.cli.names import read_names

    return [name for name in read_names(ctx)["stacks"] if name.startswith(incomplete)]
