"""The native engine's ground: the real kernel in namespaces of its own, drifted with the hands that people have."""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grounds import Ground, Harm, Site, wait_for

from lab.images import Image, lab_images, push, save_oci
from lab.registry import Registry, start_registry
from reconciler.engine.native.engine import NativeEngine
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.net import dns
from reconciler.engine.native.net.question import ask_addresses
from reconciler.engine.native.runtime import bundle, conmon, contents, monitor
from reconciler.engine.registry import open_engine
from reconciler.linux import cgroups, mounts, netlink, process
from reconciler.model.record import Made
from reconciler.model.spec import ContainerSpec


class NativeGround(Ground):
    name = "native"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        root = folder / "root"
        root.mkdir(mode=0o700)
        engine = open_engine("native", root, folder / "run", self.root_id, read_content=self.read_content)
        assert isinstance(engine, NativeEngine)
        self.engine = engine
        self.layout: Layout = engine.layout
        self.registry: Registry | None = None
        self.listeners: list[socket.socket] = []

    def publish(self, source: str, *, ends: int | None = None) -> None:
        if Path(source).exists():
            return
        command = ["pause"] if ends is None else ["sh", "-c", f"exit {ends}"]
        base = lab_images()["busybox:1"]
        save_oci(Path(source), Path(source).stem, Image(base.layers, {"Cmd": command}))

    def serve(self, tag: str) -> None:
        self.registry = start_registry(self.folder / "served", self.folder / "registry")
        push(self.registry.url, tag.partition("/")[2], lab_images()["busybox:1"])

    def stop_serving(self) -> None:
        if self.registry is not None:
            self.registry.stop()
        self.registry = None

    def make_unstartable(self, made: Made) -> Made:
        return self.change(made, command=("/no/such/program",))

    def kill(self, made: Made) -> None:
        pid = self.status(made).pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")

    def mark_of(self, made: Made) -> str:
        return str(bundle.read_json(self.bundle(made), bundle.POLICY).get("mark", ""))

    def be_quiet(self, made: Made) -> None:
        wait_for(lambda: not self.monitors(made), "its monitor has ended")

    def open_ports(self) -> set[str]:
        listed = run("nft", "list", "ruleset")
        one = re.findall(r"([\d.]+) \. (tcp|udp) \. (\d+) : [\d.]+ \. \d+", listed)
        every = re.findall(r"[{,\s](tcp|udp) \. (\d+) : [\d.]+ \. \d+", re.sub(r"[\d.]+ \. (tcp|udp) \. \d+", "", listed))
        return {f"{host}:{port}/{kind}" for host, kind, port in one} | {f"0.0.0.0:{port}/{kind}" for kind, port in every}

    def ask_name(self, network: Made, name: str) -> set[str]:
        try:
            return ask_addresses(network.grants.gateway, name, timeout=2.0)
        except OSError:
            return set()

    def write_data(self, volume: Made, text: str) -> None:
        self.data_file(volume).write_text(text)

    def read_data(self, volume: Made) -> str:
        file = self.data_file(volume)
        return file.read_text() if file.exists() else ""

    def data_file(self, volume: Made) -> Path:
        return self.layout.volumes / volume.grants.volume_id / "data" / "file"

    def read_file(self, made: Made, target: str) -> tuple[str, int, int, int]:
        # Mounted in the container's namespace, which its first process leads into.
        proc = Path(f"/proc/{self.status(made).pid}")
        if f" {target} " not in (proc / "mountinfo").read_text():
            raise FileNotFoundError(target)  # there may be the empty file that the runtime made to mount on
        path = Path(f"{proc}/root{target}")
        found = path.stat()
        return path.read_text(), found.st_uid, found.st_gid, found.st_mode & 0o7777

    def copies(self, made: Made) -> set[bytes]:
        return {path.read_bytes() for path in Path(self.bundle(made), contents.FOLDER).iterdir()}

    def alter_file(self, made: Made, target: str) -> None:
        self.copy_of(made, target).write_text("altered")

    def remove_file(self, made: Made, target: str) -> None:
        self.copy_of(made, target).unlink()

    def copy_of(self, made: Made, target: str) -> Path:
        assert isinstance(made.spec, ContainerSpec)
        return Path(contents.file_paths(self.bundle(made), made.spec)[target])

    def signals(self, made: Made) -> int:
        lines = self.engine.inside.logs(made, tail=None, since=0.0, follow=False, stop=lambda: True)
        return sum(line.text == b"got it" for line in lines)

    def add_route(self, subnet: str) -> None:
        run("ip", "route", "add", subnet, "dev", "lo")

    def hold_port(self, port: str) -> None:
        host, _, number = port.partition("/")[0].rpartition(":")
        self.listeners.append(socket.create_server((host, int(number))))

    def read_remains(self) -> list[str]:
        for listener in self.listeners:
            listener.close()
        parent = monitor.cgroup_parent(self.layout)
        wait_for(lambda: not cgroups.exists(parent), f"the cgroup {parent} has gone")
        links = [line.partition(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
        points = [entry.point for entry in mounts.read_mountinfo() if entry.point.startswith(str(self.folder))]
        files = [str(path) for path in self.layout.root.rglob("*") if path.is_file() and not path.name.endswith("lock")]
        return [
            *(f"link {link}" for link in links if link[1:6] == self.root_id),
            *(f"mount {point}" for point in points),
            *(f"table {line}" for line in run("nft", "list", "tables").splitlines()),
            *(f"process {pid}" for pid in [dns.find_resolver(self.layout)] if pid),
            *(f"file {file}" for file in files),
        ]

    def bundle(self, made: Made) -> str:
        return str(self.layout.bundles / made.incarnation)

    def monitors(self, made: Made) -> list[int]:
        return conmon.find_makers(monitor.monitors_path(self.layout), made.incarnation)


_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_FS, _CLONE_NEWNS, _CLONE_NEWNET = 0x200, 0x20000, 0x40000000


@contextmanager
def namespaces_of_our_own() -> Iterator[None]:
    """This thread's mounts and links are its own, until the end; a loopback is there."""
    home = Path.cwd()
    own = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "mnt")]
    assert _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    try:
        mounts.make_private("/", recursive=True)
        netlink.send([netlink.link_change("lo", up=True)])
        yield
    finally:
        # Kernel: setns(2) into a mount namespace is EINVAL while a thread that was started in here shares our fs.
        assert _libc.unshare(_CLONE_FS) == 0, os.strerror(ctypes.get_errno())
        for number in own:
            assert _libc.setns(number, 0) == 0, os.strerror(ctypes.get_errno())
            os.close(number)
        os.chdir(home)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def ground_of(site: Site) -> NativeGround:
    assert isinstance(site.ground, NativeGround)
    return site.ground


