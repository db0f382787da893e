"""What goes wrong outside is said in one line, with what to do next; nothing half-made is left."""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.points import failing
from reconciler.engine.native import settle
from reconciler.engine.native.net import dns, veth
from reconciler.linux import netlink, nft
from reconciler.model.errors import Failed, ProgramFailed, ProgramMissing, Usage

pytestmark = pytest.mark.root


def test_missing_nft_is_named_with_its_package(machine, build, monkeypatch):
    monkeypatch.setattr(nft, "_PATH", "/nowhere")
    with pytest.raises(ProgramMissing) as failure:
        machine.up(build.network("front", 1))
    assert failure.value.brief == "firewall: the program nft is not installed"
    assert "apt-get install nftables" in failure.value.hint
    assert "babcde00000001" not in netlink.read_links(), "policy first, then links"


def test_missing_aardvark_is_named_with_its_package(machine, build, monkeypatch):
    monkeypatch.setattr(dns, "_PROGRAMS", "/nowhere")
    with pytest.raises(ProgramMissing, match="aardvark-dns is not installed"):
        machine.up(build.network("front", 1))


def test_x1_a_resolver_that_cannot_be_told_is_named_with_what_was_tried(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    with (
        failing("engine.native.net.dns.ensure_names/signal=1*raise(EIO)"),
        pytest.raises(Failed, match=r"names: tell aardvark-dns \(pid \d+\): Input/output error"),
    ):
        machine.up(build.network("back", 2))


def test_x1_a_resolver_that_cannot_be_started_is_named_with_what_was_tried(machine, build):
    with (
        failing("engine.native.net.dns._start/spawn=1*raise(EMFILE)"),
        pytest.raises(Failed, match=r"names: start aardvark-dns: Too many open files"),
    ):
        machine.up(build.network("front", 1))


def test_x1_a_file_of_the_firewall_that_stays_is_named_with_what_was_tried(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    with (
        failing("engine.native.net.firewall.remove_firewall/unlink=1*raise(EIO)"),
        pytest.raises(Failed, match=r"firewall: remove .*/firewall\.json: Input/output error"),
    ):
        machine.down(front)


def test_words_of_nft_are_kept(machine, build):
    front = build.network("front", 1)
    broken = build.container("web", front, ports={"0.0.0.0:99999/tcp": 80})
    machine.up(front)
    machine.mades["web"] = broken
    with pytest.raises((ProgramFailed, Failed, OverflowError)) as failure:
        settle.settle(machine.layout, machine.view)
    assert not isinstance(failure.value, OverflowError)
    del machine.mades["web"]
    assert machine.drift() == {}


def test_container_whose_bridge_is_gone_says_which_network(machine, build):
    front = build.network("front", 1)
    machine.up(front)
    subprocess.run(["/usr/sbin/ip", "link", "delete", front.grants.link], check=True)
    with pytest.raises(Failed, match=r"container/blog/web/1: join network/blog/front: its bridge babcde00000001 is not"):
        veth.prepare_links(machine.layout, build.container("web", front), machine.uses)


def test_a_link_of_others_with_the_bridges_name_is_left_alone(machine, build):
    subprocess.run(
        ["/usr/sbin/ip", "link", "add", "name", "babcde00000001", "type", "veth", "peer", "name", "x"], check=True
    )
    with pytest.raises(Failed, match="is no bridge"):
        machine.driver.create(build.network("front", 1), uses={}, emit=print)
    assert netlink.read_links()["babcde00000001"].kind == "veth"


def test_driver_that_is_not_built_is_refused_by_name(machine, build):
    with pytest.raises(Usage, match="macvlan is not built yet"):
        machine.driver.create(build.network("front", 1, driver="macvlan"), uses={}, emit=print)


def test_raising_links_that_are_gone_is_an_error_and_lowering_them_is_none(machine, build):
    front = build.network("front", 1)
    web = build.container("web", front)
    machine.up(front)
    veth.lower_links(machine.layout, web)
    veth.remove_links(machine.layout, web)
    with pytest.raises(Failed, match=r"container/blog/web/1: bring its links up: .*No such device"):
        veth.raise_links(machine.layout, web, machine.uses)


def test_fifty_containers_are_prepared_side_by_side(machine, build):
    front = build.network("front", 1)
    many = [build.container(f"c{number}", front, host=2 + number) for number in range(50)]
    machine.up(front)
    for made in many:
        machine.mades[made.key] = made
    settle.settle(machine.layout, machine.view)

    def make(made):
        veth.prepare_links(machine.layout, made, machine.uses)
        veth.raise_links(machine.layout, made, machine.uses)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, many))
    assert machine.drift() == {}
    machine.serve(many[0], 80)
    assert machine.call(many[49], "10.64.1.2", 80) == "10.64.1.51"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda made: veth.remove_links(machine.layout, made), many))
    assert not [name for name in netlink.read_links() if name.startswith("v")]
