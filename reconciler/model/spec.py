"""Canonical specs: what is wanted of a resource, in the one form that records, diffs and drivers use.

`manifest/desire.py` makes them from text: lists and maps of ports, mounts and env become one form, maps by key. Defaults
are filled in, so that leaving a field out and writing its default are the same spec. Sizes are bytes, durations seconds.
What a change of each property means is not said here but in `schemas/` (`x-change`).
"""

from typing import Any

import msgspec
from msgspec import Struct

from reconciler.model.key import Kind


class Sensitive(Struct, frozen=True, tag="sensitive"):
    """A value that people never see: shown as `(sensitive)`, sealed wherever it is stored.

    Redaction goes by this type. Only the runtime's bundle, on tmpfs, holds the value in clear.
    """

    value: str

    def __repr__(self) -> str:
        return "Sensitive(…)"

    def __str__(self) -> str:
        return "(sensitive)"


class ImageSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image comes from: exactly one of `reference` and `archive`."""

    reference: str = ""
    """Canonical: `docker.io/library/redis:7`, `host:5000/name@sha256:…`; in manifests `from`."""
    archive: str = ""
    """Absolute path of a `docker save` or OCI tar file."""
    pull: str = "missing"
    """missing | always | never"""


class NetworkSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A network; `subnet` empty means one of the root's pool."""

    driver: str = "bridge"
    """bridge | host | none"""
    subnet: str = ""
    gateway: str = ""
    internal: bool = False
    icc: bool = True
    """Whether its containers may speak to each other."""
    mtu: int = 0
    """0: that of the uplink."""
    labels: dict[str, str] = {}


class VolumeSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A managed directory that outlives its containers."""

    driver: str = "local"
    driver_opts: dict[str, str | Sensitive] = {}
    """`type`, `o`, `device` of what is mounted as the volume; empty: a folder of the root. An `o` with passwords is
    sensitive."""
    size: int = 0
    """The most that it may hold, in bytes; 0 is no limit."""
    labels: dict[str, str] = {}
    access: str = ""
    """shared: replicas of one container, and the old and the new one of a replace, may write it together."""
    moved: str = ""
    """The name in the stack whose folder it takes over; means nothing once that is done."""


class ConfigSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of configuration, by what is in it. Where it came from is not part of it: see `Stack.sources`."""

    digest: str = ""
    """`sha256:HEX`, or a keyed one where its text interpolates variables; set by `resolve`."""


class SecretSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret, by what it is."""

    digest: str = ""
    """`hmac-sha256:HEX`, keyed with the root's key, so that nobody finds the value by trying; set by `resolve`."""


class Attachment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a container sits on one network."""

    aliases: tuple[str, ...] = ()
    """Sorted."""
    ipv4: str = ""


class Mount(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mount; its target is the key under which the container's spec holds it."""

    type: str
    """volume | bind | tmpfs"""
    source: str = ""
    """volume: its name in the stack; bind: an absolute host path; tmpfs: empty."""
    read_only: bool = False
    subpath: str = ""
    size: int = 0
    """tmpfs: bytes, 0 for the kernel's default."""
    mode: int = 0
    """tmpfs: permission bits, 0 for 1777; kept file: those of the source."""
    digest: str = ""
    """bind: of the file that is mounted, where a copy of it is kept and mounted in its place: a small file beside the
    manifest, read-only. UNREAD until `resolve` has looked whether it is one."""
    uid: int = 0
    """Kept file: the source's owner."""
    gid: int = 0


UNREAD = "unread"
"""A digest that `resolve` has yet to find out."""


