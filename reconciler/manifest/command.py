"""A container that a command line describes → specs, by the rules of manifests: what `reconcile run` makes of its flags.

The flags become a manifest's data, which go the way of every manifest (`validate.py`, `desire.py`); what is wrong is told
of the flag instead of a place. Nothing outside is looked at but what the caller gives.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from reconciler.manifest.desire import desire
from reconciler.manifest.faults import Fault, Path
from reconciler.manifest.validate import validate
from reconciler.model.errors import Usage
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.spec import Attachment, ContainerSpec, ImageSpec, Mount, NetworkSpec, Spec, VolumeSpec

_FLAGS = {
    "image": "IMAGE",
    "command": "CMD",
    "entrypoint": "--entrypoint",
    "env": "--env",
    "env_file": "--env-file",
    "workdir": "--workdir",
    "user": "--user",
    "hostname": "--hostname",
    "labels": "--label",
    "stop_signal": "--stop-signal",
    "restart": "--restart",
    "networks": "--network",
    "ports": "--publish",
    "mounts": "--volume",
    "memory": "--memory",
    "cpus": "--cpus",
    "cap_add": "--cap-add",
    "cap_drop": "--cap-drop",
}


class Flags(Struct, frozen=True, kw_only=True):
    """What was written on the command line, as text."""

    name: str
    image: str
    written: dict[str, Any]
    """The container's data as a manifest would have them: `ports`, `mounts`, `env`, `resources`, …"""
    networks: tuple[str, ...] = ()
    """`host`, `none`, NAME of the stack, or STACK/NAME borrowed of another; the stack's default where empty."""
    pull: str = "missing"
    remove: bool = False


def read_command(flags: Flags, *, stack: str, folder: str, variables: Mapping[str, str]) -> dict[Key, Spec]:
    """The container, its image, its volumes and its networks, by key; a borrowed network is nobody's here.

    `folder` is what relative paths begin at, `variables` where `--env NAME` takes its value from. Raises Usage with all
    that is wrong.
    """
    name = flags.name
    own = [network for network in flags.networks if "/" not in network]
    bare = [mount for mount in flags.written.get("mounts", ()) if ":" not in mount]
    named = [_absolute(mount, folder) for mount in flags.written.get("mounts", ()) if ":" in mount]
    written = {**flags.written, "image": "it", **({"networks": own} if own else {})}
    if named or bare:
        written["mounts"] = [*named, *({"type": "tmpfs", "target": target} for target in bare)]
    data = {
        "apiVersion": "reconcile/v1",
        "name": stack,
        "images": {"it": {"from": flags.image, "pull": flags.pull}},
        "networks": {network: {} for network in own if network not in ("host", "none")},
        "volumes": {source: {} for source in _volume_names(named)},
        "containers": {name: written},
    }
    fitting, faults = validate(data)
    draft = desire(data, fitting, folder=folder, variables=variables, faults=faults)
    wrong = [fault for fault in draft.faults if fault.path != ("name",)]
    if wrong:
        raise _usage(wrong, flags)
    return _named_by_reference(draft.specs, flags, stack=stack, bare=bare)


def _absolute(mount: str, folder: str) -> str:
    """Compat: what Docker binds is the file itself, of which no copy is kept, as of a relative path in a manifest."""
    source, colon, rest = mount.partition(":")
    return posixpath.normpath(posixpath.join(folder, source)) + colon + rest if source.startswith(".") else mount


def _volume_names(mounts: Sequence[str]) -> list[str]:
    sources = [mount.partition(":")[0] for mount in mounts]
    return [source for source in sources if source and not source.startswith(("/", ".", "~"))]


def _named_by_reference(specs: dict[Key, Spec], flags: Flags, *, stack: str, bare: Sequence[str]) -> dict[Key, Spec]:
    """The specs with the image named by its reference, unnamed volumes made, and borrowed networks joined."""
    image = specs.pop(make_key(Kind.IMAGE, stack, "it"))
    assert isinstance(image, ImageSpec)
    key = container_key(stack, flags.name)
    spec = specs[key]
    assert isinstance(spec, ContainerSpec)
    mounts = {
        target: Mount(type="volume", source=f"{flags.name}-1@{target}") if _is_unnamed(mount, target, bare) else mount
        for target, mount in spec.mounts.items()
    }
    borrowed = {network: Attachment() for network in flags.networks if "/" in network}
    networks = dict(sorted({**(spec.networks if len(borrowed) < len(flags.networks) else {}), **borrowed}.items()))
    networks = networks or spec.networks
    specs[key] = structs.replace(spec, image=image.reference, mounts=mounts, networks=networks, remove=flags.remove)
    specs[make_key(Kind.IMAGE, stack, image.reference)] = image
    specs |= {
        make_key(Kind.VOLUME, stack, mount.source): VolumeSpec()
        for target, mount in mounts.items()
        if mount.type == "volume" and _is_unnamed(spec.mounts[target], target, bare)
    }
    return {
        found: spec
        for found, spec in specs.items()
        if not isinstance(spec, NetworkSpec) or found in {make_key(Kind.NETWORK, stack, name) for name in networks}
    }


def _is_unnamed(mount: Mount, target: str, bare: Sequence[str]) -> bool:
    """Whether a mount came from `--volume /PATH`: a volume of the container alone, as those that an image declares."""
    return mount.type == "tmpfs" and any(target == "/" + text.strip("/") for text in bare)


def _usage(faults: Sequence[Fault], flags: Flags) -> Usage:
    # A network's name stands in two places of the data and once on the command line.
    found = dict.fromkeys((_render(fault, flags), fault.hint) for fault in faults)
    if len(found) == 1:
        return Usage(*next((line, "", hint) for line, hint in found))
    lines = [f"{line} ({hint})" if hint else line for line, hint in found]
    return Usage(f"{len(lines)} flags are wrong", detail="\n".join(lines))


def _render(fault: Fault, flags: Flags) -> str:
    return f"{_flag_of(fault.path, flags)}: {fault.text}"


def _flag_of(path: Path, flags: Flags) -> str:
    """The flag that led to a path of the data."""
    if path[:1] == ("images",):
        return "IMAGE" if flags.pull in ("always", "missing", "never") else "--pull"
    if path[:1] in (("networks",), ("volumes",)):
        return "--network" if path[0] == "networks" else "--volume"
    if len(path) < 3:
        return f"--name {flags.name}"
    word = str(path[3] if path[2] == "resources" and len(path) > 3 else path[2])
    return _FLAGS.get(word, f"--{word.replace('_', '-')}")
