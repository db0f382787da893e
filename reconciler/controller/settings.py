"""A configuration file → what to serve, and how: the meaning of what `schemas/serve.schema.json` lets stand in it.

The file decides what runs as root: one that others may write to is refused. Read at the start and on SIGHUP.
"""

import ipaddress
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from reconciler.api.sockets import read_address
from reconciler.controller.gitsettings import read_allow, read_git_source
from reconciler.controller.policy import Policy, SourceRules
from reconciler.controller.pushhook import read_secret
from reconciler.controller.sources.git import GitOptions
from reconciler.controller.targets import KINDS, Target, read_url
from reconciler.manifest.configuration import Configuration, read_configuration
from reconciler.manifest.scalars import render_scalar
from reconciler.manifest.text import MAX_BYTES
from reconciler.model.errors import BadManifest, Failed, Problem, Usage
from reconciler.plan.allow import Allow
from reconciler.plan.mending import DriftRule
from reconciler.store.events import Retention

WORKERS = 4
LEAST_EVENTS = 1024**2
"""Bytes of the event log."""
MOST_CONTAINERS = 200
"""Containers that have lines of their own in the metrics."""


class WatchOptions(Struct, frozen=True, kw_only=True):
    """A folder to watch."""

    folder: Path
    variables: Mapping[str, str] = {}
    allow: Allow | None = None
    """What its manifests may ask for; None: everything, where only root may write them."""

    @property
    def name(self) -> str:
        """What it is called everywhere."""
        return str(self.folder)


class MetricsOptions(Struct, frozen=True, kw_only=True):
    """What Prometheus scrapes."""

    listen: tuple[str, int]
    """A loopback address and a port."""
    containers: int = MOST_CONTAINERS


class HookOptions(Struct, frozen=True, kw_only=True):
    """Where a git host says that something was pushed."""

    listen: tuple[str, int]
    """A loopback address and a port."""
    secret_file: Path


class Settings(Struct, frozen=True, kw_only=True):
    """All of it."""

    sources: tuple[WatchOptions | GitOptions, ...]
    policy: Policy = Policy()
    events: Retention | None = None
    """How much of the event log is kept; None: as before."""
    metrics: MetricsOptions | None = None
    webhook: HookOptions | None = None
    notifications: tuple[Target, ...] = ()
    workers: int = WORKERS
    listen: Path | None = None
    """Where the API answers; None: in the run folder."""


FIXED = ("workers", "metrics", "webhook", "listen")
"""What is read at the start only."""


def read_settings(path: Path) -> Settings:
    """Read a configuration file. Raises BadManifest with everything that is wrong."""
    found = read_configuration(path, _read_file(path), schema="serve")
    settings = _read(found) if found.fits else None
    found.finish()
    assert settings is not None
    return settings


def _read_file(path: Path) -> bytes:
    """The bytes of a file that nobody else may write to. Raises BadManifest."""
    try:
        with path.open("rb") as file:
            owned = os.fstat(file.fileno())
            if not stat.S_ISREG(owned.st_mode):
                raise BadManifest([Problem(file=str(path), text="is no regular file")])
            if owned.st_uid not in (0, os.geteuid()) or owned.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                text = f"others may write to it (owner {owned.st_uid}, mode {stat.S_IMODE(owned.st_mode):04o})"
                raise BadManifest([Problem(file=str(path), text=text, hint=f"chown root: {path} && chmod 644 {path}")])
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadManifest([Problem(file=str(path), text=f"can't be read: {error.strerror}")]) from None


def _read(found: Configuration) -> Settings:
    written = found.data["sources"]
    read = [_read_source(found, number, source) for number, source in enumerate(written)]
    sources = [source for source in read if source is not None]
    if found.fits:
        _blame_twins(found, sources)
    heal, drift = _read_drift(found)
    policy = Policy(
        heal=heal,
        drift=drift,
        sources={source.name: _read_rules(said) for source, said in zip(read, written, strict=True) if source is not None},
        resync=found.duration(("resync",), 300.0, least=1.0),
        poll=found.duration(("poll",), 60.0, least=1.0),
        timeout=found.duration(("timeout",), 300.0, least=1.0),
    )
    return Settings(
        sources=tuple(sources),
        policy=policy,
        events=_read_retention(found),
        metrics=_read_metrics(found),
        webhook=_read_hook(found),
        listen=_read_listen(found),
        notifications=_read_targets(found),
        workers=found.get(("workers",), WORKERS),
    )