def veth(site: Site) -> str:
    return site.web.grants.endpoints["front"].link


def inside(site: Site, *command: str) -> None:
    run("nsenter", f"--net=/proc/{site.pids()['web']}/ns/net", *command)


def bridge_removed(site: Site) -> None:
    run("ip", "link", "delete", site.front.grants.link)


def bridge_down(site: Site) -> None:
    run("ip", "link", "set", site.front.grants.link, "down")


def bridge_mtu(site: Site) -> None:
    run("ip", "link", "set", site.front.grants.link, "mtu", "1280")


def gateway_removed(site: Site) -> None:
    run("ip", "address", "flush", "dev", site.front.grants.link)


def veth_removed(site: Site) -> None:
    run("ip", "link", "delete", veth(site))


def veth_off_the_bridge(site: Site) -> None:
    run("ip", "link", "set", veth(site), "nomaster")


def veth_down(site: Site) -> None:
    run("ip", "link", "set", veth(site), "down")


def address_inside_removed(site: Site) -> None:
    inside(site, "ip", "address", "delete", "10.64.1.2/24", "dev", "eth0")


def route_inside_removed(site: Site) -> None:
    inside(site, "ip", "route", "delete", "default")


def mac_inside_changed(site: Site) -> None:
    inside(site, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:77")


def netns_unmounted(site: Site) -> None:
    run("umount", str(ground_of(site).layout.netns / site.web.incarnation))


def tables_flushed(site: Site) -> None:
    run("nft", "flush", "ruleset")


def port_closed(site: Site) -> None:
    table = next(line for line in run("nft", "list", "tables").splitlines() if "inet" in line).split()[1:]
    run("nft", "delete", "element", *table, "published", "{ 127.0.0.1 . tcp . 8080 }")


def rule_removed(site: Site) -> None:
    listed, table, chain = run("nft", "-a", "list", "ruleset"), "", ""
    for line in listed.splitlines():
        table = found[1] if (found := re.match(r"table (\w+ \S+) \{", line)) else table
        chain = found[1] if (found := re.match(r"\s+chain (\S+) \{", line)) else chain
        if "masquerade" in line and (found := re.search(r"# handle (\d+)$", line)):
            run("nft", "delete", "rule", *table.split(), chain, "handle", found[1])
            return
    raise AssertionError(listed)


def loopback_routed_no_more(site: Site) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{site.front.grants.link}/route_localnet").write_text("0")


def resolver_killed(site: Site) -> None:
    pid = dns.find_resolver(ground_of(site).layout)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}/exe").exists(), "the name service has ended")


