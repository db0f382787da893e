"""A controller whose machine is made of values and whose clock is the test's: keys are worked on in turn."""

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from reconciler.controller.keeper import ALL, Keeper, Policy
from reconciler.controller.queue import WorkQueue
from reconciler.controller.sources.directory import DirectorySource
from reconciler.converge import workers
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.errors import ReconcileError
from reconciler.model.events import AnyEvent, Note
from reconciler.verbs.root import Root, opened_root

MANIFEST = """\
apiVersion: reconcile/v1
name: {name}
containers:
  web: {{image: "{image}", command: [{command}], restart: always}}
"""


class Controlled:
    """A keeper over one folder, with a queue that the test runs."""

    def __init__(self, root: Root, folder: Path, policy: Policy) -> None:
        self.root, self.folder, self.policy = root, folder, policy
        self.now = 0.0
        self.announce: Callable[[str, str, str, str], None] = lambda *_: None
        self.events: list[AnyEvent] = []
        self.worked: list[tuple[float, str]] = []
        self.begin()

    def begin(self) -> None:
        """Start the controller, or start it anew: nothing is left of the one before but the root."""
        self.queue = WorkQueue(chance=lambda: 0.0)
        self.source = DirectorySource(self.folder, variables={})
        self.keeper = Keeper(
            self.root, [self.source], self.policy,
            renew=lambda key: self.queue.renew(key, self.now),
            add=lambda key, after: self.queue.add(key, self.now + after),
            tell=self.events.append,
            announce=lambda *told: self.announce(*told), clock=lambda: self.now,
        )  # fmt: skip
        for key in (f"source {self.source.name}", ALL):
            self.queue.add(key, self.now)

    @property
    def machine(self) -> Machine:
        assert isinstance(self.root.engine, MemoryEngine)
        return self.root.engine.machine

    def write(self, name: str, *, image: str = "box:1", command: str = "a", file: str = "") -> None:
        (self.folder / (file or f"{name}.yaml")).write_text(MANIFEST.format(name=name, image=image, command=command))

    def run(self, seconds: float) -> None:
        """Let so many seconds pass, and work on what is due in them."""
        end = self.now + seconds
        while (at := self.queue.next_at()) is not None and at <= end:
            self.now = max(self.now, at)
            key = self.queue.take(self.now)
            assert key is not None
            self.worked.append((self.now, key))
            try:
                again = self.keeper.work(key)
            except ReconcileError:
                self.queue.fail(key, self.now)
            else:
                self.queue.done(key)
                if again is not None:
                    self.queue.add(key, self.now + again)
        self.now = end

    def commands(self) -> dict[str, str]:
        """What runs, by the name of its stack."""
        live = [thing.made for thing in self.machine.containers.values() if thing.pid]
        return {made.key.split("/")[1]: made.spec.command[0] for made in live}  # type: ignore[union-attr, index]

    def notes(self) -> list[str]:
        """What was told and not by a driver's event, anew with each call."""
        found = [event.text for event in self.events if isinstance(event, Note)]
        self.events.clear()
        return found


@pytest.fixture
def open_controlled(tmp_path: Path) -> Iterator[object]:
    """Makes one, by its policy."""
    folder = tmp_path / "stacks"
    folder.mkdir()
    with opened_root(tmp_path / "root", create=True, engine="memory") as root:
        assert isinstance(root.engine, MemoryEngine)
        root.engine.machine.registry = {
            "docker.io/library/box:1": Published(digest="sha256:b0"),
            "docker.io/library/done:1": Published(digest="sha256:d0", exits=3),
        }
        # Nobody waits here for a second of running to pass.
        with mock.patch.object(workers, "GATHER", 0), mock.patch("reconciler.converge.waits.SEEN_AFTER", 0.0):
            yield lambda **policy: Controlled(root, folder, Policy(**policy))


@pytest.fixture
def controlled(open_controlled) -> Controlled:  # type: ignore[no-untyped-def]
    """One that heals."""
    return open_controlled()  # type: ignore[no-any-return]
