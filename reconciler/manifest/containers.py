"""Containers of a manifest -> canonical `ContainerSpec`s, defaults filled in. A step of `desire.py`.

Never asks what an image says: what is left out and depends on it stays None.
"""

import posixpath
import shlex
from typing import Any

from reconciler.manifest.addresses import canonical_address
from reconciler.manifest.contents import read_files
from reconciler.manifest.draft import Draft
from reconciler.manifest.durations import read_duration
from reconciler.manifest.faults import Path, fitting_entries, shorten
from reconciler.manifest.healthchecks import read_healthcheck
from reconciler.manifest.mounts import read_mounts
from reconciler.manifest.networks import BUILT_IN, read_attachments
from reconciler.manifest.pairs import read_env, read_labels, read_pairs
from reconciler.manifest.ports import read_ports
from reconciler.manifest.updates import read_update
from reconciler.model.key import Kind, make_key, named_key
from reconciler.model.reference import canonical_reference
from reconciler.model.signals import canonical_signal
from reconciler.model.spec import (
    Attachment,
    ContainerSpec,
    Dependency,
    ImageSpec,
    Logs,
    NetworkSpec,
    Resources,
)
from reconciler.model.units import parse_size

_LEAST_MEMORY = 6 * 1024 * 1024
"""Compat: Docker's bound. With less the runtime itself does not start."""
_LEAST_CPUS = 0.01
"""Kernel: the smallest quota is 1 ms of a period of 100 ms."""
_LAST_ID = 4294967294
_NO_RESOURCES, _NO_LOGS = Resources(), Logs()


def make_container(draft: Draft, name: str, written: dict[str, Any]) -> ContainerSpec:
    """The spec of one container."""
    path: Path = ("containers", name)
    networks = read_attachments(draft, written.get("networks"), name)
    ports = read_ports(draft, written.get("ports"), name)
    mounts = read_mounts(draft, written.get("mounts"), name)
    configs = read_files(draft, Kind.CONFIG, written.get("configs"), name, taken=mounts)
    if ports:
        _check_ports_have_bridge(draft, networks, (*path, "ports"))
    return ContainerSpec(
        image=_read_image(draft, written.get("image", ""), (*path, "image")),
        command=_read_words(draft, written.get("command"), (*path, "command")),
        entrypoint=_read_words(draft, written.get("entrypoint"), (*path, "entrypoint")),
        env=read_env(draft, written.get("env"), (*path, "env")),
        env_file=_read_env_files(draft, written.get("env_file"), (*path, "env_file")),
        workdir=posixpath.normpath(written["workdir"]) if "workdir" in written else "",
        user=_read_user(draft, written.get("user", ""), (*path, "user")),
        hostname=written.get("hostname", ""),
        labels=read_labels(draft, written.get("labels"), (*path, "labels")),
        stop_signal=canonical_signal(written.get("stop_signal", "")),
        stop_grace=read_duration(draft, written, (*path, "stop_grace"), default=10.0),
        read_only=written.get("read_only", False),
        tty=written.get("tty", False),
        stdin=written.get("stdin", False),
        init=written.get("init", False),
        restart=_read_restart(draft, written, (*path, "restart")),
        job=written.get("job", False),
        networks=networks,
        ports=ports,
        mounts=mounts,
        configs=configs,
        secrets=read_files(draft, Kind.SECRET, written.get("secrets"), name, taken={**mounts, **configs}),
        resources=_read_resources(draft, written.get("resources"), (*path, "resources")),
        depends_on=_read_dependencies(written.get("depends_on")),
        healthcheck=read_healthcheck(draft, written.get("healthcheck"), (*path, "healthcheck")),
        runtime=written.get("runtime", "runc"),
        update=read_update(draft, written.get("update")),
        logs=_read_logs(draft, written.get("logs"), (*path, "logs")),
        cap_add=_read_capabilities(written.get("cap_add")),
        cap_drop=_read_capabilities(written.get("cap_drop")),
        ulimits=_read_ulimits(draft, written.get("ulimits"), (*path, "ulimits")),
        sysctls=_read_sysctls(draft, written.get("sysctls"), (*path, "sysctls"), networks=networks),
        shm_size=_read_size(draft, written, (*path, "shm_size"), default=67_108_864),
        extra_hosts=_read_hosts(draft, written.get("extra_hosts"), (*path, "extra_hosts")),
        dns=_read_resolvers(draft, written.get("dns"), (*path, "dns")),
        dns_search=_read_list(written.get("dns_search")),
    )