def _read_source(found: Configuration, number: int, written: Mapping[str, Any]) -> WatchOptions | GitOptions | None:
    """A source; None, with faults, where something of it is wrong."""
    at = ("sources", number)
    if ("watch" in written) == ("git" in written):
        text = "the source is a folder and a repository" if "watch" in written else "the source says nothing of where it is"
        found.blame(at, text, "give either watch: FOLDER or git: URL")
        return None
    variables = {name: render_scalar(value) for name, value in written.get("vars", {}).items()}
    if "git" in written:
        return read_git_source(found, at, written, variables)
    for name in written.keys() - _OF_FOLDERS:
        found.blame((*at, name), "is for repositories", "a watched folder has none", at_key=True)
    allow = read_allow(found, (*at, "allow"), written["allow"]) if "allow" in written else None
    return WatchOptions(folder=Path(os.path.normpath(written["watch"])), variables=variables, allow=allow)


_OF_FOLDERS = frozenset(("watch", "vars", "prune", "max_delete", "approve", "allow"))


def _blame_twins(found: Configuration, sources: Sequence[WatchOptions | GitOptions]) -> None:
    """A source twice, or a folder within another: its manifests would be of both."""
    for number, source in enumerate(sources):
        at = ("sources", number, "watch" if isinstance(source, WatchOptions) else "git")
        for other in sources[:number]:
            if source.name == other.name:
                found.blame(at, f"{source.name} is served already", "keep one of the two")
            elif not (isinstance(source, WatchOptions) and isinstance(other, WatchOptions)):
                continue
            elif source.folder.is_relative_to(other.folder) or other.folder.is_relative_to(source.folder):
                text = f"{source.name} and {other.name} lie within each other: a manifest would be of both"
                found.blame(at, text, "watch folders beside each other")


def _read_rules(written: Mapping[str, Any]) -> SourceRules:
    return SourceRules(
        prune=written.get("prune", False), max_delete=written.get("max_delete", 0), approve=written.get("approve", False)
    )


def _read_retention(found: Configuration) -> Retention | None:
    if "events" not in found.data:
        return None
    default = Retention()
    age = found.duration(("events", "age"), default.age, least=60.0)
    size = found.size(("events", "size"), default.size)
    if size < LEAST_EVENTS:
        found.blame(("events", "size"), "expected at least 1M")
    return Retention(keep=found.get(("events", "keep"), default.keep), age=age, size=size)


def _read_listen(found: Configuration) -> Path | None:
    if "listen" not in found.data:
        return None
    try:
        return read_address(found.data["listen"])
    except Usage as error:
        found.blame(("listen",), error.brief.removeprefix("--listen "), error.hint)
        return None


def _read_metrics(found: Configuration) -> MetricsOptions | None:
    if "metrics" not in found.data:
        return None
    listen = _read_address(found, ("metrics", "listen"))
    return MetricsOptions(listen=listen, containers=found.get(("metrics", "containers"), MOST_CONTAINERS))


def _read_hook(found: Configuration) -> HookOptions | None:
    if "webhook" not in found.data:
        return None
    listen, path = _read_address(found, ("webhook", "listen")), Path(found.data["webhook"]["secret_file"])
    try:
        read_secret(path)
    except Failed as error:
        found.blame(("webhook", "secret_file"), error.brief, error.hint)
    return HookOptions(listen=listen, secret_file=path)


def _read_address(found: Configuration, at: tuple[str, str]) -> tuple[str, int]:
    """The loopback address and port that stand at a path."""
    written = found.get(at, "127.0.0.1:0")
    host, _, port = written.rpartition(":")
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        found.blame(at, f"{host} is no loopback address", "take 127.0.0.1, and a proxy with TLS before it")
    if not 1 <= int(port) <= 65535:
        found.blame(at, f"found {written}; expected a port from 1 to 65535")
    return address, int(port)


def _read_targets(found: Configuration) -> tuple[Target, ...]:
    targets: list[Target] = []
    for number, written in enumerate(found.get(("notifications",), ())):
        at = ("notifications", number)
        if written["name"] in [target.name for target in targets]:
            found.blame((*at, "name"), f"{written['name']} is here twice", "give one of the two another name")
        path = Path(written["url_file"])
        try:
            read_url(path)
        except Failed as error:
            found.blame((*at, "url_file"), error.brief, error.hint)
        targets.append(
            Target(
                name=written["name"],
                form=written.get("form", "json"),
                url_file=path,
                on=frozenset(written.get("on", KINDS)),
                stacks=frozenset(written.get("stacks", ())),
            )
        )
    return tuple(targets)


def _read_drift(found: Configuration) -> tuple[bool, dict[str, DriftRule]]:
    """Whether drift is mended, and the rules of stacks that are named."""
    written = found.get(("drift",), "heal")
    if isinstance(written, str):
        return written == "heal", {}
    heal = written.get("default", "heal") == "heal"
    rules = {}
    for stack, said in written.get("stacks", {}).items():
        if isinstance(said, str):
            rules[stack] = DriftRule(heal=said == "heal")
        else:
            parts = {part: word == "heal" for part, word in said.get("parts", {}).items()}
            rules[stack] = DriftRule(heal=said.get("default", "heal" if heal else "warn") == "heal", parts=parts)
    return heal, rules
