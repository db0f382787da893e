"""Commands on another host: `--host ssh://USER@HOST`, over the streams of `ssh HOST reconcile dial`.

ssh does what it always does: keys, known hosts, what its configuration says. Nothing of ours listens on a network.
"""

import os
import re
import shlex
import socket
from pathlib import Path

import click

from reconciler.cli.context import read_contexts

_NAME = re.compile(
    r"(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?\Z", re.ASCII
)
"""What a host may be called: nothing that ssh could take for an option."""
REACHING = frozenset(
    "apply plan rollback drift delete status get describe logs exec attach run cp wait export stop start"  # noqa: SIM905
    " restart kill pause unpause pull images history events approve boot lock".split()
)
"""The commands that go through an API."""


AT_HOME = frozenset("context validate schema completion version dial".split())  # noqa: SIM905
"""The commands that ask no root, or are the far end of one that does."""

STAYS = {
    "serve": "it is what answers there: start it on that host",
    "backup": "it writes a file beside the root",
    "restore": "it makes a root, which nobody answers for yet",
    "recover": "it makes a database that nobody uses meanwhile",
    "keys": "keys leave no host and come to none",
    "doctor": "it looks at the machine that it runs on",
}
"""Why a command goes through no API."""


def choose_host(given: str, verb: str) -> str:
    """Where a command goes: a host or the name of one, several with commas for `status`; without any the context in use.
    Empty for this machine. Raises UsageError."""
    if verb in AT_HOME:
        return ""
    current, hosts = read_contexts()
    if not given:
        if current and verb not in REACHING:
            raise click.UsageError(f"`{verb}` goes to no other host, and the context {current} is in use: add --local")
        return hosts.get(current, "")
    names = given.split(",")
    if len(names) > 1 and verb != "status":
        raise click.UsageError(f"--host {given}: only `status` asks several")
    found = [hosts.get(name, name) for name in names]
    for host in found:
        check_host(host, verb)
    return ",".join(found)


def check_host(host: str, verb: str) -> None:
    """Refuse what can't be reached, and what does not go there. Raises UsageError."""
    if not host.startswith("unix:///"):
        _read_ssh(host)
    if verb not in REACHING:
        why = f" ({STAYS[verb]})" if verb in STAYS else ""
        there = f"`ssh {host} reconcile {verb} …`" if host.startswith("ssh://") else "run it on that host"
        raise click.UsageError(f"`{verb}` does not go through --host{why}: {there}")


def _read_ssh(host: str, *, asks: bool = True) -> list[str]:
    """`ssh://ann@db1:2222` → the words of ssh's command line; without `asks` it asks nobody anything. Raises UsageError."""
    found = _NAME.match(host.removeprefix("ssh://"))
    if not host.startswith("ssh://") or found is None:
        raise click.UsageError(f"--host {host}: expected ssh://USER@HOST, unix:///PATH or a name of `reconcile context`")
    words = ["ssh", "-T", *([] if asks else ["-o", "BatchMode=yes"])]
    words += ["-l", found["user"]] if found["user"] else []
    words += ["-p", found["port"]] if found["port"] else []
    return [*words, "--", found["host"]]


class Way:
    """The way to a host's API."""

    def __init__(self, host: str, root: Path | None, *, asks: bool = True) -> None:
        self.host = host
        self._asks = asks
        # The other end's shell reads this line: nothing stands in it unquoted that somebody chose.
        self._there = "reconcile " + (f"--root {shlex.quote(str(root))} " if root else "") + "dial"
        self._pid = 0

    def connect(self) -> socket.socket:
        """A socket behind which it is. Raises OSError."""
        from reconciler.linux import process

        if self.host.startswith("unix:///"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.connect(self.host.removeprefix("unix://"))
            except OSError:
                made.close()
                raise
            return made
        ours, theirs = socket.socketpair()
        with theirs:
            fds = {0: theirs.fileno(), 1: theirs.fileno(), 2: 2}
            try:
                self._pid = process.spawn(
                    [*_read_ssh(self.host, asks=self._asks), self._there], env=os.environ, cwd="/", fds=fds
                )
            except FileNotFoundError as error:
                ours.close()
                raise OSError(error.errno, "ssh is not installed here") from error
        return ours

    def explain(self) -> str:
        """What to do about a line that ended without an answer: ssh(1) ends with 255 by itself, else as what it ran."""
        from reconciler.linux import process

        if not self._pid:
            return "" if self.host.startswith("unix:///") else "it is in the package openssh-client"
        try:
            code = process.reap(self._pid, seconds=2)
        except (OSError, TimeoutError):
            code = 0
        if code == 255:
            return f"that is ssh's own word: `ssh {self.host} true` must work first"
        if code == 127:
            return f"no reconcile is installed there, or none in the PATH that `ssh {self.host} printenv PATH` shows"
        return "what stands above was said there"
