"""A machine of its own for each test: namespaces, a root, a neighbour on its LAN; containers are namespaces only."""

import ctypes
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from reconciler.engine.native import settle
from reconciler.engine.native.drivers.network import NetworkDriver
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import dns, veth
from reconciler.engine.native.net.insides import Insides
from reconciler.linux import mounts, namespaces, netlink
from reconciler.linux.nlsocket import NetlinkSocket
from reconciler.linux.sysctls import write_sysctl
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.observation import Part
from reconciler.model.record import Endpoint, Grants, Made, View
from reconciler.model.spec import Attachment, ContainerSpec, NetworkSpec

ROOT_ID = "abcde"
_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000


@pytest.fixture
def build() -> SimpleNamespace:
    """Builders of networks and containers with grants as the store would give them."""
    return SimpleNamespace(network=network, container=container, root_id=ROOT_ID)


def network(name: str, number: int, *, subnet: str = "", stack: str = "blog", **spec: object) -> Made:
    base = subnet or f"10.64.{number}.0/24"
    first = base.rpartition(".")[0]
    return Made(
        key=make_key(Kind.NETWORK, stack, name),
        spec=NetworkSpec(**spec),  # type: ignore[arg-type]  # a builder takes any field
        grants=Grants(link=f"b{ROOT_ID}{number:08d}", subnet=base, gateway=f"{first}.1"),
    )


def container(
    name: str,
    *networks: Made,
    host: int = 2,
    ports: dict[str, int] | None = None,
    incarnation: str = "",
    aliases: tuple[str, ...] = (),
    stack: str = "blog",
    index: int = 1,
    spec: dict[str, object] | None = None,
    **fields: object,
) -> Made:
    """A container that is `.host` on each network."""
    incarnation = incarnation or hashlib.sha256(f"{name} {host}".encode()).hexdigest()[:12]
    endpoints, joined = {}, {}
    for place, made in enumerate(networks):
        label = made.key.rpartition("/")[2]
        joined[label] = Attachment(aliases=aliases)
        if made.spec.driver == "bridge":  # type: ignore[union-attr]  # it is a network
            address = f"{made.grants.subnet.rpartition('.')[0]}.{host}"
            mac = "02:00:" + socket.inet_aton(address).hex(":")
            endpoints[label] = Endpoint(address=address, mac=mac, link=f"v{ROOT_ID}{incarnation[:8]}{place}")
    return Made(
        key=container_key(stack, name, index),
        spec=ContainerSpec(image="app", networks=joined, ports=ports or {}, **(spec or {})),
        grants=Grants(endpoints=endpoints),
        incarnation=incarnation,
        **fields,  # type: ignore[arg-type]  # a builder takes any field
    )