class FileMount(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A config or secret as a container sees it; its target is the key under which the container's spec holds it."""

    source: str
    """Its name in the stack."""
    digest: str = ""
    """What is in it; set by `resolve`."""
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    """Permission bits."""
    on_change: str = "replace"
    """replace | restart | nothing: what becomes of the container when the file changes."""
    signal: str = ""
    """Under `nothing`: what the container is sent then."""


class Healthcheck(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Docker's health check. `test` is (CMD, WORD…), (CMD-SHELL, LINE), (HTTP, URL, STATUSES), (TCP, PORT) or (NONE,).

    Empty, it is the image's own; of the numbers then 0 means that the manifest says nothing.
    """

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0
    on_unhealthy: str = "restart"
    """restart | nothing: what a controller does about it."""


class Dependency(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a container asks of one that it depends on."""

    condition: str
    """started | healthy | completed"""
    restart: bool = False
    """Whether it is restarted when the other is restarted or replaced."""


class Resources(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits; 0 is none."""

    cpus: float = 0.0
    memory: int = 0
    pids: int = 0


STOP_FIRST, START_FIRST = "stop-first", "start-first"
"""`update.order`: the old one stops before the new one starts, or only once that was seen."""


class Update(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a new version takes the old one's place. No change of it changes anything that runs."""

    order: str = STOP_FIRST
    """stop-first | start-first"""
    parallel: int = 1
    """How many replicas are replaced at a time."""
    on_failure: str = ""
    """stop | rollback; empty: what is usual for whoever applies (`stop` by hand)."""


class Logs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Bounds of the container's log: bytes of one file, and how many rotated ones are kept."""

    max_size: int = 10_000_000
    keep: int = 3


class ContainerSpec(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A container. `None` for command, entrypoint, user and workdir means what the image says."""

    image: str
    """The name of an image resource of the stack, not a digest."""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: dict[str, str | Sensitive] = {}
    """With the values of `env_file` folded in by `resolve`."""
    env_file: tuple[str, ...] = ()
    """Absolute paths; read by `resolve` only."""
    workdir: str = ""
    user: str = ""
    hostname: str = ""
    """Empty: the container's name, with its index from the second on."""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_grace: float = 10.0
    read_only: bool = False
    tty: bool = False
    stdin: bool = False
    """Whether its standard input stays open for whoever attaches."""
    init: bool = False
    restart: str = "always"
    """always | on-failure | on-failure:N | no"""
    job: bool = False
    """Whether it runs once to success for each version of its spec; `restart` is then `no`."""
    remove: bool = False
    """Whether it is removed, with the volumes of its image, once it has ended: `run --rm`. No manifest says it."""
    networks: dict[str, Attachment] = {}
    """By the network's name in the stack; filled with `default` where the manifest names none."""
    ports: dict[str, int] = {}
    """`HOST_IP:HOST_PORT/PROTO` (0.0.0.0 where none is written) to the container's port; ranges unrolled."""
    mounts: dict[str, Mount] = {}
    """By absolute target."""
    configs: dict[str, FileMount] = {}
    """By absolute target."""
    secrets: dict[str, FileMount] = {}
    """By absolute target."""
    resources: Resources = Resources()
    depends_on: dict[str, Dependency] = {}
    """By the container's name in the stack."""
    healthcheck: Healthcheck | None = None
    """None: the image's own, if it has one."""
    runtime: str = "runc"
    update: Update = Update()
    logs: Logs = Logs()
    cap_add: tuple[str, ...] = ()
    """With `CAP_`, sorted; `ALL` alone is `ALL`."""
    cap_drop: tuple[str, ...] = ()
    ulimits: dict[str, tuple[int, int]] = {}
    """`nofile` to soft and hard; -1 is unlimited."""
    sysctls: dict[str, str] = {}
    shm_size: int = 67_108_864
    extra_hosts: dict[str, str] = {}
    """Host name to address."""
    dns: tuple[str, ...] = ()
    """Resolvers asked for names that are not containers'; empty: the host's."""
    dns_search: tuple[str, ...] = ()


Spec = ImageSpec | NetworkSpec | VolumeSpec | ConfigSpec | SecretSpec | ContainerSpec

SPEC_TYPES: dict[Kind, type[Spec]] = {
    Kind.IMAGE: ImageSpec,
    Kind.NETWORK: NetworkSpec,
    Kind.VOLUME: VolumeSpec,
    Kind.CONFIG: ConfigSpec,
    Kind.SECRET: SecretSpec,
    Kind.CONTAINER: ContainerSpec,
}


def spec_builtins(spec: Spec) -> dict[str, Any]:
    """A spec as plain data for people and machines: defaults left out, sensitive values as `(sensitive)`."""
    plain = msgspec.to_builtins(spec)
    if isinstance(spec, ContainerSpec):
        env = {name: str(value) for name, value in spec.env.items()}
        if env:
            plain["env"] = env
    if isinstance(spec, VolumeSpec) and spec.driver_opts:
        plain["driver_opts"] = {name: str(value) for name, value in spec.driver_opts.items()}
    assert isinstance(plain, dict)
    return plain