def _read_image(draft: Draft, text: str, path: Path) -> str:
    """The name of an image resource; a reference becomes one of its own, named by its canonical form."""
    known = draft.names("images")
    if not text or text in known:
        return text
    if not any(sign in text for sign in "/:@"):
        hint = draft.near(text, known) or f"declare it under `images:`, or write a reference: {shorten(text)}:latest"
        draft.blame(path, f"no image named {shorten(text)}", hint)
        return text
    try:
        reference = canonical_reference(text)
    except ValueError as error:
        draft.blame(path, f'found "{shorten(text)}": {error}')
        return text
    draft.specs.setdefault(make_key(Kind.IMAGE, draft.name, reference), ImageSpec(reference=reference))
    return reference


def _read_restart(draft: Draft, written: dict[str, Any], path: Path) -> str:
    """`unless-stopped` is another word for `always`. A job never restarts: it ran once, or it failed."""
    policy: str = written.get("restart", "no" if written.get("job") else "always")
    if written.get("job") and policy != "no":
        draft.blame(path, f"a job runs once; found restart: {policy}", "leave `restart` out, or take `job` out")
        return "no"
    return policy.replace("unless-stopped", "always")


def _read_words(draft: Draft, written: Any, path: Path) -> tuple[str, ...] | None:
    """A list of words as it is; a string split as a shell would, and never given to one."""
    if written is None:
        return None
    if isinstance(written, list):
        return tuple(written)
    try:
        return tuple(shlex.split(written))
    except ValueError as error:
        draft.blame(path, f"{error}".lower().replace("no closing quotation", "a quote is not closed"))
        return ()


def _read_list(written: Any) -> tuple[str, ...]:
    """A list, or one that is not written as a list."""
    return (written,) if isinstance(written, str) else tuple(entry for _, entry in fitting_entries(written))


def _read_env_files(draft: Draft, written: Any, path: Path) -> tuple[str, ...]:
    """Absolute paths, in their order: later files win. Whether they are there is `load.py`'s to see."""
    files = []
    for place, file in fitting_entries([written] if isinstance(written, str) else written):
        files.append(posixpath.normpath(posixpath.join(draft.folder, file)))
        draft.env_files.append((files[-1], path if isinstance(written, str) else (*path, place)))
    return tuple(files)


def _read_user(draft: Draft, written: str | int, path: Path) -> str:
    text = f"{written}"
    for part in text.split(":"):
        if part.isdigit() and (len(part) > 10 or int(part) > _LAST_ID):
            draft.blame(path, f"found {shorten(part)}; a number of a user or group is at most {_LAST_ID}")
    return text


def _read_size(draft: Draft, written: dict[str, Any], path: Path, *, default: int, least: int = 0) -> int:
    """The size that `written` has at the path's last word, in bytes."""
    value = written.get(str(path[-1]))
    if value is None:
        return default
    try:
        size = parse_size(value)
    except ValueError as error:
        draft.blame(path, f"{error}")
        return default
    if size < least:
        draft.blame(path, f"found {value}; expected at least {least} bytes")
    return size


def _read_resources(draft: Draft, written: dict[str, Any] | None, path: Path) -> Resources:
    if not written:
        return _NO_RESOURCES
    cpus = float(written.get("cpus", 0.0))
    if 0 < cpus < _LEAST_CPUS:
        draft.blame((*path, "cpus"), f"found {cpus:g}; expected at least {_LEAST_CPUS:g}, or 0 for no limit")
    memory = _read_size(draft, written, (*path, "memory"), default=0)
    if 0 < memory < _LEAST_MEMORY:
        hint = "units are k, M, G and T: 64M"
        draft.blame((*path, "memory"), f"found {written['memory']}; expected at least 6M, or 0 for no limit", hint)
    return Resources(cpus=cpus, memory=memory, pids=written.get("pids", 0))


