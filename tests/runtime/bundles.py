"""Real bundles for tests: a root with busybox in a folder, the real runc and conmon, a root id of its own."""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime import bundle, lifecycle, monitor, status, writing
from reconciler.linux import cgroups, process
from reconciler.model.key import container_key
from reconciler.model.observation import Phase, Status
from reconciler.model.record import ApplyId, Made
from reconciler.model.spec import ContainerSpec

_APPLETS = (
    "sh",
    "sleep",
    "setsid",
    "true",
    "false",
    "cat",
    "echo",
    "id",
    "ls",
    "env",
    "pwd",
    "stty",
    "seq",
    "touch",
    "grep",
    "ps",
    "test",
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nweb:x:33:app\n"


def this_apply() -> ApplyId:
    pid = os.getpid()
    return ApplyId(pid=pid, start_time=process.read_start_time(pid), boot_id=process.read_boot_id())


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.003)


class Bundles:
    """Bundles of one root in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(root=folder / "root", run=folder / "run", root_id=secrets.token_hex(3)[:5])
        self.made: list[Made] = []
        for path in (self.layout.root, self.layout.run, self.layout.bundles, self.layout.runc):
            path.mkdir(mode=0o700)
        (folder / "image" / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", folder / "image" / "bin" / "busybox")
        self.image = folder / "image"
        self.image_config: dict[str, object] = {}

    def make(self, *command: str, key: str = "", **spec: object) -> Made:
        """A bundle, written, nothing running."""
        spec.setdefault("stop_grace", 0.2)
        made = Made(
            key=container_key("blog", key or f"c{len(self.made)}"),
            spec=ContainerSpec(image="busybox", command=command or ("sleep", "1000"), **spec),  # type: ignore[arg-type]  # keywords of the spec
            incarnation=secrets.token_hex(6),
        )
        self.made.append(made)
        self._make_root(self.path(made))
        self.write(made)
        return made

    def _make_root(self, path: Path) -> None:
        rootfs = path / bundle.ROOTFS
        for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "home/app"):
            (rootfs / folder).mkdir(parents=True)
        os.link(self.image / "bin" / "busybox", rootfs / "bin" / "busybox")
        for applet in _APPLETS:
            (rootfs / "bin" / applet).symlink_to("busybox")
        (rootfs / "etc" / "passwd").write_text(PASSWD)
        (rootfs / "etc" / "group").write_text(GROUP)

    def write(self, made: Made) -> None:
        network = writing.Network(on_host=True, addresses=(), gateways=())
        writing.write_bundle(self.layout, made, {"config": self.image_config}, network, {})

    def path(self, made: Made) -> Path:
        return self.layout.bundles / made.incarnation

    def run(self, made: Made) -> Status:
        with lifecycle.locked(str(self.path(made)), made.key, doing="start"):
            return lifecycle.run(str(self.path(made)), made.key)

    def halt(self, made: Made, mark: str, apply: ApplyId | None = None, number: int = 15) -> Status:
        with lifecycle.locked(str(self.path(made)), made.key, doing="stop"):
            return lifecycle.halt(
                str(self.path(made)), mark=mark, apply=apply or this_apply(), number=number, grace=made.spec.stop_grace
            )

    def end(self, made: Made) -> None:
        lifecycle.end(str(self.path(made)), key=made.key, apply=this_apply(), number=9, grace=1.0)

    def status(self, made: Made) -> Status:
        return status.read_status(str(self.path(made)), made.incarnation)

    def state(self, made: Made) -> dict[str, object]:
        return bundle.read_json(str(self.path(made)), bundle.STATE)

    def log(self, made: Made) -> str:
        path = self.layout.containers / made.incarnation / "logs" / "container.log"
        return path.read_text() if path.exists() else ""

    def kill(self, made: Made, number: int = 9) -> None:
        now = self.status(made)
        os.kill(now.pid, number)

    def wait_exited(self, made: Made) -> Status:
        def rests() -> bool:
            now = self.status(made)  # Race: one look, for between two it may run again.
            return now.phase is Phase.EXITED and not now.restarting

        wait_for(rests)
        return self.status(made)

    def monitors(self) -> set[int]:
        return cgroups.list_processes(monitor.monitors_path(self.layout))

    def close(self) -> None:
        """End everything, and see that nothing of it is left on the machine."""
        for made in self.made:
            if self.path(made).exists():
                self.end(made)
        wait_for(lambda: not self.monitors())
        cgroups.remove_if_empty(monitor.monitors_path(self.layout))
        cgroups.remove_if_empty(monitor.cgroup_parent(self.layout))
        assert not cgroups.exists(monitor.cgroup_parent(self.layout)), "a cgroup is left"
        assert not list(self.layout.runc.iterdir()), "runc still knows a container"


@pytest.fixture
def bundles(tmp_path: Path) -> Iterator[Bundles]:
    """Bundles of a root of its own; what a test leaves running is ended, and nothing may stay."""
    if os.geteuid() != 0:
        pytest.skip("because it needs root")
    for program in ("runc", "conmon", "busybox"):
        if shutil.which(program) is None:
            pytest.skip(f"because {program} is not installed")
    made = Bundles(tmp_path)
    yield made
    made.close()
