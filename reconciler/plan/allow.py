"""What a source's manifests may ask of the machine, and what of a stack goes beyond it. Pure.

Manifests of a repository are written by whoever may push there. Without a word of the operator they get what a container
has anyway, and nothing that is the machine's: no path of the host, no device, no capability beyond the usual ones, not the
network of the host, no low port. That they borrow of stacks of the same source only is `controller/keeper.py`'s to see.
"""

import posixpath
from collections.abc import Iterator

from msgspec import Struct

from reconciler.model.capabilities import DEFAULT_CAPABILITIES
from reconciler.model.errors import Problem
from reconciler.model.key import Key, Kind, kind_of, split_key
from reconciler.model.record import Stack
from reconciler.model.reference import parse_reference
from reconciler.model.spec import ContainerSpec, ImageSpec, NetworkSpec, Sensitive, Spec, VolumeSpec

LOWEST_FREE_PORT = 1024
_RUNTIMES = ("runc", "crun")
JUDGED = frozenset(
    ("image", "env_file", "networks", "ports", "mounts", "cap_add", "configs", "secrets", "runtime")
)  # fmt: skip
"""The fields of a container that this looks at; a test asks of every new one whether it belongs here."""


class Allow(Struct, frozen=True, kw_only=True):
    """What a source may ask for. The defaults are what nobody needs to be asked about."""

    host_paths: tuple[str, ...] = ()
    """Absolute paths of the host: each with all that is below it."""
    privileged: bool = False
    """Capabilities beyond those that every container has; `privileged: true` once that is built."""
    host_network: bool = False
    devices: tuple[str, ...] = ()
    """Absolute paths of devices: for volumes that are made of one."""
    low_ports: bool = False
    """Ports of the host below 1024."""
    ports: tuple[tuple[int, int], ...] | None = None
    """Ranges of ports of the host, both ends included; None: all from 1024 up."""
    registries: tuple[str, ...] | None = None
    """Hosts of registries; None: any."""
    everything: bool = False
    """All that a manifest of root may ask for: the rest says nothing then."""


class Asked(Struct, frozen=True):
    """One thing that a stack asks for and may not have."""

    path: str
    """`containers.web.mounts`"""
    text: str
    hint: str


def read_ports(written: str | int) -> tuple[int, int]:
    """`8080` or `8000-8100`. Raises ValueError."""
    first, _, last = str(written).partition("-")
    if not first.isdigit() or not (last or first).isdigit() or not 1 <= int(first) <= int(last or first) <= 65535:
        raise ValueError(f"found {written}; expected a port or a range as 8000-8100")
    return int(first), int(last or first)


def find_refused(stack: Stack, allow: Allow, *, folder: str) -> list[Problem]:
    """What of a stack goes beyond what is allowed, by field; `folder` is the source's own: what lies in it may be read. It
    is empty where nothing may."""
    if allow.everything:
        return []
    asked = [one for key, spec in stack.specs.items() for one in _judge(key, spec, allow, folder)]
    for key, source in (stack.sources or {}).items():
        if source.file:
            section = "configs" if kind_of(key) is Kind.CONFIG else "secrets"
            asked += _judge_file(source.file, source.path or f"{section}.{split_key(key).name}", allow, folder)
    return [Problem(file=stack.source, path=one.path, text=one.text, hint=one.hint) for one in dict.fromkeys(asked)]


def _judge(key: Key, spec: Spec, allow: Allow, folder: str) -> Iterator[Asked]:
    name = split_key(key).name
    if isinstance(spec, ContainerSpec):
        yield from _judge_container(f"containers.{name}", spec, allow, folder)
    elif isinstance(spec, ImageSpec):
        yield from _judge_image(f"images.{name}", spec, allow, folder)
    elif isinstance(spec, VolumeSpec):
        yield from _judge_volume(f"volumes.{name}", spec, allow)
    elif isinstance(spec, NetworkSpec) and spec.driver == "host" and not allow.host_network:
        text = "the network of the host is not allowed to this source"
        yield Asked(f"networks.{name}", text, "publish ports instead, or allow: {host_network: true}")


