"""Small stacks, and a machine that they are applied to."""

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from lab.world import Result, World

BOX = "127.0.0.1:5000/busybox:1"
_numbers = count(1)


def container(*command: str, **fields: Any) -> dict[str, Any]:
    """A container that runs until it is told to end, or a command."""
    return {"image": BOX, "command": list(command) or ["pause"], "stop_grace": "0s", **fields}


def stack(name: str, containers: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
    return {"apiVersion": "reconcile/v1", "name": name, "containers": dict(containers), **rest}


class Machine:
    """A world, with stacks by fresh names."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.warm = world.spawn([sys.executable, str(Path(__file__).with_name("warm.py"))])

    def name(self) -> str:
        """A stack name that nobody has."""
        return f"s{next(_numbers)}"

    def write(self, name: str, containers: Mapping[str, Any], **rest: Any) -> str:
        """A manifest `NAME.yaml` in the folder in which commands run."""
        return self.world.write(stack(name, containers, **rest), f"{name}.yaml").name

    def applied(self, containers: Mapping[str, Any], **rest: Any) -> str:
        """A stack that is applied; its name. Its manifest is `NAME.yaml`."""
        name = self.name()
        self.run("apply", self.write(name, containers, **rest), "--yes", "--no-wait", check=0)
        return name

    def run(self, *arguments: str, stdin: str = "", check: int | None = None) -> Result:
        """Run `reconcile ARGUMENTS…`; with `check`, any other exit code is an assertion that shows the output."""
        files = [self.world.folder / f"stream-{name}" for name in ("in", "out", "err")]
        for path, text in zip(files, (stdin, "", ""), strict=True):
            path.write_text(text)
        environment = self.world.environment()
        request = {"arguments": arguments, "environment": environment, "streams": [str(path) for path in files]}
        assert self.warm.stdin is not None
        assert self.warm.stdout is not None
        self.warm.stdin.write(json.dumps(request).encode() + b"\n")
        self.warm.stdin.flush()
        answer = self.warm.stdout.readline()
        assert answer, "the process that runs commands has ended"
        out, err = (path.read_bytes().decode(errors="replace") for path in files[1:])
        result = Result(" ".join(("reconcile", *arguments)), int(answer), out, err)
        assert "Traceback (most recent call last)" not in err + out, str(result)
        assert check is None or result.code == check, f"expected exit {check}\n{result}"
        return result

    def close(self) -> None:
        """End the process that runs commands."""
        self.warm.communicate(timeout=20)

    def records(self) -> dict[str, dict[str, Any]]:
        """`get -o json` by key."""
        return {item["key"]: item for item in self.run("get", "-o", "json", check=0).json()}

    def record(self, name: str) -> dict[str, Any]:
        """One element of it, by key or `STACK/NAME` of a container."""
        return self.records()[name if name.count("/") > 1 else f"container/{name}/1"]

    def pid(self, name: str) -> int:
        """The pid (in the world) of a container that runs."""
        status = self.record(name)["status"]
        assert status["phase"] == "running", f"{name} is {status}"
        return int(status["pid"])

    def delete_everything(self) -> None:
        """Delete every stack with its volumes."""
        stacks = sorted({item["stack"] for item in self.records().values()})
        for name in stacks:
            self.run("delete", name, "--volumes", "--yes", check=0)

    def refused(self, code: int, *arguments: str, says: Sequence[str] = (), **options: Any) -> Result:
        """A command that ends with a code and says why as people must be told: no traceback, what it was, what to do."""
        result = self.run(*arguments, check=code, **options)
        assert result.err.strip(), str(result)
        assert "mistake in reconcile" not in result.err, str(result)
        for words in says:
            assert words in result.err, f"{words!r} is not said\n{result}"
        return result

    def on_terminal(
        self,
        *command: str,
        keys: Sequence[tuple[str, str]] = (),
        size: tuple[int, int] = (24, 80),
        env: Mapping[str, str] = {},
    ) -> tuple[int, str]:
        """Run a command of the world on a terminal of its own: its exit code and everything that the terminal showed.

        `keys` are pairs: what must stand there before what is typed then.
        """
        pid, terminal = pty.fork()
        if pid == 0:
            environment = self.world.environment({"TERM": "xterm-256color", **env})
            os.execvpe(self.world.enter[0], [*self.world.enter, *command], environment)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        shown = _converse(terminal, list(keys))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        return code, shown


def _converse(terminal: int, keys: list[tuple[str, str]]) -> str:
    shown, deadline, seen = b"", time.monotonic() + 30, 0
    while time.monotonic() < deadline:
        if keys and keys[0][0].encode() in shown[seen:]:
            seen = len(shown)
            os.write(terminal, keys.pop(0)[1].encode())
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:  # Kernel: EIO once the other end is closed.
                break
            if not data:
                break
            shown += data
    else:
        raise AssertionError(f"not done in time; it waits for {keys}\n{shown.decode(errors='replace')}")
    assert not keys, f"{keys} were never typed\n{shown.decode(errors='replace')}"
    return shown.decode(errors="replace")


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and the nanosecond of its last change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}
