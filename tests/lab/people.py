"""A world with people in it who are not root: ann is in the group `reconcile`, bob is not, both may log in by ssh."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.world import REPOSITORY, Result, World, wait_until

PORT = 2222
_USERS = {"ann": 4242, "bob": 4243}
_GROUP = 4300

# As on a host with the default root: a client that is not root looks for its controller nowhere else.
_SET_UP = r"""
set -e
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir -p /mnt/bin /mnt/etc /mnt/way /run/sshd
cp /etc/passwd /mnt/etc
grep -v ^reconcile: /etc/group >/mnt/etc/group
printf 'ann:x:4242:4242::/mnt/ann:/bin/sh\nbob:x:4243:4243::/mnt/bob:/bin/sh\n' >>/mnt/etc/passwd
printf 'ann:x:4242:\nbob:x:4243:\nreconcile:x:4300:ann\n' >>/mnt/etc/group
mount --bind /mnt/etc/passwd /etc/passwd
mount --bind /mnt/etc/group /etc/group
for name in ann bob; do mkdir -m 0700 /mnt/$name; chown $name:$name /mnt/$name; done
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mkdir -p "$1" /var/lib/reconcile
mount --bind "$1" /var/lib/reconcile
"""

# What others may not look into on the way to our code and its interpreter is covered, in this world only.
_OPEN = r"""
set -e
folder=$1; shift; number=0
for path; do number=$((number + 1)); mkdir /mnt/way/$number; mount --rbind "$path" /mnt/way/$number; done
mount -t tmpfs -o mode=0755 tmpfs "$folder"
number=0
for path; do number=$((number + 1)); mkdir -p "$path"; mount --move /mnt/way/$number "$path"; rmdir /mnt/way/$number; done
"""


class People:
    """Who is there, and what they run."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.env["RECONCILE_ROOT"] = "/var/lib/reconcile"
        world.nsenter("sh", "-c", _SET_UP, "sh", str(world.root))
        covered: dict[str, list[str]] = {}
        for path in (Path(sys.base_prefix), REPOSITORY, Path(sys.prefix)):
            if closed := next((one for one in reversed(path.parents) if not one.stat().st_mode & 0o001), None):
                covered.setdefault(str(closed), []).append(str(path))
        for folder, paths in covered.items():
            world.nsenter("sh", "-c", _OPEN, "sh", folder, *paths)
        lines = ["#!/bin/sh", f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}"]
        lines.append(f'exec {shlex.quote(sys.executable)} -m reconciler.cli.lean "$@"')
        world.nsenter("sh", "-c", "cat >/mnt/bin/reconcile; chmod 755 /mnt/bin/reconcile", stdin="\n".join(lines))
        world.note_mounts()

    def enter(self, user: str) -> list[str]:
        """The command prefix of somebody's session, in his home."""
        number = _USERS[user]
        groups = f"--groups={_GROUP}" if user == "ann" else "--clear-groups"
        mine = {"HOME": f"/mnt/{user}", "USER": user, "LC_ALL": "C.UTF-8", "PATH": f"/mnt/bin:{os.defpath}"}
        clean = ["env", "-i", f"--chdir=/mnt/{user}", *(f"{name}={value}" for name, value in mine.items())]
        return ["setpriv", f"--reuid={number}", f"--regid={number}", groups, "--inh-caps=-all", *clean]

    def run(self, user: str, *arguments: str, stdin: str = "", check: int | None = None, **env: str) -> Result:
        """Somebody runs `reconcile ARGUMENTS…`."""
        words = [f"{name}={value}" for name, value in env.items()]
        result = self.world.nsenter(*self.enter(user), *words, "reconcile", *arguments, stdin=stdin, check=False)
        assert "Traceback (most recent call last)" not in result.err + result.out, str(result)
        assert check is None or result.code == check, f"expected exit {check}\n{result}"
        return result

    def start(self, user: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """The same, left running."""
        return self.world.spawn([*self.enter(user), "reconcile", *arguments])

    def write(self, user: str, name: str, text: str, mode: str = "600") -> None:
        """A file in somebody's home, his own."""
        script = 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"'
        self.world.nsenter(*self.enter(user), "sh", "-c", script, "sh", name, mode, stdin=text)

    @contextmanager
    def sshd(self, *settings: str) -> Iterator[None]:
        """A real sshd on loopback, with keys of its own; ann and bob have one that it takes."""
        world, folder = self.world, self.world.folder
        for name in ("host", "other", "login"):
            (folder / name).unlink(missing_ok=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True)
        for user in _USERS:
            self.write(user, ".ssh/id_ed25519", (folder / "login").read_text())
            self.know(user, "host")
        keys = (folder / "login.pub").read_text()
        world.nsenter("sh", "-c", "cat >/mnt/etc/keys; chmod 644 /mnt/etc/keys", stdin=keys)
        ours = {
            "HostKey": folder / "host", "AuthorizedKeysFile": "/mnt/etc/keys", "Port": PORT, "ListenAddress": "127.0.0.1",
            "SetEnv": f"PATH=/mnt/bin:{os.defpath}", "StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no",
        }  # fmt: skip
        lines = [*settings, *(f"{name}={value}" for name, value in ours.items())]  # Of each name the first counts.
        words = [word for line in lines for word in ("-o", line)]
        (folder / "sshd.log").unlink(missing_ok=True)
        sshd = world.spawn(["/usr/sbin/sshd", "-D", "-f", "/dev/null", "-E", str(folder / "sshd.log"), *words])
        try:
            log = folder / "sshd.log"
            wait_until(lambda: log.exists() and "listening" in log.read_text(), "sshd listens")
            yield
        finally:
            world.signal(sshd)
            sshd.communicate(timeout=20)

    def know(self, user: str, key: str) -> None:
        """Have somebody's ssh expect a host key."""
        self.write(user, ".ssh/known_hosts", f"[127.0.0.1]:{PORT} {(self.world.folder / f'{key}.pub').read_text()}")