def _judge_container(path: str, spec: ContainerSpec, allow: Allow, folder: str) -> Iterator[Asked]:
    for file in spec.env_file:
        yield from _judge_file(file, f"{path}.env_file", allow, folder)
    for target, mount in spec.mounts.items():
        if mount.type != "bind":
            continue
        where = f"{path}.mounts"
        if not _is_in(mount.source, folder):
            yield from _judge_file(mount.source, where, allow, folder)
        elif not mount.read_only:
            text = f"{target} would be written to the files of the commit"
            yield Asked(where, text, "add :ro, or give it a volume")
    more = sorted(set(spec.cap_add) - set(DEFAULT_CAPABILITIES))
    if more and not allow.privileged:
        text = f"{', '.join(more)}: capabilities beyond the usual are not allowed to this source"
        yield Asked(f"{path}.cap_add", text, "leave them out, or allow: {privileged: true}")
    if spec.runtime not in _RUNTIMES and not allow.privileged:
        text = f"the program {spec.runtime} as runtime is not allowed to this source"
        yield Asked(f"{path}.runtime", text, "leave it out, or allow: {privileged: true}")
    for published in spec.ports:
        yield from _judge_port(f"{path}.ports", published, allow)


def _judge_port(path: str, published: str, allow: Allow) -> Iterator[Asked]:
    port = int(published.rpartition("/")[0].rpartition(":")[2])
    if allow.ports is not None and not any(low <= port <= high for low, high in allow.ports):
        free = ", ".join(f"{low}-{high}" if low != high else f"{low}" for low, high in allow.ports) or "none"
        yield Asked(
            path,
            f"port {port} of the host is not one of this source's: {free}",
            "choose one of them, or allow: {ports: […]}",
        )
    elif allow.ports is None and 0 < port < LOWEST_FREE_PORT and not allow.low_ports:
        text = f"port {port} of the host is below {LOWEST_FREE_PORT}, which is not allowed to this source"
        yield Asked(path, text, f"publish it from {LOWEST_FREE_PORT} up, or allow: {{low_ports: true}}")


def _judge_image(path: str, spec: ImageSpec, allow: Allow, folder: str) -> Iterator[Asked]:
    if spec.archive:
        yield from _judge_file(spec.archive, f"{path}.archive", allow, folder)
    elif allow.registries is not None and (host := parse_reference(spec.reference).host) not in allow.registries:
        free = ", ".join(allow.registries) or "none"
        yield Asked(
            path,
            f"the registry {host} is not one of this source's: {free}",
            "take it from one of them, or allow: {registries: […]}",
        )


def _judge_volume(path: str, spec: VolumeSpec, allow: Allow) -> Iterator[Asked]:
    """What is mounted as a volume: a folder of the host, a device, a share. Memory is free."""
    kind, device = spec.driver_opts.get("type", ""), spec.driver_opts.get("device", "")
    if kind in ("", "tmpfs", "ramfs"):
        return
    shown = "(sensitive)" if isinstance(device, Sensitive) else device
    plain = device.value if isinstance(device, Sensitive) else device
    binds = kind in ("none", "bind")
    listed = allow.host_paths if binds else allow.devices
    if any(_is_in(plain, each) if binds else plain == each for each in listed):
        return
    word = "host_paths" if binds else "devices"
    yield Asked(f"{path}.driver_opts.device", f"{shown} is not allowed to this source", f"allow: {{{word}: [{shown}]}}")


def _judge_file(file: str, path: str, allow: Allow, folder: str) -> Iterator[Asked]:
    if _is_in(file, folder) or any(_is_in(file, each) for each in allow.host_paths):
        return
    yield Asked(
        path,
        f"{file} lies outside of the source",
        f"put it into the folder that is served, or allow: {{host_paths: [{file}]}}",
    )


def _is_in(path: str, folder: str) -> bool:
    """Whether a path is a folder or below it, as written: in a repository's folder there are no links."""
    if not folder:
        return False
    found, top = posixpath.normpath(path), posixpath.normpath(folder)
    return found == top or found.startswith(top.rstrip("/") + "/")
