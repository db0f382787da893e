"""Writes a bundle: config.json, the files of /etc, monitor.json, policy.json, and container.json last.

The driver gathers what is on the machine (root, mounts, networks) and calls this under the container's lock; spec.py,
etc.py and monitor.py render. A bundle without container.json is one that was not finished.
"""

import hashlib
import os
import platform
import resource
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime import bundle, conmon, etc, health, left, lifecycle, monitor, runc, spec, trees, users
from reconciler.linux import files, mounts, paths
from reconciler.model.errors import Failed
from reconciler.model.key import Key, split_key
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec, Mount

_PINS = "pins"
_VOLUME_OPTIONS = ("nosuid", "nodev")
"""Compat: Docker gives a volume neither. Nothing that a container leaves in one is a setuid program or a device."""

_KEPT_OPTIONS = ("nosuid", "nodev", "ro")
"""Of files whose copy lies in the bundle."""


class Network(Struct, frozen=True, kw_only=True):
    """What of a container's networks its bundle says."""

    on_host: bool
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]


def is_complete(path: str) -> bool:
    """Whether a bundle was finished once, and says still how its container is run."""
    return os.path.exists(f"{path}/{bundle.CONTAINER}") and bool(bundle.read_json(path, bundle.MONITOR))  # noqa: PTH110


def read_netns(path: str) -> str:
    """The network namespace that a bundle's container is to join, "" for the host's."""
    namespaces = bundle.read_json(path, bundle.CONFIG).get("linux", {}).get("namespaces", ())
    return next((str(entry["path"]) for entry in namespaces if entry["type"] == "network"), "")


def read_stop_signal(path: str) -> str:
    """The image's stop signal, "" where it has none."""
    return str(bundle.read_json(path, bundle.CONTAINER).get("stop_signal") or "")


Options = Mapping[str, Sequence[str]]
"""Options of mounts, by target."""


def write_bundle(
    layout: Layout,
    made: Made,
    image: Mapping[str, Any],
    network: Network,
    sources: Mapping[str, str],
    options: Mapping[str, Sequence[str]] = {},
) -> None:
    """Write all files; those that others hold open or bound are written in place. Called under the container's lock.

    `image` is the OCI image config, `sources` the host paths of volumes and binds by target, `options` (ro, noexec) what of
    a mount's own attributes has to be said again. Raises Failed for what can't be run, ProgramMissing.
    """
    assert isinstance(made.spec, ContainerSpec)
    path = str(layout.bundles / made.incarnation)
    own = image.get("config")
    inner: Mapping[str, Any] = own if isinstance(own, dict) else {}
    hostname = choose_hostname(made)
    files.make_folders(layout.containers / made.incarnation / "logs")
    _write_etc(path, made.spec, hostname, network)
    try:
        # Order: before the old incarnation is stopped, not only when this one is to start.
        conmon.check_root(f"{path}/{bundle.ROOTFS}")
    except runc.RuntimeFailed as error:
        raise Failed(f"{made.key}: {error.words}", hint="the image may mean harm: see where it is from") from error
    netns = "" if network.on_host else str(layout.netns / made.incarnation)
    try:
        place = _choose_place(layout, made, inner, hostname, netns=netns, sources=sources, options=options)
        config = spec.render_config(made.spec, inner, place)
        config["mounts"], nested = trees.arrange(path, config["mounts"])
    except (spec.Unstartable, users.BadUser) as error:
        raise Failed(f"{made.key}: {error}") from error
    except OSError as error:
        raise Failed(
            f"{made.key}: mounts: {error.strerror}", hint="the image may mean harm: see where it is from"
        ) from error
    check = health.choose_check(made.spec.healthcheck, inner.get("Healthcheck"))
    _write(path, bundle.CONFIG, config)
    # Only what others can write to leads the runtime astray: the targets of who has no such mount are not looked at.
    shared = any(mount.type in ("volume", "bind") and not mount.digest for mount in made.spec.mounts.values())
    listed = [(mount["destination"], mount["type"] == "bind") for mount in config["mounts"]] if shared else []
    _write(path, bundle.MONITOR, {**monitor.render_monitor(layout, made, check), "targets": listed, "trees": nested})
    lifecycle.write_rules(path, made.spec.restart)
    record = {**msgspec.to_builtins(made), "stop_signal": inner.get("StopSignal"), "root": layout.root_id}
    _write(path, bundle.CONTAINER, record)
    left.note(path)


def _write(path: str, name: str, value: object) -> None:
    bundle.write_text(path, name, msgspec.json.encode(value).decode())


def choose_hostname(made: Made) -> str:
    """The spec's, else the container's name, with its index from the second on."""
    assert isinstance(made.spec, ContainerSpec)
    parts = split_key(made.key)
    return made.spec.hostname or (parts.name if parts.index == 1 else f"{parts.name}-{parts.index}")


