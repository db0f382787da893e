"""A Docker and a podman beside us in a world: their own mounts and root, our network, our pids, our cgroups.

They are those of a folder that RECONCILE_PEER names: a root with Debian's packages docker.io, podman, iptables and nftables
in it, as debootstrap makes one. Nothing is written into that: an overlay whose writable part is a tmpfs lies on it, and
goes with the world.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from lab.world import Result, World, wait_until

ROOT = os.environ.get("RECONCILE_PEER", "")

_SET_UP = """
set -e
mkdir -p /run/peer && mount -t tmpfs peer /run/peer
mkdir -p /run/peer/upper /run/peer/work /run/peer/root && cd /run/peer
mount -t overlay -o lowerdir="$1",upperdir=upper,workdir=work overlay root
cd root
mkdir -p proc sys dev run old world
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p run/lock run/data
mount --bind "$2" world
mount -t tmpfs tmpfs tmp
pivot_root . old
umount -l /old
echo $$
exec sleep infinity
"""


def missing_programs() -> list[str]:
    """What is not there of what a test beside Docker and podman needs."""
    if not ROOT:
        return ["RECONCILE_PEER"]
    path = ":".join(f"{ROOT}/{folder}" for folder in ("usr/bin", "usr/sbin", "usr/local/bin", "bin", "sbin"))
    return [name for name in ("dockerd", "docker", "podman", "iptables") if shutil.which(name, path=path) is None]


class Peer:
    """Docker and podman in a world; `close` before the world's end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._cgroups_before = _list_cgroups()
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SET_UP, "sh", ROOT]
        self.holder = world.spawn([*command, str(world.folder)])
        assert self.holder.stdout
        said = self.holder.stdout.readline()
        if not said:
            raise AssertionError(self.holder.communicate(timeout=20)[1].decode())
        self.pid = int(said)

    def run(self, *command: str, check: bool = True, timeout: float = 60) -> Result:
        """Run a command among theirs. The world's folder is /world there."""
        enter = [
            "nsenter",
            "--target",
            str(self.pid),
            "--mount",
            "--wdns=/",
            "--",
            "env",
            "HOME=/root",
            "PATH=/usr/sbin:/usr/bin",
        ]
        return self.world.nsenter(*enter, *command, check=check, timeout=timeout)

    def start_docker(self) -> None:
        """Start dockerd and wait until it answers."""
        options = "--data-root /run/data --exec-root /run/docker --storage-driver overlay2"
        self.run("sh", "-c", f"setsid dockerd {options} >/run/dockerd.log 2>&1 </dev/null &")
        wait_until(lambda: self.run("docker", "info", check=False).code == 0, "Docker answers", self._log, seconds=60)

    def _log(self) -> str:
        return self.run("tail", "-30", "/run/dockerd.log", check=False).out

    def stop_docker(self) -> None:
        """End dockerd as its service does, and wait until it has gone; its containers end with it."""
        self.run("sh", "-c", "kill $(cat /run/docker.pid)")
        wait_until(lambda: not self._alive("dockerd"), "Docker has ended", self._log, seconds=30)

    def _alive(self, name: str) -> bool:
        return any(name in command for command in self.world.processes().values())

    def podman(self, *arguments: str, check: bool = True, timeout: float = 60) -> Result:
        """podman with the runtime that we use too."""
        places = ["--root", "/run/podman-data", "--runroot", "/run/podman", "--tmpdir", "/run/podman-tmp"]
        return self.run(
            "podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *places, *arguments, check=check, timeout=timeout
        )

    def path(self, inside: str) -> Path:
        """A path of theirs as it is seen from outside."""
        nsenter = self.holder.pid
        [holder] = Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()
        return Path(f"/proc/{holder}/root{inside}")

    def close(self) -> None:
        """End what is theirs and take away what they leave in the world: links, tables, namespaces."""
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        if self._alive("dockerd"):
            self.run("sh", "-c", "docker rm -f $(docker ps -aq)", check=False)
            self.stop_docker()
        own = {link for link in self.world.links() if link.startswith(("docker", "podman", "br-", "veth"))}
        for link in own:
            self.world.nsenter("ip", "link", "delete", link, check=False)
        for line in self.world.nsenter("nft", "list", "tables").out.splitlines():
            if "reconcile" not in line:
                self.world.nsenter("nft", "delete", *line.split())
        self.world.kill(self.pid)
        self.holder.communicate(timeout=20)
        self.world.nsenter("sh", "-c", "umount -l /run/peer; rmdir /run/peer", check=False)
        for folder in sorted(_list_cgroups() - self._cgroups_before, key=lambda folder: len(str(folder)), reverse=True):
            with suppress(OSError):  # One that is in use is somebody else's.
                folder.rmdir()


def _list_cgroups() -> set[Path]:
    """The cgroups of Docker and podman on this machine."""
    tops = [top for name in ("docker", "libpod_parent") for top in Path("/sys/fs/cgroup").glob(f"*/{name}")]
    return {folder for top in tops for folder in (top, *top.rglob("*/"))}
