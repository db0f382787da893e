"""The native engine: our drivers over one root, observed in bulk and settled together.

Puts together what `drivers/` and `settle.py` do for one kind each; knows the order in which things are looked at and
removed, and the run directory, a tmpfs of its own that goes with the last container and network.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from reconciler.engine.contents import PRESENT, ContentDriver, keep_nothing
from reconciler.engine.native import keepsakes, settle
from reconciler.engine.native.drivers.container import ContainerDriver
from reconciler.engine.native.drivers.image import ImageDriver
from reconciler.engine.native.drivers.network import NetworkDriver
from reconciler.engine.native.drivers.volume import VolumeDriver
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import foreign, pools
from reconciler.engine.native.net import ports as host_ports
from reconciler.engine.native.refusals import telling
from reconciler.engine.native.runtime.inside import NativeInside
from reconciler.engine.protocol import Driver, ReadContent, Recollection, Traits, Uses
from reconciler.linux import mounts, paths, process
from reconciler.model.errors import Failed
from reconciler.model.key import Key, Kind, kind_of
from reconciler.model.observation import MISSING, Observation, Part, Phase, Status, Stray
from reconciler.model.record import Made, View

ONLY_NEEDED_RUNNING = (Kind.CONTAINER, Kind.NETWORK)
"""The kinds that have something in the run directory."""


@telling(
    observe="look at the machine",
    settle="bring firewall and names to their form",
    lay_ground="make the run directory",
    settle_names="bring names to their form",
    sweep="remove strays",
    choose_subnets="choose subnets",
    check_subnet="look at the routes",
    remember="note what it is",
)
class NativeEngine:
    """Containers, networks, volumes and images of one root on this kernel."""

    traits = Traits(name="native")

    def __init__(self, layout: Layout, *, read_content: ReadContent = keep_nothing) -> None:
        self.layout = layout
        self.images = ImageDriver(layout)
        self.networks = NetworkDriver(layout)
        self.volumes = VolumeDriver(layout)
        self.containers = ContainerDriver(layout, read_content)
        self.contents = ContentDriver()
        self.inside = NativeInside(layout)
        self._claims = pools.Claims()

    def driver(self, kind: Kind) -> Driver:
        """The driver of anything but containers."""
        drivers: dict[Kind, Driver] = {
            Kind.IMAGE: self.images,
            Kind.NETWORK: self.networks,
            Kind.VOLUME: self.volumes,
            Kind.CONFIG: self.contents,
            Kind.SECRET: self.contents,
        }
        return drivers[kind]

    def observe(self, view: View, *, ports: Sequence[str] = (), of: Collection[Key] | None = None) -> Observation:
        """Look at everything of this root at once, or at some of it: bulk reads are the same then."""
        looked_at = view.made if of is None else [made for made in view.made if made.key in of]
        boot_id = process.read_boot_id()
        holders = host_ports.read_port_holders(ports, layout=self.layout) if ports else {}
        if not self.layout.root_id:  # a root that does not exist has nothing on the machine
            missing = {made.key: MISSING for made in looked_at}
            return Observation(statuses=missing, port_holders=holders, boot_id=boot_id)
        glimpse = Glimpse(self.layout)
        by_kind: dict[Kind, list[Made]] = {kind: [] for kind in Kind}
        for made in looked_at:
            by_kind[kind_of(made.key)].append(made)
        networks = {made.key: made for made in view.made if kind_of(made.key) is Kind.NETWORK}
        statuses, others = self.containers.observe(by_kind[Kind.CONTAINER], glimpse, networks=networks)
        statuses |= self.images.observe(by_kind[Kind.IMAGE], glimpse)
        statuses |= self.networks.observe(by_kind[Kind.NETWORK], glimpse)
        statuses |= self.volumes.observe(by_kind[Kind.VOLUME], glimpse)
        statuses |= {made.key: PRESENT for made in (*by_kind[Kind.CONFIG], *by_kind[Kind.SECRET])}
        for key, parts in settle.observe_settled(self.layout, view, glimpse).items():
            if key in statuses:
                statuses[key] = _with_parts(statuses[key], parts)
        return Observation(
            statuses=statuses,
            others=others,
            strays=tuple(self._strays(view, glimpse)) if of is None else (),
            port_holders=holders,
            boot_id=boot_id,
        )

    def _strays(self, view: View, glimpse: Glimpse) -> Iterable[Stray]:
        yield from self.containers.strays(view, glimpse)
        yield from self.networks.strays(view, glimpse)
        if not _needs_run(view):
            yield from settle.strays(self.layout, view, glimpse)
            if str(self.layout.run) in glimpse.mounts:
                yield Stray(kind="mount", name=str(self.layout.run))
            elif _is_empty(self.layout.run):
                yield Stray(kind="folder", name=str(self.layout.run))

    def settle(self, view: View, *, names: bool = True) -> None:
        """Policy first, names after; the run directory before both."""
        self.lay_ground(view)
        settle.settle(self.layout, view, names=names)

    def lay_ground(self, view: View) -> None:
        """The run directory."""
        if _needs_run(view):
            ensure_run(self.layout)

    def settle_names(self, view: View) -> None:
        """What a container is called is loaded while it is made."""
        settle.settle_names(self.layout, view)

    def sweep(self, view: View) -> Sequence[str]:
        """Containers before the networks that they sit on, tables and the run directory last."""
        glimpse = Glimpse(self.layout)
        done = []
        for stray in self.containers.strays(view, glimpse):
            self.containers.remove_stray(stray)
            done.append(f"removed {stray.kind} {stray.name}")
        for stray in self.networks.strays(view, Glimpse(self.layout)):
            self.networks.remove_stray(stray)
            done.append(f"removed {stray.kind} {stray.name}")
        settle.settle(self.layout, view)
        if not _needs_run(view):
            remove_run(self.layout)
        return done

    def choose_subnets(self, count: int, taken: Sequence[str]) -> Sequence[str]:
        """Free subnets of the pool, which other roots that look now avoid."""
        return self._claims.choose(count, taken)

    def check_subnet(self, key: Key, subnet: str) -> None:
        """Raise SubnetTaken where a route of the host overlaps it."""
        self._claims.claim(subnet)
        pools.check_subnet(self.layout, key, subnet)

    def remember(self, made: Made, uses: Uses, contents: Mapping[str, bytes]) -> None:
        """A small file beside it."""
        keepsakes.write_keepsake(self.layout, made, uses, contents)

    def recall(self) -> Recollection:
        """What the small files say."""
        return keepsakes.recall(self.layout)

    def read_warnings(self) -> Sequence[str]:
        """Chains of other programs that drop what our bridges forward."""
        return [
            f"{dropper.chain} drops forwarded packets: published ports may not answer, and containers reach nobody outside;"
            f" `{dropper.mend}` lets ours pass"
            for dropper in foreign.read_forward_droppers(self.layout.root_id)
        ]

    def close(self) -> None:
        """End pulls that are under way, and let connections, threads and claims go."""
        self.images.close()
        self.containers.close()
        self._claims.close()


def _with_parts(status: Status, parts: dict[str, Part]) -> Status:
    """Parts of policy and names of what is there; nothing can be said of them where it is not."""
    gone = status.phase in (Phase.MISSING, Phase.EXITED, Phase.CREATED)
    return status if gone else structs.replace(status, parts={**status.parts, **parts})


def _needs_run(view: View) -> bool:
    return any(kind_of(made.key) in ONLY_NEEDED_RUNNING for made in view.made)


def ensure_run(layout: Layout) -> None:
    """The run directory: `/run/reconcile/ROOTID`, 0700, a private tmpfs. Refused where the folder belongs to others."""
    try:
        layout.run.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        _check_ours(layout.run.parent)
        layout.run.mkdir(mode=0o700, exist_ok=True)
        if not mounts.is_mount_point(layout.run):
            _check_ours(layout.run)
            mounts.mount_tmpfs(layout.run, mode=0o700, secret=True)
            mounts.make_private(layout.run)
        for folder in (layout.bundles, layout.netns, layout.layer_mounts, layout.names, layout.runc):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Failed(
            f"{layout.run}: the run directory can't be made: {error.strerror}",
            hint="`reconcile doctor` says what is missing",
        ) from error


def _check_ours(folder: Path) -> None:
    """Raise Failed for a folder that others own or may write to: what is in a run directory is not for them to change."""
    if words := paths.say_whose(folder):
        raise Failed(
            f"{folder}: the run directory must be root's alone: {words}", hint=f"remove {folder}, or see whose it is"
        )


def _is_empty(folder: Path) -> bool:
    try:
        return not any(folder.iterdir())
    except OSError:
        return False


def remove_run(layout: Layout) -> None:
    """Let the run directory go: nothing runs any more. What is still mounted in it stays, and is told as a stray."""
    if mounts.is_mount_point(layout.run):
        for entry in reversed(mounts.read_mountinfo()):
            if entry.point.startswith(f"{layout.run}/"):
                with suppress(OSError):
                    mounts.unmount(entry.point)
        with suppress(OSError):
            mounts.unmount(layout.run)
    with suppress(OSError):  # Also where who unmounted it died before this.
        layout.run.rmdir()
        layout.run.parent.rmdir()


def open_engine(root: Path, *, run: Path, root_id: str, read_content: ReadContent) -> NativeEngine:
    """The native engine over a root; makes nothing."""
    return NativeEngine(Layout(root=root, run=run / (root_id or "none"), root_id=root_id), read_content=read_content)