def names_removed(site: Site) -> None:
    (ground_of(site).layout.names / site.front.grants.link).unlink()


def limit_raised(site: Site) -> None:
    place = cgroups.find_place(site.pids()["web"], "memory")
    for file in ("memory/{}/memory.memsw.limit_in_bytes", "memory/{}/memory.limit_in_bytes", "{}/memory.max"):
        with suppress(OSError):
            (Path("/sys/fs/cgroup") / file.format(place.strip("/"))).write_text(f"{512 << 20}")


def policy_removed(site: Site) -> None:
    Path(ground_of(site).bundle(site.web), bundle.POLICY).unlink()


def config_removed(site: Site) -> None:
    Path(ground_of(site).bundle(site.web), bundle.CONFIG).unlink()


def bundle_of_web(site: Site) -> Path:
    return Path(ground_of(site).bundle(site.web))


def overwrite(name: str) -> Callable[[Site], None]:
    """With what is no JSON, in place."""

    def hand(site: Site) -> None:
        (bundle_of_web(site) / name).write_bytes(b"\xff nobody wrote this\n")

    return hand


def say(name: str) -> Callable[[Site], None]:
    """With JSON that says something else."""

    def hand(site: Site) -> None:
        (bundle_of_web(site) / name).write_text('{"id": 7, "pid": "1", "restart": 5, "code": "x", "at": []}')

    return hand


def remove(name: str) -> Callable[[Site], None]:
    def hand(site: Site) -> None:
        (bundle_of_web(site) / name).unlink()

    return hand


def hosts_replaced(site: Site) -> None:
    """As an editor does: another file takes its name."""
    file = bundle_of_web(site) / "hosts"
    other = file.with_name("hosts~")
    other.write_bytes(file.read_bytes())
    other.rename(file)


def runtime_forgets(site: Site) -> None:
    shutil.rmtree(ground_of(site).layout.runc / site.web.incarnation)


def cgroup_of_web(site: Site, controller: str) -> Path:
    point = cgroups.find_controller("unified" if cgroups.is_v2() else controller)
    return Path(point + cgroups.find_place(site.pids()["web"], controller))


def pids_limited(site: Site) -> None:
    (cgroup_of_web(site, "pids") / "pids.max").write_text("3")


def moved_out_of_pids(site: Site) -> None:
    """On v2 out of all."""
    Path(cgroups.find_controller("pids"), "cgroup.procs").write_text(str(site.pids()["web"]))


def writable_layer_removed(site: Site) -> None:
    shutil.rmtree(ground_of(site).layout.containers / site.web.incarnation / "upper")


def ipv6_on(site: Site) -> None:
    Path(f"/proc/sys/net/ipv6/conf/{site.front.grants.link}/disable_ipv6").write_text("0")


def advertisements_believed(site: Site) -> None:
    Path(f"/proc/sys/net/ipv6/conf/{site.back.grants.link}/accept_ra").write_text("2")


def forwarding_off(site: Site) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


def hairpin_off(site: Site) -> None:
    run("bridge", "link", "set", "dev", veth(site), "hairpin", "off")


def volume_file_removed(site: Site) -> None:
    (ground_of(site).layout.volumes / site.data.grants.volume_id / "volume.json").unlink()


def volume_renamed(site: Site) -> None:
    folder = ground_of(site).layout.volumes / site.data.grants.volume_id
    file = folder / "volume.json"
    file.write_text(file.read_text().replace("volume/blog/data", "volume/blog/other"))