def _choose_place(
    layout: Layout,
    made: Made,
    image: Mapping[str, Any],
    hostname: str,
    *,
    netns: str,
    sources: Mapping[str, str],
    options: Options,
) -> spec.Place:
    assert isinstance(made.spec, ContainerSpec)
    path = str(layout.bundles / made.incarnation)
    rootfs = f"{path}/{bundle.ROOTFS}"
    user = made.spec.user or str(image.get("User") or "")
    return spec.Place(
        rootfs=rootfs,
        cgroup=monitor.cgroup_path(layout, made.incarnation),
        hostname=hostname,
        identity=users.resolve_user(user, root=rootfs),
        mounts=_choose_mounts(path, made.spec, sources, options),
        netns=netns,
        init=monitor.find_init() if made.spec.init else "",
        machine=platform.machine(),
        most_files=_most_files(),
    )


def _choose_mounts(
    path: str, wanted: ContainerSpec, sources: Mapping[str, str], own: Options
) -> tuple[spec.Bind | spec.Tmpfs, ...]:
    files = [
        spec.Bind(f"{path}/{name}", left.ETC[name], ("nosuid", "nodev", "noexec", "rw"))
        for name in left.choose_bound(wanted)
    ]
    return (
        *files,
        *(_choose_mount(target, mount, sources, own.get(target, ())) for target, mount in wanted.mounts.items()),
        *(spec.Bind(sources[target], target, _KEPT_OPTIONS) for target in (*wanted.configs, *wanted.secrets)),
    )


def _choose_mount(target: str, mount: Mount, sources: Mapping[str, str], own: Sequence[str]) -> spec.Bind | spec.Tmpfs:
    if mount.type == "tmpfs":
        return spec.Tmpfs(target, mount.size, mount.mode)
    if mount.digest:
        return spec.Bind(sources[target], target, _KEPT_OPTIONS)
    options = _VOLUME_OPTIONS if mount.type == "volume" else ()
    # Kernel: the runtime's remount of a bind takes off what the mount that is bound has.
    way = "ro" if mount.read_only or "ro" in own else "rw"
    return spec.Bind(sources[target], target, (*options, *(word for word in own if word != "ro"), way))


@lru_cache(maxsize=1)
def _most_files() -> int:
    """What RLIMIT_NOFILE may be raised to: without CAP_SYS_RESOURCE no further than our own hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))
    cap_sys_resource = 1 << 24
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return most if int(held.split()[1], 16) & cap_sys_resource else min(hard, most)


def _write_etc(path: str, wanted: ContainerSpec, hostname: str, network: Network) -> None:
    around = etc.Surroundings(
        hostname=hostname,
        addresses=network.addresses,
        gateways=network.gateways,
        host_hosts=_read("/etc/hosts") if network.on_host else "",
        host_resolv=_read("/etc/resolv.conf"),
    )
    _write_in_place(f"{path}/hosts", etc.render_hosts(around, wanted.extra_hosts))
    _write_in_place(f"{path}/resolv.conf", etc.render_resolv(around, servers=wanted.dns, search=wanted.dns_search))
    _write_in_place(f"{path}/hostname", f"{hostname}\n")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _write_in_place(path: str, text: str) -> None:
    """Order: never renamed, for the container has this very file bound over its own."""
    data = text.encode()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        if os.pread(fd, len(data) + 1, 0) != data:
            os.fchmod(fd, 0o644)
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


# ---------------------------------------------------------------- subpaths


def pin_bind(path: str, key: Key, source: str, subpath: str, target: str) -> str:
    """As pin, for a folder or file inside a bind mount's source. Raises Failed where it is not there."""
    try:
        held = paths.open_in_root(source, subpath, os.O_PATH)
    except OSError as error:
        raise Failed(f"{key}: mount {subpath} of {source} at {target}: {error.strerror}", hint="make it first") from error
    return pin(path, key, held, target)


def pin(path: str, key: Key, held: int, target: str) -> str:
    """A folder or file inside a volume (a descriptor, which is closed), bound in the bundle: a path that stays what it is.

    Race: what runs in another container of this volume may put a link in its place at any time (CVE-2021-25741), so it was
    opened inside the volume, and the runtime never sees a path that others can change.
    """
    place = Path(path) / _PINS / hashlib.sha256(target.encode()).hexdigest()[:16]
    try:
        if mounts.is_mount_point(place):
            mounts.unmount(place, lazy=True)
        files.make_folders(place.parent)
        if os.path.isdir(f"/proc/self/fd/{held}"):  # noqa: PTH112 - the descriptor, not a path
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        mounts.bind(held, place)
    except OSError as error:
        raise Failed(f"{key}: hold what is to be mounted at {target}: {error.strerror or error}") from error
    finally:
        os.close(held)
    return str(place)


def unpin(path: str) -> None:
    """Take down what `pin` bound, and the trees."""
    trees.take_down(path)
    try:
        pins = list((Path(path) / _PINS).iterdir())
    except FileNotFoundError:
        return
    for pin in pins:
        if mounts.is_mount_point(pin):
            mounts.unmount(pin, lazy=True)
