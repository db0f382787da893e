"""Flags of `reconcile serve` for a repository, and the options that they make."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reconciler.cli.options import Duration

if TYPE_CHECKING:
    from reconciler.controller.sources.git import GitOptions
    from reconciler.plan.allow import Allow

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)
_FLAGS = (
    click.option("--git", "git", metavar="URL", help="A repository: https://, ssh://, user@host:path, file:///path."),
    click.option("--branch", metavar="NAME", help="The branch that is served.  [default: the repository's own]"),
    click.option("--tag", metavar="NAME", help="A tag in place of a branch."),
    click.option("--path", "folder", metavar="DIR", default="", help="The folder in the repository with the manifests."),
    click.option(
        "--interval", type=Duration(), default="30s", show_default=True, help="How often the branch is asked for."
    ),
    click.option("--credentials", type=_FILE, help="For https: a file (mode 600) with USER:PASSWORD, or a token."),
    click.option("--ssh-key", type=_FILE, help="For ssh: the private key."),
    click.option("--known-hosts", type=_FILE, help="For ssh: the keys of hosts that are accepted."),
    click.option(
        "--verify", "signers", type=_FILE, help="Who must have signed a commit: allowed signers of ssh, or gpg keys."
    ),
    click.option("--max-size", metavar="SIZE", default="1G", show_default=True, help="The most that one fetch may bring."),
    click.option("--submodules", is_flag=True, help="Take its submodules, from the same host, too."),
    click.option("--allow-backwards", is_flag=True, help="Take a commit that does not follow the one before, too."),
)


def git_options(command: F) -> F:
    """`--git URL` and what belongs to it; they come as one value each."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def read_git_options(
    variables: dict[str, str], allow: "Allow | None", *,
    git: str | None, branch: str | None, tag: str | None, folder: str, interval: float,
    credentials: Path | None, ssh_key: Path | None, known_hosts: Path | None, signers: Path | None, max_size: str,
    submodules: bool, allow_backwards: bool,
) -> "GitOptions | None":  # fmt: skip
    """What they say; None without `--git`. Raises Usage."""
    from reconciler.controller.sources.git import GitOptions
    from reconciler.controller.sources.gitplace import check_file, check_folder, check_ref, parse_place
    from reconciler.controller.sources.gitrun import Access, Bounds
    from reconciler.plan.allow import Allow

    if git is None:
        given: dict[str, object] = {
            "--branch": branch,
            "--tag": tag,
            "--path": folder,
            "--credentials": credentials,
            "--ssh-key": ssh_key,
        }
        given |= {
            "--known-hosts": known_hosts,
            "--verify": signers,
            "--submodules": submodules,
            "--allow-backwards": allow_backwards,
        }
        if lonely := [flag for flag, value in given.items() if value]:
            raise click.UsageError(f"{lonely[0]} is for a repository: give --git URL")
        return None
    if branch and tag:
        raise click.UsageError("--branch and --tag: give one of them")
    place = parse_place(git)
    if credentials and place.scheme not in ("https", "http"):
        raise click.UsageError(f"--credentials is for https, and {place.scheme} has none: give --ssh-key")
    if (ssh_key or known_hosts) and place.scheme != "ssh":
        raise click.UsageError("--ssh-key and --known-hosts are for ssh")
    if interval < 1:
        raise click.UsageError("--interval: expected 1s or more")
    ref = "HEAD" if not branch and not tag else f"refs/heads/{branch}" if branch else f"refs/tags/{tag}"
    check_ref(branch or tag or "HEAD", "--branch" if branch else "--tag")
    for path, flag in ((ssh_key, "--ssh-key"), (known_hosts, "--known-hosts")):
        check_file(str(path or ""), flag)
    return GitOptions(
        place=place, ref=ref, folder=check_folder(folder), interval=interval,
        access=Access(credentials=_absolute(credentials), ssh_key=_absolute(ssh_key), known_hosts=_absolute(known_hosts)),
        bounds=Bounds(size=_read_size(max_size)), allowed_signers=_absolute(signers), allow_backwards=allow_backwards,
        submodules=submodules, variables=variables, allow=allow or Allow(),
    )  # fmt: skip


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _read_size(text: str) -> int:
    from reconciler.model.units import parse_size

    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.UsageError(f"--max-size: {error}") from None
    if size < 1024**2:
        raise click.UsageError("--max-size: expected at least 1M")
    return size
