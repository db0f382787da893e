"""`reconcile serve`."""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.allowflags import allow_option, read_allow
from reconciler.cli.gitflags import git_options, read_git_options
from reconciler.cli.manifests import read_variables
from reconciler.cli.options import COUNT, Duration, opened, root_option

if TYPE_CHECKING:
    from reconciler.cli.servelog import Log
    from reconciler.controller.settings import Settings

_AT_WORK = 75
"""Our exit code where work was left to the next one: EX_TEMPFAIL (sysexits.h)."""


@click.command(epilog="Example: reconcile serve --watch /etc/reconcile/stacks")
@click.option(
    "--watch", "folders", multiple=True, type=click.Path(path_type=Path), help="A folder of manifests; repeatable."
)
@git_options
@click.option("--config", "config", type=click.Path(path_type=Path), help="A file that says all of this, and more.")
@click.option("--check", is_flag=True, help="Only say whether the --config file is right.")
@click.option("--listen", "listen", metavar="unix:///PATH", help="Where the API answers.  [default: in /run/reconcile]")
@click.option("--var", "variables", multiple=True, metavar="K=V", help="A variable for ${K} in manifests.")
@allow_option
@click.option("--drift", type=click.Choice(("heal", "warn")), default="heal", show_default=True, help="Mend it, or tell.")
@click.option("--prune", is_flag=True, help="Delete a stack whose file is gone; volumes stay.")
@click.option("--max-delete", type=COUNT, help="How many stacks may go at once.  [default: half of them]")
@click.option("--approve", is_flag=True, help="Have each change wait for `reconcile approve`.")
@click.option("--resync", type=Duration(), default="5m", show_default=True, help="How often everything is looked at.")
@click.option("--poll", type=Duration(), default="1m", show_default=True, help="How often a silent folder is read.")
@click.option("--timeout", type=Duration(), default="5m", show_default=True, help="How long until a container is seen.")
@click.option("--log-format", type=click.Choice(("text", "json")), default="text", show_default=True, help="Of the log.")
@click.option("--once", is_flag=True, help="Look once, apply what is new, and end.")
@root_option
@click.pass_context
def serve(
    ctx: click.Context, /, *, folders: tuple[Path, ...], config: Path | None, check: bool,
    listen: str | None, variables: tuple[str, ...], allowed: tuple[str, ...], drift: str, prune: bool,
    max_delete: int | None, approve: bool, resync: float, poll: float, timeout: float, log_format: str, once: bool,
    root: Path | None, **of_git: Any,
) -> int:  # fmt: skip
    """Keep the machine as folders and repositories say: apply what changes, mend what drifts, until stopped.

    Each *.yaml in a folder is a stack, and each folder in it. Stopping this stops no container. SIGHUP reads the
    configuration and all sources anew.
    """
    if config is not None:
        _check_alone(ctx)
        settings = _read_config(config)
        if check:
            return _tell_right(config, settings)
    else:
        settings = _settings_of_flags(
            folders, variables, allowed, of_git, heal=drift == "heal", prune=prune, max_delete=max_delete or 0,
            approve=approve, resync=resync, poll=poll, timeout=timeout, check=check,
        )  # fmt: skip
    from msgspec import structs

    from reconciler.api.sockets import read_address
    from reconciler.cli.servelog import Log
    from reconciler.controller.serve import serve as verb

    gc.set_threshold(700, 10, 10)  # This one lives long.
    log = Log(log_format)
    if once:
        return _serve_once(ctx, root, settings, log)
    where = read_address(listen) if listen else None

    def placed(settings: "Settings") -> "Settings":
        return settings if where is None else structs.replace(settings, listen=where)

    settings = placed(settings)
    reread = None if config is None else lambda: placed(_read_config(config))
    with opened(ctx, root, create=True) as found:
        ended = verb(found, settings, tell=log, reread=reread)
        # Threads may be at work in it still: they end with us, as by a kill, and not while files are being closed.
        sys.stderr.flush()
        os._exit(0 if ended else _AT_WORK)


def _serve_once(ctx: click.Context, root: Path | None, settings: "Settings", log: "Log") -> int:
    from reconciler.controller.once import serve_once

    with opened(ctx, root, create=True) as found:
        return serve_once(found, settings, tell=log)


def _check_alone(ctx: click.Context) -> None:
    """Refuse flags beside a file that says the same."""
    beside = ("config", "check", "root", "once", "listen", "log_format")
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") is click.core.ParameterSource.COMMANDLINE
        if given and option.name not in beside:
            raise click.UsageError(f"{option.opts[0]}: the --config file says this; give one of the two")


def _read_config(config: Path) -> "Settings":
    from reconciler.controller.settings import read_settings

    return read_settings(config)


def _tell_right(config: Path, settings: "Settings") -> int:
    from reconciler.cli.render import show

    show(f"{config} is right: {', '.join(source.name for source in settings.sources)}")
    return 0


def _settings_of_flags(
    folders: tuple[Path, ...], variables: tuple[str, ...], allowed: tuple[str, ...], of_git: dict[str, Any], *,
    heal: bool, prune: bool,
    max_delete: int, approve: bool, resync: float, poll: float, timeout: float, check: bool,
) -> "Settings":  # fmt: skip
    from reconciler.controller.policy import Policy
    from reconciler.controller.settings import Settings, WatchOptions

    if check:
        raise click.UsageError("--check: give the --config FILE that is to be checked")
    given = read_variables(variables)
    allow = read_allow(allowed)
    repository = read_git_options(given, allow, **of_git)
    if not folders and repository is None:
        raise click.UsageError("nothing to serve: give --watch DIR, --git URL, or --config FILE")
    for seconds, flag in ((resync, "--resync"), (poll, "--poll"), (timeout, "--timeout")):
        if seconds <= 0:
            raise click.UsageError(f"{flag}: expected more than 0s")
    absolute = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100 links stay as they are named
    policy = Policy(
        heal=heal, prune=prune, max_delete=max_delete, approve=approve, resync=resync, poll=poll, timeout=timeout
    )
    watched = tuple(WatchOptions(folder=each, variables=given, allow=allow) for each in absolute)
    return Settings(sources=(*watched, *([repository] if repository else [])), policy=policy)


COMMANDS = {"serve": serve}
