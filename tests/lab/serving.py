"""A controller as a process in a world: what tests of any source of stacks need of it."""

import signal
import subprocess
from collections.abc import Callable

from lab.world import World, wait_until


class Serving:
    """A world in which at most one controller runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.running: subprocess.Popen[bytes] | None = None

    def launch(self, *flags: str) -> None:
        """Start it, and wait until it says so."""
        self.running = self.world.popen("serve", *flags)
        self.wait(lambda: self.status()["controller"] is not None, "it serves")

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """End it; its exit code, and what it logged."""
        assert self.running is not None
        self.world.signal(self.running, number)
        _, err = self.running.communicate(timeout=60)
        self.running, running = None, self.running
        return running.returncode, err.decode()

    def end(self) -> None:
        """End it, if it runs."""
        if self.running is not None:
            self.stop()

    def status(self) -> dict:
        """What `status` says."""
        found: dict = self.world.run("status", "-o", "json").json()
        return found

    def said(self) -> str:
        """What a person would look at."""
        return self.world.run("status").out + self.world.run("events").out

    def serves(self, port: int) -> bool:
        """Whether the page is served at a port of the host."""
        answer = self.world.nsenter("curl", "-s", "-m", "2", f"http://127.0.0.1:{port}/", check=False)
        return "It works" in answer.out

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until it holds, or a minute has gone."""
        wait_until(condition, what, self.said, seconds=60)
