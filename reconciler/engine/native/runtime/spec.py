"""Turns (container spec, image config, place) into the OCI runtime config that runc reads. Pure: same values, same dict.

The driver gathers the place (ids, paths, mounts) and writes the result; users.py found the identity. Never opens a file of
an image. Sources: OCI runtime-spec 1.0 (config.md, config-linux.md), OCI image-spec 1.1 (conversion.md); where these leave
a choice, Docker's defaults.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from reconciler.engine.native.runtime.seccomp import render_seccomp
from reconciler.engine.native.runtime.users import Identity
from reconciler.model.capabilities import DEFAULT_CAPABILITIES
from reconciler.model.spec import ContainerSpec, Resources, Sensitive

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_TARGET = "/dev/init"
"""Compat: Docker mounts its init as /sbin/docker-init; on the container's own /dev nothing is written into the root."""

ALL_CAPABILITIES = (
    *DEFAULT_CAPABILITIES,
    *("CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
    *("CAP_DAC_READ_SEARCH", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN"),
    *("CAP_MAC_OVERRIDE", "CAP_NET_ADMIN", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SYSLOG"),
    *("CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_MODULE", "CAP_SYS_NICE", "CAP_SYS_PACCT", "CAP_SYS_PTRACE"),
    *("CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_WAKE_ALARM"),
)

DEFAULT_PIDS = 4096
"""Compat: Docker sets none, podman 2048. A fork bomb must not take the host's last pid."""

_FILES = (1024, 524_288)
"""Compat: Docker 25 and newer under systemd. Said outright, so that it does not depend on the caller's shell."""

CPU_PERIOD = 100_000
"""Microseconds."""
SHARES_OF_A_CPU = 1024

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_FORBIDDEN_WORKDIRS = ("/proc", "/sys", "/dev")


class Bind(Struct, frozen=True):
    """A host folder or file shown inside. `options` as in mount(8), without `rbind`."""

    source: str
    target: str
    options: tuple[str, ...]


class Tmpfs(Struct, frozen=True):
    """A fresh tmpfs; `size` in bytes (0: the kernel's default), `mode` its permission bits."""

    target: str
    size: int
    mode: int


class Place(Struct, frozen=True, kw_only=True):
    """What a container was given on this machine."""

    rootfs: str
    cgroup: str
    hostname: str
    identity: Identity
    mounts: tuple[Bind | Tmpfs, ...] = ()
    """Volumes, binds, tmpfs and the three files of /etc, in any order."""
    netns: str = ""
    """Path of the network namespace; empty: the host's own."""
    init: str = ""
    """Host path of the init program where one is wanted."""
    machine: str = "x86_64"
    """As uname(2) has it."""
    most_files: int = 524_288
    """The hard limit of open files that this machine lets us give."""


class Unstartable(ValueError):
    """The spec and the image together say nothing that can be run; the text says what is missing or wrong."""


def render_config(spec: ContainerSpec, image: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The config.json of a container. `image` is the `config` object of the OCI image config.

    Raises Unstartable for an image without a command, or a working directory or environment that can't be.
    """
    capabilities = choose_capabilities(spec.cap_add, spec.cap_drop)
    return {
        "ociVersion": "1.0.2",
        "hostname": place.hostname,
        "root": {"path": place.rootfs, "readonly": spec.read_only},
        "process": _render_process(spec, image, place, capabilities=capabilities),
        "mounts": _render_mounts(spec, place),
        "linux": {
            "cgroupsPath": place.cgroup,
            "namespaces": _render_namespaces(place.netns),
            "resources": render_resources(spec.resources),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "seccomp": render_seccomp(capabilities, machine=place.machine),
            **({"sysctl": dict(sorted(spec.sysctls.items()))} if spec.sysctls else {}),
        },
    }


def choose_capabilities(add: Sequence[str], drop: Sequence[str]) -> list[str]:
    """Docker's rule: ALL first, then what is named; a name in both lists is added."""
    chosen = set() if "ALL" in drop else set(DEFAULT_CAPABILITIES)
    if "ALL" in add:
        chosen = set(ALL_CAPABILITIES)
    chosen -= set(drop)
    chosen |= set(add)
    return sorted(chosen - {"ALL"})


def _render_process(
    spec: ContainerSpec, image: Mapping[str, Any], place: Place, *, capabilities: list[str]
) -> dict[str, Any]:
    args = choose_command(spec, image)
    if place.init:
        args = [INIT_TARGET, "--", *args]
    return {
        "terminal": spec.tty,
        "user": render_user(place.identity),
        "args": args,
        "env": [f"{name}={value}" for name, value in choose_env(spec, image, place).items()],
        "cwd": choose_workdir(spec.workdir or str(image.get("WorkingDir") or "")),
        "capabilities": render_capabilities(capabilities, uid=place.identity.uid),
        "rlimits": _render_rlimits(spec.ulimits, most_files=place.most_files),
        "oomScoreAdj": 0,
        # Compat: as Docker. With it, setuid programs that images rely on (su, sudo) would stop working.
        "noNewPrivileges": False,
    }


def render_user(identity: Identity) -> dict[str, Any]:
    """The `user` of a process."""
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def render_capabilities(names: Sequence[str], *, uid: int) -> dict[str, list[str]]:
    """Inheritable and ambient stay empty: with them a program without privileges would keep root's (CVE-2022-24769).

    Compat: as Docker, who is not root has none from the beginning: execve(2) takes them, but would find, with root's, a
    program that its user may not reach.
    """
    own = list(names) if uid == 0 else []
    return {"bounding": list(names), "effective": own, "permitted": own}


def choose_command(spec: ContainerSpec, image: Mapping[str, Any]) -> list[str]:
    """Entry point and command. One's own entry point drops the image's command, as in Docker. Raises Unstartable."""
    entrypoint = _words(image.get("Entrypoint")) if spec.entrypoint is None else list(spec.entrypoint)
    if spec.command is not None:
        command = list(spec.command)
    else:
        command = [] if spec.entrypoint is not None else _words(image.get("Cmd"))
    if not (args := entrypoint + command):
        raise Unstartable("neither the manifest nor the image says what to run: set `command` or `entrypoint`")
    if not args[0]:
        raise Unstartable("the first word of the command is empty")
    if any("\0" in word for word in args):
        raise Unstartable("the command has a NUL byte in it")
    return args


def _words(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, (list, tuple)) else []


def choose_env(spec: ContainerSpec, image: Mapping[str, Any], place: Place) -> dict[str, str]:
    """Docker's order: PATH, HOSTNAME, TERM, HOME, then the image's, then the manifest's. Raises Unstartable."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": place.hostname}
    if spec.tty:
        env["TERM"] = "xterm"
    env["HOME"] = place.identity.home
    for entry in _words(image.get("Env")):
        name, equals, value = entry.partition("=")
        if name and equals:
            env[name] = value
    env |= {name: value.value if isinstance(value, Sensitive) else value for name, value in spec.env.items()}
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise Unstartable(f"the environment variable {name!r} can't be: a name is not empty, and has neither = nor NUL")
    return env


def choose_workdir(path: str) -> str:
    """The working directory, absolute and without `..`. Raises Unstartable for one in the kernel's own file systems."""
    clean = posixpath.normpath(posixpath.join("/", path)).replace("//", "/")
    if clean.startswith(tuple(f"{top}/" for top in _FORBIDDEN_WORKDIRS)):
        raise Unstartable(f"the working directory {clean} lies in a file system of the kernel's (CVE-2024-21626)")
    return clean


def _render_rlimits(ulimits: Mapping[str, tuple[int, int]], *, most_files: int) -> list[dict[str, Any]]:
    limits = {"nofile": (min(_FILES[0], most_files), min(_FILES[1], most_files)), **ulimits}
    unlimited = 2**64 - 1
    return [
        {
            "type": f"RLIMIT_{name.upper()}",
            "soft": unlimited if soft < 0 else soft,
            "hard": unlimited if hard < 0 else hard,
        }
        for name, (soft, hard) in sorted(limits.items())
    ]


def _render_namespaces(netns: str) -> list[dict[str, str]]:
    own = [{"type": name} for name in ("pid", "ipc", "uts", "mount", "cgroup")]
    return [*own, {"type": "network", "path": netns}] if netns else own


def render_resources(resources: Resources) -> dict[str, Any]:
    """Limits in the runtime's words, which runc turns into those of cgroup v1 or v2. 0 CPUs or memory is no limit."""
    rendered: dict[str, Any] = {
        "devices": [{"allow": False, "access": "rwm"}],
        "pids": {"limit": resources.pids or DEFAULT_PIDS},
    }
    if resources.cpus:
        # Compat: Docker sets no shares by --cpus; with them a container of 2 CPUs also gets twice the time under load.
        rendered["cpu"] = {
            "quota": max(1000, round(resources.cpus * CPU_PERIOD)),
            "period": CPU_PERIOD,
            "shares": min(262_144, max(2, round(resources.cpus * SHARES_OF_A_CPU))),
        }
    if resources.memory:
        # Compat: Docker allows as much swap again; a limit that swaps is not what people mean by it.
        rendered["memory"] = {"limit": resources.memory, "swap": resources.memory}
    return rendered


def _render_mounts(spec: ContainerSpec, place: Place) -> list[dict[str, Any]]:
    mounts = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", *_OPTIONS_PTS),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    if "/dev/shm" not in {mount.target for mount in place.mounts}:
        size = f"size={spec.shm_size}"
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", size))
    if place.init:
        mounts.append(_render_mount(Bind(place.init, INIT_TARGET, ("ro", "nosuid", "nodev"))))
    # Order: parents before what lies in them, whatever order the manifest has.
    ordered = sorted(place.mounts, key=lambda mount: (mount.target.count("/"), mount.target))
    return mounts + [_render_mount(mount) for mount in ordered]


_OPTIONS_PTS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")


def _mount(target: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": fstype, "source": source, "options": list(options)}


def _render_mount(mount: Bind | Tmpfs) -> dict[str, Any]:
    if isinstance(mount, Bind):
        return _mount(mount.target, "bind", mount.source, "rbind", "rprivate", *mount.options)
    size = (f"size={mount.size}",) if mount.size else ()
    return _mount(mount.target, "tmpfs", "tmpfs", "nosuid", "nodev", "noexec", f"mode={mount.mode or 0o1777:o}", *size)