class Machine:
    """A host with an uplink `eth0` (192.0.2.2) and a neighbour on it (192.0.2.9), which is its way to everywhere."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "root", folder / "run", ROOT_ID)
        self.layout.root.mkdir()
        self.layout.run.mkdir(mode=0o700)
        mounts.mount_tmpfs(self.layout.run)
        self.driver = NetworkDriver(self.layout)
        self.neighbour = folder / "run" / "neighbour"
        self.mades: dict[str, Made] = {}
        self.stack = ExitStack()
        self.insides: Insides | None = None
        _make_uplink(self.neighbour)

    @property
    def view(self) -> View:
        return View(made=tuple(self.mades.values()))

    def up(self, *mades: Made) -> None:
        """What converge does: policy, bridges, names, containers."""
        for made in mades:
            self.mades[made.key + made.incarnation] = made
        settle.settle(self.layout, self.view, names=False)
        for made in mades:
            if isinstance(made.spec, NetworkSpec):
                self.driver.create(made, uses={}, emit=print)
        settle.settle(self.layout, self.view)
        for made in mades:
            if isinstance(made.spec, ContainerSpec):
                veth.prepare_links(self.layout, made, self.uses)
                veth.raise_links(self.layout, made, self.uses)

    def down(self, *mades: Made) -> None:
        for made in mades:
            del self.mades[made.key + made.incarnation]
        settle.settle(self.layout, self.view)
        for made in sorted(mades, key=lambda made: made.key):
            if isinstance(made.spec, NetworkSpec):
                self.driver.delete(made)
            else:
                veth.remove_links(self.layout, made)

    @property
    def uses(self) -> dict[Key, Made]:
        return {made.key: made for made in self.mades.values() if isinstance(made.spec, NetworkSpec)}

    def observe(self) -> dict[Key, dict[str, Part]]:
        """All parts by key, links and settled ones together."""
        glimpse = Glimpse(self.layout)
        parts = settle.observe_settled(self.layout, self.view, glimpse)
        containers = [made for made in self.mades.values() if isinstance(made.spec, ContainerSpec)]
        if self.insides is None:  # It listens from the second look on.
            self.insides = Insides()
            self.stack.callback(self.insides.close)
            self.insides.begin()
        links = veth.observe_links(self.layout, containers, glimpse, networks=self.uses, insides=self.insides)
        assert links == veth.observe_links(self.layout, containers, glimpse, networks=self.uses)
        for made in containers:
            parts.setdefault(made.key, {}).update(links[made.incarnation])
        for key, status in self.driver.observe(list(self.uses.values()), glimpse).items():
            parts.setdefault(key, {}).update(status.parts)
        return parts

    def drift(self) -> dict[str, Part]:
        """What is not as made, as `KEY PART`."""
        return {
            f"{key} {name}": part
            for key, parts in self.observe().items()
            for name, part in parts.items()
            if part.state != "present"
        }

    def mend(self) -> None:
        self.up(*self.mades.values())

    def inside(self, where: Made | Path | None, work: Callable[[], object]) -> object:
        """Do something in a container's network namespace, the neighbour's, or the host's."""
        if where is None:
            return work()
        path = veth.netns_path(self.layout, where) if isinstance(where, Made) else where
        number = namespaces.open_netns(path)
        try:
            with namespaces.entered(number):
                return work()
        finally:
            os.close(number)

    def serve(self, where: Made | Path | None, port: int, *, address: str = "0.0.0.0") -> None:
        """Answer every connection to a port with the address that it comes from."""
        listener = self.inside(where, lambda: socket.create_server((address, port)))
        assert isinstance(listener, socket.socket)
        server = threading.Thread(target=_answer, args=(listener,))
        server.start()
        # Order: woken, waited for, closed; a thread that lives would keep this one in its mount namespace.
        self.stack.callback(listener.close)
        self.stack.callback(server.join)
        self.stack.callback(listener.shutdown, socket.SHUT_RDWR)

    def call(self, where: Made | Path | None, address: str, port: int, *, patience: float = 5.0) -> str:
        """Connect from somewhere: what the server said of our address, `refused`, or `silence`."""
        channel = self.inside(where, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        assert isinstance(channel, socket.socket)
        with channel:
            channel.settimeout(patience)
            try:
                channel.connect((address, port))
                return channel.recv(100).decode()
            except TimeoutError:
                return "silence"
            except OSError as failure:
                return "refused" if failure.errno == 111 else (failure.strerror or "")

    def silent(self, where: Made | Path | None, address: str, port: int) -> bool:
        """Whether nothing comes back within a while in which a first answer would long be here."""
        return self.call(where, address, port, patience=0.4) in ("silence", "No route to host", "Network is unreachable")

    def send_inside(self, where: Made | Path, changes: Sequence[object]) -> None:
        self.inside(where, lambda: netlink.send(changes))  # type: ignore[arg-type]  # changes they are

    def close(self) -> None:
        self.stack.close()
        pid = dns.find_resolver(self.layout)
        if pid:
            dns.remove_names(self.layout)


def _answer(listener: socket.socket) -> None:
    with suppress(OSError):
        while True:
            channel, peer = listener.accept()
            with channel:
                channel.sendall(peer[0].encode())


def _make_uplink(path: Path) -> None:
    with namespaces.created(path):
        netlink.send([netlink.link_change("lo", up=True)])
    number = namespaces.open_netns(path)
    try:
        netlink.send([netlink.link_change("lo", up=True), netlink.bridge_creation("lan", mac="02:00:00:00:00:99")])
        lan = netlink.read_link("lan")
        assert lan is not None
        # The host's side of the LAN is a bridge here, with the neighbour as its port: as good as a cable.
        netlink.send(
            [
                netlink.veth_creation(
                    "cable", master=lan.index, mtu=1400, peer="eth0", peer_mac="02:00:00:00:00:98", netns=number
                ),
                netlink.link_change("cable", up=True),
                netlink.link_change("lan", up=True, mtu=1400),
                netlink.address_addition(lan.index, "192.0.2.2/24"),
                netlink.default_route("192.0.2.9", lan.index),
            ]
        )
        with namespaces.entered(number), NetlinkSocket() as opened:
            eth0, lo = netlink.read_link("eth0", opened), netlink.read_link("lo", opened)
            assert eth0 is not None
            assert lo is not None
            netlink.send(
                [
                    netlink.address_addition(eth0.index, "192.0.2.9/24"),
                    netlink.address_addition(lo.index, "203.0.113.1/32"),
                    netlink.link_change("eth0", up=True),
                    # It takes the host for the way to its containers, and to its loopback.
                    netlink.default_route("192.0.2.2", eth0.index),
                ],
                opened,
            )
    finally:
        os.close(number)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine in namespaces of its own; this thread's come back afterwards."""
    home = Path.cwd()
    own = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt")]
    assert _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        mounts.make_private("/", recursive=True)
        made = Machine(tmp_path)
        try:
            yield made
        finally:
            made.close()
    finally:
        # Kernel: setns(2) into a mount namespace is EINVAL while a thread that was started in here shares our fs.
        assert _libc.unshare(_CLONE_FS) == 0, os.strerror(ctypes.get_errno())
        for number in own:
            assert _libc.setns(number, 0) == 0, os.strerror(ctypes.get_errno())
            os.close(number)
        os.chdir(home)


@pytest.fixture(params=["0", "1"], ids=["nf-call-off", "nf-call-on"])
def either_machine(machine: Machine, request: pytest.FixtureRequest) -> Machine:
    """The machine with bridge-nf-call-iptables off, and on."""
    try:
        write_sysctl("bridge/bridge-nf-call-iptables", request.param)
    except FileNotFoundError:
        if request.param == "1":
            pytest.skip("because this kernel has no br_netfilter")
    return machine
