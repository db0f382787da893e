"""A world with people in it who are not root: ann is in the group `reconcile`, bob is not, both may log in by ssh."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.world import REPOSITORY, Result, World, wait_until

PORT = 2222
_USERS = {"ann": 4242, "bob": 4243}
_GROUP = 4300

# As on a host with the default root: a client that is not root looks for its controller nowhere else.
_SET_UP = r"""
set -e
mount -t tmpfs -o mode=0755 tmpfs /home
mkdir -p /home/bin /home/etc /run/sshd
cp /etc/passwd /etc/group /home/etc
printf 'ann:x:4242:4242::/home/ann:/bin/sh\nbob:x:4243:4243::/home/bob:/bin/sh\n' >>/home/etc/passwd
printf 'ann:x:4242:\nbob:x:4243:\nreconcile:x:4300:ann\n' >>/home/etc/group
mount --bind /home/etc/passwd /etc/passwd
mount --bind /home/etc/group /etc/group
for name in ann bob; do mkdir -m 0700 /home/$name; chown $name:$name /home/$name; done
mount -t tmpfs -o mode=0755 tmpfs /var/lib
mkdir -p "$1" /var/lib/reconcile
mount --bind "$1" /var/lib/reconcile
"""

# What others may not look into on the way to the interpreter is covered, in this world only.
_OPEN = r"""
set -e
mkdir -p /home/way
mount --rbind "$1" /home/way
mount -t tmpfs -o mode=0755 tmpfs "$2"
mkdir -p "$1"
mount --move /home/way "$1"
"""


class People:
    """Who is there, and what they run."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.env["RECONCILE_ROOT"] = "/var/lib/reconcile"
        world.nsenter("sh", "-c", _SET_UP, "sh", str(world.root))
        for path in (Path(sys.base_prefix), REPOSITORY, Path(sys.prefix)):
            closed = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001]
            if closed:
                world.nsenter("sh", "-c", _OPEN, "sh", str(path), str(closed[0]))
        python = f"exec {shlex.quote(sys.executable)} -m reconciler.cli.main"
        text = "\n".join(["#!/bin/sh", f"export PYTHONPATH={shlex.quote(str(REPOSITORY))}", f'{python} "$@"', ""])
        world.nsenter("sh", "-c", "cat >/home/bin/reconcile; chmod 755 /home/bin/reconcile", stdin=text)
        world.note_mounts()

    def enter(self, user: str) -> list[str]:
        """The command prefix of somebody's session, in his home."""
        number = _USERS[user]
        groups = f"--groups={_GROUP}" if user == "ann" else "--clear-groups"
        home = f"/home/{user}"
        path = f"PATH=/home/bin:{self.world.environment()['PATH']}"
        clean = [
            "env",
            "-i",
            f"--chdir={home}",
            path,
            f"HOME={home}",
            f"USER={user}",
            "LC_ALL=C.UTF-8",
            "RECONCILE_DEBUG=1",
        ]
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
    def sshd(self, settings: Sequence[str] = ()) -> Iterator[None]:
        """A real sshd on loopback, with keys of its own; ann and bob have one that it takes."""
        world, folder = self.world, self.world.folder
        for name in ("host", "other", "login"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True)
        for user in _USERS:
            self.write(user, ".ssh/id_ed25519", (folder / "login").read_text())
            self.know(user, "host")
        keys = (folder / "login.pub").read_text()
        world.nsenter("sh", "-c", "cat >/home/etc/keys; chmod 644 /home/etc/keys", stdin=keys)
        lines = [
            f"HostKey={folder}/host", "AuthorizedKeysFile=/home/etc/keys", "StrictModes=no", "UsePAM=no", f"Port={PORT}",
            "ListenAddress=127.0.0.1", "PasswordAuthentication=no", f"SetEnv=PATH=/home/bin:{os.defpath}", *settings,
        ]  # fmt: skip
        words = [word for line in lines for word in ("-o", line)]
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