def _read_logs(draft: Draft, written: dict[str, Any] | None, path: Path) -> Logs:
    if not written:
        return _NO_LOGS
    size = _read_size(draft, written, (*path, "max_size"), default=_NO_LOGS.max_size, least=4096)
    return Logs(max_size=size, keep=written.get("keep", _NO_LOGS.keep))


def _read_dependencies(written: Any) -> dict[str, Dependency]:
    """A list (started), a map of name to condition, or a map of name to `{condition, restart}`."""
    if not isinstance(written, dict):
        return {name: Dependency(condition="started") for name in sorted(_read_list(written))}
    return {name: _read_dependency(asked) for name, asked in sorted(written.items())}


def _read_dependency(asked: Any) -> Dependency:
    if isinstance(asked, str):
        return Dependency(condition=asked)
    return Dependency(condition=asked.get("condition", "started"), restart=asked.get("restart", False))


def _read_capabilities(written: Any) -> tuple[str, ...]:
    names = {name.removeprefix("CAP_") for name in _read_list(written)}
    return ("ALL",) if "ALL" in names else tuple(sorted(f"CAP_{name}" for name in names))


def _read_ulimits(draft: Draft, written: dict[str, Any] | None, path: Path) -> dict[str, tuple[int, int]]:
    out = {}
    for name, value in sorted((written or {}).items()):
        soft, hard = (value.get("soft", 0), value.get("hard", -1)) if isinstance(value, dict) else (value, value)
        if hard != -1 and (soft == -1 or soft > hard):
            draft.blame((*path, name), f"the soft limit {soft} is above the hard one, {hard}")
        out[name] = (soft, hard)
    return out


def _read_sysctls(draft: Draft, written: Any, path: Path, *, networks: dict[str, Attachment]) -> dict[str, str]:
    out = {}
    for name, value, place in read_pairs(draft, written, path):
        if name.startswith("net.") and "host" in _drivers(draft, networks):
            draft.blame(place, f"{name} is the machine's own on the host network", "set it on the machine itself")
        out[name] = f"{value}"
    return dict(sorted(out.items()))


def _read_hosts(draft: Draft, written: Any, path: Path) -> dict[str, str]:
    out = {}
    for name, value, place in read_pairs(draft, written, path, signs="=:"):
        address = canonical_address((value or "").strip("[]"))
        if address is None:
            draft.blame(place, f'found "{shorten(value or "")}"; expected an IPv4 or IPv6 address')
        out[name] = address or ""
    return dict(sorted(out.items()))


def _read_resolvers(draft: Draft, written: Any, path: Path) -> tuple[str, ...]:
    out = []
    for place, text in fitting_entries([written] if isinstance(written, str) else written):
        address = canonical_address(text)
        if address is None:
            below = path if isinstance(written, str) else (*path, place)
            draft.blame(below, f'found "{shorten(text)}"; expected an IPv4 or IPv6 address')
        out.append(address or "")
    return tuple(out)


def _drivers(draft: Draft, networks: dict[str, Attachment]) -> set[str]:
    specs = (draft.specs.get(named_key(Kind.NETWORK, draft.name, name)) for name in networks)
    return {spec.driver for spec in specs if isinstance(spec, NetworkSpec)}


def _check_ports_have_bridge(draft: Draft, networks: dict[str, Attachment], path: Path) -> None:
    """Ports are published through a bridge that has a way out."""
    specs = [draft.specs.get(named_key(Kind.NETWORK, draft.name, name)) for name in networks]
    known = [spec for spec in specs if isinstance(spec, NetworkSpec)]
    if len(known) < len(specs) or any(spec.driver == "bridge" and not spec.internal for spec in known):
        return
    if any(spec.driver in BUILT_IN for spec in known):
        text = f"ports need a bridge network; this container is on {', '.join(networks)}"
        draft.blame(
            path, text, "on the host network it listens on the machine's ports itself: leave `ports` out", at_key=True
        )
    else:
        draft.blame(
            path, "ports can't be published from internal networks alone", "join a network that is not", at_key=True
        )
