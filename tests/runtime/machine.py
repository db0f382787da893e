"""A root with a real image, a bridge and the container driver, in network and mount namespaces of its own."""

import atexit
import ctypes
import os
import secrets
import shutil
import tempfile
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from lab import images as lab
from reconciler.engine.native import engine
from reconciler.engine.native.drivers.container import ContainerDriver
from reconciler.engine.native.drivers.image import ImageDriver
from reconciler.engine.native.drivers.network import NetworkDriver
from reconciler.engine.native.drivers.volume import VolumeDriver
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.runtime.inside import NativeInside
from reconciler.engine.native.runtime.monitor import cgroup_parent
from reconciler.linux import cgroups, mounts
from reconciler.model.events import silent
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.observation import Status
from reconciler.model.record import Endpoint, Grants, Made
from reconciler.model.spec import Attachment, ContainerSpec, ImageSpec, NetworkSpec, VolumeSpec

_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000


def alone(work: Callable[[], object]) -> None:
    """Run `work` in a child whose mounts and network are its own; its failure is ours."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(_work_alone(work, write_end))
    os.close(write_end)
    with os.fdopen(read_end) as said:
        words = said.read()
    assert os.waitpid(child, 0)[1] == 0, words


def _work_alone(work: Callable[[], object], write_end: int) -> int:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        mounts.make_private("/", recursive=True)
        work()
    except BaseException:  # noqa: BLE001 - a child of fork must not return into pytest
        os.write(write_end, traceback.format_exc().encode())
        return 1
    return 0


@lru_cache
def save_image(name: str) -> Path:
    """An archive with an image of the lab, made once a session."""
    archive = Path(tempfile.mkdtemp(prefix="reconcile-lab-")) / "image.tar"
    atexit.register(shutil.rmtree, archive.parent)
    lab.save_docker(archive, name, lab.lab_images()[name])
    return archive


class Machine:
    """One root in this process's namespaces."""

    def __init__(self, folder: Path) -> None:
        root_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(5))
        self.layout = Layout(root=folder / "root", run=folder / "run" / root_id, root_id=root_id)
        self.layout.root.mkdir(mode=0o700)
        engine.ensure_run(self.layout)
        self.containers, self.inside = ContainerDriver(self.layout), NativeInside(self.layout)
        self.networks, self.volumes, self.images = (
            NetworkDriver(self.layout), VolumeDriver(self.layout), ImageDriver(self.layout),
        )  # fmt: skip
        self.made: list[Made] = []
        self.uses: dict[Key, Made] = {}
        self.digests: dict[str, str] = {}
        self._network()

    def _network(self) -> None:
        grants = Grants(link=f"b{self.layout.root_id}00000000", subnet="10.99.0.0/16", gateway="10.99.0.1")
        self.network = Made(key=make_key(Kind.NETWORK, "blog", "default"), spec=NetworkSpec(), grants=grants)
        self.networks.create(self.network, uses={}, emit=silent)
        self.uses[self.network.key] = self.network

    def image(self, name: str) -> str:
        """Load an image of the lab: its digest."""
        if name not in self.digests:
            spec, key = ImageSpec(archive=str(save_image(name))), make_key(Kind.IMAGE, "blog", name)
            digest = self.images.resolve(key, spec, recorded="", offline=True).digest
            self.images.create(Made(key=key, spec=spec, image=digest), uses={}, emit=silent)
            self.digests[name] = digest
        return self.digests[name]

    def volume(self, name: str) -> Made:
        """A managed volume of the stack."""
        key = make_key(Kind.VOLUME, "blog", name)
        made = Made(key=key, spec=VolumeSpec(), grants=Grants(volume_id=secrets.token_hex(6)))
        self.volumes.create(made, uses={}, emit=silent)
        self.uses[key] = made
        return made

    def make(self, name: str, *command: str, image: str = "busybox:1", network: str = "default", **spec: object) -> Made:
        """A record of a container, granted an address of the network; nothing is made yet."""
        incarnation, number = secrets.token_hex(6), len(self.made) + 2
        spec.setdefault("stop_grace", 0.2)
        endpoint = Endpoint(
            address=f"10.99.1.{number}",
            mac=f"02:00:0a:63:01:{number:02x}",
            link=f"v{self.layout.root_id}{incarnation[:8]}0",
        )
        made = Made(
            key=container_key("blog", name),
            spec=ContainerSpec(
                image=image,
                command=command or ("sleep", "1000"),
                networks={network: Attachment()},
                **spec,  # type: ignore[arg-type]  # keywords of the spec
            ),
            image=self.image(image),
            incarnation=incarnation,
            grants=Grants(endpoints={network: endpoint} if network == "default" else {}),
        )
        self.made.append(made)
        return made

    def up(self, made: Made) -> Status:
        """Prepare and start."""
        self.containers.prepare(made, uses=self.uses, emit=silent)
        return self.containers.start(made, uses=self.uses)

    def look(self, *mades: Made) -> dict[Key, Status]:
        """Statuses with parts."""
        return self.containers.observe(mades, Glimpse(self.layout), networks=self.uses)[0]

    def wrong(self, made: Made) -> dict[str, str]:
        """The parts that are not present, by name, with their mend."""
        parts = self.look(made)[made.key].parts
        return {name: f"{part.state} {part.mend}" for name, part in parts.items() if part.state != "present"}

    def close(self) -> None:
        """Remove everything, and see that nothing is left."""
        for made in self.made:
            self.containers.delete(made)
        self.networks.delete(self.network)
        self.images.close()
        engine.remove_run(self.layout)
        left = [entry.point for entry in mounts.read_mountinfo() if self.layout.root_id in entry.point]
        assert not left, left
        assert not cgroups.exists(cgroup_parent(self.layout)), "a cgroup is left"
        assert not self.layout.run.exists()
        assert not list(self.layout.containers.iterdir())
