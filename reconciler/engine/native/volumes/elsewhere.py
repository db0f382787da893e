"""Volumes whose data are somewhere else (`driver_opts`): a file system that is mounted on the volume's `data` folder.

Mounted by the kernel's own calls, never by mount(8): a password in `o` would stand in its arguments for all to see. So
what helpers like mount.nfs do is done here: a host's name becomes `addr=`. What the file system says is told to people.
"""

import os
import re
import socket
from pathlib import Path

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes.managed import volume_data
from reconciler.linux import mounts
from reconciler.model.errors import Failed
from reconciler.model.observation import PRESENT, Part, altered, missing
from reconciler.model.spec import Sensitive, VolumeSpec

_ATTRIBUTES = {
    "ro": mounts.RDONLY,
    "nosuid": mounts.NOSUID,
    "nodev": mounts.NODEV,
    "noexec": mounts.NOEXEC,
    "noatime": mounts.NOATIME,
    "nodiratime": mounts.NODIRATIME,
}
_USUAL = {"rw", "suid", "dev", "exec", "atime", "diratime", "relatime", "defaults", "bind", "rbind", "private", "rprivate"}
_NETWORKED = re.compile(r"(nfs[0-9]*|cifs|smb[0-9]*)")
_HOSTS = {"nfs": re.compile(r"\[?([^/]*?)\]?:/"), "cifs": re.compile(r"[/\\]{2}([^/\\]+)")}


def ensure_mounted(layout: Layout, volume_id: str, *, key: str, spec: VolumeSpec) -> None:
    """Mount what the volume is; nothing where it is mounted already, or is no such volume. Raises Failed."""
    target = volume_data(layout, volume_id)
    if not spec.driver_opts or mounts.is_mount_point(target):
        return
    kind, device = spec.driver_opts["type"], _text(spec, "device")
    try:
        _mount(str(kind), device, _text(spec, "o"), target)
    except OSError as error:
        words = str(error.strerror or error)
        raise Failed(
            f"{key}: mount {device or kind} ({kind}): {_hide(spec, words)}", hint=_hint(str(kind), error.errno or 0, device)
        ) from None


def _mount(kind: str, device: str, written: str, target: Path) -> None:
    words = [word.strip() for word in written.split(",") if word.strip()]
    attributes = mounts.NOSUID | mounts.NODEV
    for word in words:
        attributes |= _ATTRIBUTES.get(word, 0)
    if "bind" in words or "rbind" in words:
        tree = os.open(device, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts.bind(tree, target, attributes=attributes, recursive="rbind" in words)
        finally:
            os.close(tree)
        return
    options: list[mounts.Option] = []
    for word in words:
        name, sign, value = word.partition("=")
        if word == "ro" or (word not in _ATTRIBUTES and word not in _USUAL):
            options.append((name, value if sign else None))
    options += _find_host(kind, device, {name for name, _ in options})
    mounts.mount(kind, target, options, source=device or kind, attributes=attributes)


def _find_host(kind: str, device: str, given: set[str]) -> list[mounts.Option]:
    """The server's address, which these file systems want to be told beside the device's name of it."""
    found = _HOSTS["nfs" if kind.startswith("nfs") else "cifs"].match(device) if _NETWORKED.fullmatch(kind) else None
    if found is None or not found[1] or given & {"addr", "ip"}:
        return []
    try:
        answers = socket.getaddrinfo(found[1], None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise OSError(error.errno, f"the host {found[1]} has no address: {error.strerror}") from None
    return [("addr" if kind.startswith("nfs") else "ip", str(answers[0][4][0]))]


def kept_options(spec: VolumeSpec) -> tuple[str, ...]:
    """Which of its attributes a container's mount of it must have too."""
    return tuple(word for word in ("ro", "noexec") if word in _text(spec, "o").split(","))


def unmount(layout: Layout, volume_id: str, *, key: str) -> None:
    """Take the mount off; what is not mounted is no error. Raises Failed. What is in it stays where it is."""
    target = volume_data(layout, volume_id)
    try:
        while mounts.is_mount_point(target):
            mounts.unmount(target)
    except OSError as error:
        raise Failed(
            f"{key}: unmount {target}: {error.strerror}", hint="end what uses it (`fuser -m`), then again"
        ) from error


def observe_mount(spec: VolumeSpec, entry: mounts.MountEntry | None) -> Part:
    """Whether it is mounted, by mountinfo alone: a server that does not answer must hang nobody who only looks."""
    if entry is None:
        return missing()
    kind = str(spec.driver_opts["type"])
    if kind not in ("none", "bind") and entry.fstype != kind and not entry.fstype.startswith(kind.rstrip("0123456789")):
        return altered("type", kind, entry.fstype)
    return PRESENT


def _text(spec: VolumeSpec, name: str) -> str:
    value = spec.driver_opts.get(name, "")
    return value.value if isinstance(value, Sensitive) else value


def _hide(spec: VolumeSpec, words: str) -> str:
    """The file system's words may repeat an option: what is secret is not told on."""
    for name in ("o", "device"):
        value = spec.driver_opts.get(name, "")
        if isinstance(value, Sensitive):
            for word in [value.value, *value.value.split(",")]:
                secret = word.partition("=")[2] or word
                words = words.replace(word, "(sensitive)").replace(secret, "(sensitive)") if len(secret) > 2 else words
    return words


def _hint(kind: str, code: int, device: str) -> str:
    from errno import ENODEV, ENOENT

    if code == ENODEV:
        return f"this kernel has no file system {kind}: load or install its module (`modprobe {kind}`)"
    if code == ENOENT:
        return f"{device} must exist: it is never made for you"
    return "correct type, o and device under driver_opts; `dmesg` may say more"
