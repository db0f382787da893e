"""Debian's docker-registry as a child process on a loopback port, in whichever namespace it is wanted."""

import json
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

PASSWORD = "secret"
"""The password of the one user, `lab`, of a registry that wants one."""
HTPASSWD = "lab:$2y$05$ZnZ9cVVC1eVk2GYXdGkG2.1qa7OLzWiRzPr91GPawPJmTotcacEtO"


class RegistryDied(Exception):
    """It ended, or did not listen in time; the message is its log."""


class Registry:
    """One running registry. `stop` ends it, by its own pid, and leaves its storage."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    @property
    def host(self) -> str:
        """`127.0.0.1:5000`, as references begin."""
        return self.url.partition("://")[2]

    def stop(self) -> None:
        """End it and wait for that."""
        self.process.terminate()
        self.process.wait(10)


def start_registry(
    storage: Path, scratch: Path, *, port: int = 5000, enter: Sequence[str] = (), auth: bool = False
) -> Registry:
    """Serve `storage` on 127.0.0.1:`port`; returns once it listens. `enter` is the command prefix that leads into a
    namespace. Config and log lie in `scratch`. Raises RegistryDied."""
    scratch.mkdir(parents=True, exist_ok=True)
    storage.mkdir(parents=True, exist_ok=True)
    config, log = scratch / "registry.yml", scratch / "registry.log"
    config.write_text(json.dumps(render_config(storage, scratch, port=port, auth=auth)))  # JSON is YAML
    with log.open("wb") as out:
        command = [*enter, "docker-registry", "serve", str(config)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_until_listening(process, log)
    except RegistryDied:
        process.kill()
        process.wait(10)
        raise
    return Registry(process, f"http://127.0.0.1:{port}", log)


def render_config(storage: Path, scratch: Path, *, port: int, auth: bool) -> dict[str, object]:
    """The registry's configuration; writes the password file beside it where one is wanted."""
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(storage)},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"127.0.0.1:{port}", "secret": "the same for all that share a storage"},
    }
    if auth:
        (scratch / "htpasswd").write_text(HTPASSWD + "\n")
        config["auth"] = {"htpasswd": {"realm": "lab", "path": str(scratch / "htpasswd")}}
    return config


def wait_until_listening(process: "subprocess.Popen[bytes]", log: Path, *, seconds: float = 20) -> None:
    """Return once the registry says that it listens: its log is the one sign that works from every namespace."""
    deadline = time.monotonic() + seconds
    while b"listening on" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RegistryDied(log.read_text())
        time.sleep(0.01)  # a poll with a deadline


def free_port(preferred: int) -> int:
    """`preferred` if nobody listens there, else a port that is free now."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")
