"""A `git:` source of a configuration file → the options of a repository: what `cli/gitflags.py` is for flags."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any, TypeVar

from reconciler.controller.sources.git import GitOptions
from reconciler.controller.sources.gitplace import Place, check_file, check_folder, check_ref, parse_place
from reconciler.controller.sources.gitrun import Access, Bounds
from reconciler.manifest.configuration import Configuration
from reconciler.manifest.faults import Path
from reconciler.model.errors import Usage
from reconciler.plan.allow import Allow, read_ports

T = TypeVar("T")
LEAST_SIZE = 1024**2
_FLAG = re.compile(r"^--[a-z-]+:? ")


def read_git_source(
    found: Configuration, at: Path, written: Mapping[str, Any], variables: Mapping[str, str]
) -> GitOptions | None:
    """The repository that stands at a path; None, with faults, where something of it is wrong."""
    place = _checked(found, (*at, "git"), parse_place, written["git"])
    _check_ways(found, at, written, place)
    ref = _read_ref(found, at, written)
    folder = _checked(found, (*at, "path"), check_folder, written.get("path", ""))
    interval = found.duration((*at, "interval"), 30.0, least=1.0)
    size = found.size((*at, "max_size"), Bounds().size)
    if size < LEAST_SIZE:
        found.blame((*at, "max_size"), "expected at least 1M")
    if not found.fits or place is None or folder is None:
        return None
    files = {name: FilePath(written[name]) for name in ("credentials", "ssh_key", "known_hosts") if name in written}
    return GitOptions(
        place=place,
        ref=ref,
        folder=folder,
        interval=interval,
        access=Access(**files),
        bounds=Bounds(size=size),
        allowed_signers=FilePath(written["verify"]) if "verify" in written else None,
        allow_backwards=written.get("allow_backwards", False),
        submodules=written.get("submodules", False),
        variables=variables,
        allow=read_allow(found, (*at, "allow"), written.get("allow", {})),
    )


def _checked(found: Configuration, at: Path, check: Callable[..., T], *values: Any) -> T | None:
    """What a check of flags makes of a value; its complaint at the value's place."""
    try:
        return check(*values)
    except Usage as error:
        found.blame(at, _FLAG.sub("", error.brief), re.sub(r"--[a-z-]+", lambda flag: _key(flag[0]), error.hint))
        return None


def _key(flag: str) -> str:
    """What a flag is called in the file."""
    return flag.removeprefix("--").replace("-", "_") + ":"


def _check_ways(found: Configuration, at: Path, written: Mapping[str, Any], place: Place | None) -> None:
    """Keys that are for another protocol than the one of the URL."""
    if place is None:
        return
    if "credentials" in written and place.scheme not in ("https", "http"):
        found.blame((*at, "credentials"), f"is for https, and {place.scheme} has none", "give ssh_key", at_key=True)
    for name in ("ssh_key", "known_hosts"):
        if name in written and place.scheme != "ssh":
            found.blame((*at, name), "is for ssh", "take it out, or use ssh://", at_key=True)
        elif name in written:
            _checked(found, (*at, name), check_file, written[name], name)


def _read_ref(found: Configuration, at: Path, written: Mapping[str, Any]) -> str:
    if "branch" in written and "tag" in written:
        found.blame((*at, "tag"), "there is a branch already", "give one of the two", at_key=True)
    for name, folder in (("branch", "heads"), ("tag", "tags")):
        if name in written:
            _checked(found, (*at, name), check_ref, written[name], name)
            return f"refs/{folder}/{written[name]}"
    return "HEAD"


def read_allow(found: Configuration, at: Path, written: Mapping[str, Any]) -> Allow:
    """What stands at `allow:`, of whatever kind of source."""
    ports = None
    if "ports" in written:
        ports = tuple(_read_ports(found, (*at, "ports", number), each) for number, each in enumerate(written["ports"]))
    return Allow(
        host_paths=tuple(written.get("host_paths", ())),
        everything=written.get("everything", False),
        privileged=written.get("privileged", False),
        host_network=written.get("host_network", False),
        devices=tuple(written.get("devices", ())),
        low_ports=written.get("low_ports", False),
        ports=ports,
        registries=tuple(written["registries"]) if "registries" in written else None,
    )


def _read_ports(found: Configuration, at: Path, written: str | int) -> tuple[int, int]:
    try:
        return read_ports(written)
    except ValueError as error:
        found.blame(at, str(error))
        return 0, 0