def layer_unmounted(site: Site) -> None:
    for point in ground_of(site).layout.layer_mounts.iterdir():
        run("umount", "-l", str(point))


def layer_removed(site: Site) -> None:
    for file in ground_of(site).layout.layers.iterdir():
        file.unlink() if file.is_file() else shutil.rmtree(file)


def monitor_killed(site: Site) -> None:
    [pid] = ground_of(site).monitors(site.web)
    start = process.read_start_time(pid)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not process.is_alive(pid, start), "the monitor has ended")


def root_unmounted(site: Site) -> None:
    run("umount", "-l", f"{ground_of(site).bundle(site.web)}/{bundle.ROOTFS}")


HARMS = (
    Harm("bridge removed", bridge_removed, ("front bridge",), reach=("front", "web")),
    Harm("bridge down", bridge_down, ("front bridge",), reach=("front",)),
    Harm("bridge mtu", bridge_mtu, ("front bridge",), reach=("front", "web")),
    Harm("gateway removed", gateway_removed, ("front address",), reach=("front", "web")),
    Harm("veth removed", veth_removed, ("web link/front",)),
    Harm("veth off the bridge", veth_off_the_bridge, ("web link/front",)),
    Harm("veth down", veth_down, ("web up/front",)),
    Harm("address inside removed", address_inside_removed, ("web address/front",)),
    Harm("route inside removed", route_inside_removed, ("web route",)),
    Harm("mac inside changed", mac_inside_changed, ("web link/front",)),
    Harm("netns unmounted", netns_unmounted, ("web netns",)),
    Harm("tables flushed", tables_flushed, ("front rules", "back rules"), reach=("front", "back", "web", "db")),
    Harm("port closed", port_closed, ("web port/127.0.0.1:8080/tcp",)),
    Harm("rule removed", rule_removed, ("front rules",), reach=("front", "back")),
    Harm("loopback routed no more", loopback_routed_no_more, ("front loopback",), reach=("front",)),
    Harm("resolver killed", resolver_killed, ("front names", "back names"), reach=("front", "back", "web", "db")),
    Harm("names removed", names_removed, ("front names",), reach=("front", "web")),
    Harm("limit raised", limit_raised, ("web limits/memory",)),
    Harm("pids limited", pids_limited, ("web limits/pids",)),
    Harm("moved out of a cgroup", moved_out_of_pids, ("web cgroup",)),
    Harm("policy removed", policy_removed, ("web policy",)),
    Harm("policy overwritten", overwrite("policy.json"), ("web policy",)),
    Harm("policy says something else", say("policy.json"), ("web policy",)),
    Harm("config removed", config_removed, ("web bundle",)),
    Harm("config overwritten", overwrite("config.json"), ("web bundle",)),
    Harm("record overwritten", say("container.json"), ("web bundle",)),
    Harm("monitor's file removed", remove("monitor.json"), ("web all",)),
    Harm("monitor's file says something else", say("monitor.json"), ("web all",)),
    Harm("hosts removed", remove("hosts"), ("web bundle",), "restart"),
    Harm("hosts replaced", hosts_replaced, ("web bundle",), "restart"),
    Harm("list of files overwritten", say("left.json"), ("web bundle",)),
    Harm("exit command removed", remove("on-exit"), ("web exit-command",)),
    Harm("runtime forgets", runtime_forgets, ("web runtime",), "restart"),
    Harm("writable layer removed", writable_layer_removed, ("web mount",), "restart"),
    Harm("ipv6 on", ipv6_on, ("front ipv6",), reach=("front",)),
    Harm("advertisements believed", advertisements_believed, ("back ipv6",), reach=("back",)),
    Harm("forwarding off", forwarding_off, ("front forwarding", "back forwarding"), reach=("front", "back")),
    Harm("hairpin off", hairpin_off, ("web link/front",)),
    Harm("volume's file removed", volume_file_removed, ("data file",), reach=("data",)),
    Harm("volume's key changed", volume_renamed, ("data file",), reach=("data",)),
    Harm("layer unmounted", layer_unmounted, ("web mount", "db mount"), reach=("web", "db")),
    Harm("layer removed", layer_removed, ("box layers",), reach=("box",)),
    Harm("monitor killed", monitor_killed, ("web monitor",), "restart"),
    Harm("root unmounted", root_unmounted, ("web mount",), "restart"),
)
