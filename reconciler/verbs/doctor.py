"""Programs, kernel and host → what is missing or dangerous, and the command that mends it. Changes nothing."""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from reconciler.engine.native.net.foreign import read_forward_droppers
from reconciler.linux import cgroups, linkkinds
from reconciler.verbs.root import read_root_id

GIB = 1 << 30


class Finding(Struct, frozen=True, kw_only=True):
    """One thing that was checked."""

    what: str
    state: str
    """ok | warning | missing"""
    found: str
    mend: str = ""


class Program(Struct, frozen=True, kw_only=True):
    """A program, its Debian package, and what does not work without it."""

    name: str
    package: str
    needed_for: str
    paths: tuple[str, ...] = ()
    """Where to look besides PATH."""
    holes: tuple[str, ...] = ()
    """Known holes, and in `fixed_in` the upstream releases that mended them: the first of each line of releases. A package
    that is older is whole where its Debian changelog names the hole, for Debian backports."""
    fixed_in: tuple[tuple[int, ...], ...] = ()


PROGRAMS = (
    Program(
        name="runc",
        package="runc",
        needed_for="containers",
        holes=("CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"),
        fixed_in=((1, 2, 8), (1, 3, 3), (1, 4, 0)),
    ),
    Program(name="conmon", package="conmon", needed_for="containers"),
    Program(name="nft", package="nftables", needed_for="bridge networks and published ports"),
    Program(
        name="aardvark-dns",
        package="aardvark-dns",
        needed_for="names of containers",
        paths=("/usr/lib/podman/aardvark-dns",),
    ),
    Program(name="sqfstar", package="squashfs-tools", needed_for="layers of images"),
    Program(name="tini", package="tini", needed_for="containers with `init: true`"),
    Program(name="git", package="git", needed_for="sources from a repository"),
    Program(name="ssh", package="openssh-client", needed_for="repositories over ssh, and commits signed with keys of ssh"),
    Program(name="gpg", package="gnupg", needed_for="commits signed with gpg"),
)
OPTIONAL = frozenset({"tini", "git", "ssh", "gpg"})


def examine(root: Path) -> list[Finding]:
    """Everything that is checked, in order."""
    checks: tuple[Callable[[Path], Iterator[Finding]], ...] = (
        _check_user,
        _check_programs,
        _check_file_systems,
        _check_cgroups,
        _check_network,
        _check_space,
    )
    return [finding for check in checks for finding in check(root)]


def _check_user(root: Path) -> Iterator[Finding]:  # noqa: ARG001 one signature for all checks
    if os.geteuid() == 0:
        yield Finding(what="user", state="ok", found="root")
    else:
        yield Finding(what="user", state="missing", found=f"uid {os.geteuid()}, not root", mend="run it with sudo")


def _check_programs(root: Path) -> Iterator[Finding]:  # noqa: ARG001
    for program in PROGRAMS:
        places = [shutil.which(program.name), *(path for path in program.paths if Path(path).exists())]
        found = next((place for place in places if place), None)
        if found is None:
            state = "warning" if program.name in OPTIONAL else "missing"
            text = f"not installed; needed for {program.needed_for}"
            yield Finding(what=program.name, state=state, found=text, mend=f"apt-get install {program.package}")
        else:
            yield _check_version(program, found)


def _check_version(program: Program, path: str) -> Finding:
    version = _package_version(program.package)
    found = f"{path} {version}".strip()
    open_holes = _open_holes(program, version)
    if open_holes:
        return Finding(
            what=program.name,
            state="warning",
            found=f"{found}: known holes {', '.join(open_holes)}",
            mend=f"apt-get update && apt-get install {program.package}; where that brings none, a newer Debian",
        )
    return Finding(what=program.name, state="ok", found=found)


def _open_holes(program: Program, version: str) -> list[str]:
    """The holes of an installed package: those that neither its upstream version nor its Debian changelog mends."""
    upstream = _upstream(version)
    if not upstream or upstream >= max(program.fixed_in, default=()):
        return []
    if any(upstream[:2] == fixed[:2] and upstream >= fixed for fixed in program.fixed_in):
        return []
    changelog = _changelog(program.package)
    return [hole for hole in program.holes if hole not in changelog]


def _upstream(version: str) -> tuple[int, ...]:
    """`1:1.1.5+ds1-1+deb12u1` → (1, 1, 5)."""
    found = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in found.group(1).split(".")) if found else ()


def _changelog(package: str) -> str:
    try:
        with gzip.open(f"/usr/share/doc/{package}/changelog.Debian.gz", "rt", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _package_version(package: str) -> str:
    return _words(["dpkg-query", "-W", "-f", "${Version}", package])


def _words(command: list[str]) -> str:
    """What a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _check_file_systems(root: Path) -> Iterator[Finding]:  # noqa: ARG001
    known = set(Path("/proc/filesystems").read_text().split())
    for name, needed_for in (("overlay", "containers"), ("squashfs", "layers of images")):
        if name in known:
            yield Finding(what=f"kernel: {name}", state="ok", found="there")
        else:
            text = f"not loaded; needed for {needed_for}"
            yield Finding(what=f"kernel: {name}", state="missing", found=text, mend=f"modprobe {name}")


def _check_cgroups(root: Path) -> Iterator[Finding]:  # noqa: ARG001
    hierarchy = "v2" if cgroups.is_v2() else "v1"
    for name, limit in (("cpu", "cpus"), ("memory", "memory"), ("pids", "pids")):
        if cgroups.find_controller(name):
            yield Finding(what=f"cgroup {hierarchy}: {name}", state="ok", found="there")
        else:
            mend = "mount it, or boot with cgroup_enable=memory" if name == "memory" else "mount the cgroup hierarchy"
            text = f"not mounted; needed for resources.{limit}"
            yield Finding(what=f"cgroup {hierarchy}: {name}", state="missing", found=text, mend=mend)


def _check_network(root: Path) -> Iterator[Finding]:
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if bridged.exists():
        yield Finding(
            what="br_netfilter", state="ok", found=f"loaded, bridge-nf-call-iptables {bridged.read_text().strip()}"
        )
    if os.geteuid() != 0:
        return  # what follows needs root, and `user` has said so
    for kind, found in sorted(linkkinds.probe_link_kinds(("bridge", "veth")).items()):
        if found:
            yield Finding(what=f"kernel: {kind} links", state="ok", found="there")
        else:
            text = "can't be made; needed for bridge networks"
            yield Finding(what=f"kernel: {kind} links", state="missing", found=text, mend=f"modprobe {kind}")
    for dropper in read_forward_droppers(read_root_id(root) or "ID"):
        yield Finding(
            what="firewall",
            state="warning",
            found=f"{dropper.chain} drops what our bridges forward",
            mend=f"{dropper.mend} (our own table goes on dropping what is not published)",
        )


def _check_space(root: Path) -> Iterator[Finding]:
    folder = next(path for path in (root, *root.resolve().parents) if path.exists())
    usage = shutil.disk_usage(folder)
    free = usage.free / GIB
    if free < 1:
        yield Finding(
            what=f"disk of {root}",
            state="warning",
            found=f"{free:.1f} GiB free",
            mend="reconcile images prune, or a larger disk",
        )
    else:
        yield Finding(what=f"disk of {root}", state="ok", found=f"{free:.1f} GiB free")
