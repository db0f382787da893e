"""Each part of a network that others can take away is named, from what to what, and mended beneath what runs."""

import subprocess

import pytest

from reconciler.engine.native import settle
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.net import veth
from reconciler.engine.native.net.bridge import bridge_mac
from reconciler.engine.native.net.foreign import read_forward_droppers
from reconciler.linux import namespaces, netlink
from reconciler.linux import nft as nft_tables
from reconciler.linux.sysctls import read_sysctl, write_sysctl
from reconciler.model.observation import Stray

pytestmark = pytest.mark.root

FRONT, BACK, WEB = "network/blog/front", "network/blog/back", "container/blog/web/1"


def ip(*arguments):
    subprocess.run(["/usr/sbin/ip", *arguments], check=True)


def nft(text):
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=text.encode(), check=True)


@pytest.fixture
def blog(machine, build):
    """A machine with two networks and a container on both that publishes two ports."""
    front, back = build.network("front", 1), build.network("back", 2, icc=False)
    web = build.container(
        "web", front, back, ports={"0.0.0.0:8080/tcp": 80, "127.0.0.1:5353/udp": 53}, incarnation="1" * 12
    )
    machine.up(front, back, web)
    machine.front, machine.back, machine.web = front, back, web
    machine.link = web.grants.endpoints["front"].link
    assert machine.drift() == {}
    return machine


def words(part):
    return (part.state, part.field, part.old, part.new)


OUTSIDE = {
    "bridge deleted": (
        lambda m: ip("link", "delete", m.front.grants.link),
        {
            f"{FRONT} bridge": ("missing", "", "", ""),
            f"{FRONT} address": ("missing", "", "", ""),
            f"{WEB} link/front": ("altered", "bridge", "babcde00000001", "none"),
        },
    ),
    "bridge down": (
        lambda m: ip("link", "set", m.front.grants.link, "down"),
        {f"{FRONT} bridge": ("altered", "state", "up", "down")},
    ),
    "bridge's MTU": (
        lambda m: ip("link", "set", m.front.grants.link, "mtu", "1300"),
        {
            f"{FRONT} bridge": ("altered", "mtu", "1400", "1300"),
            f"{WEB} link/front": ("altered", "mtu", "1300", "1400"),
        },
    ),
    "bridge's MAC": (
        lambda m: ip("link", "set", m.front.grants.link, "address", "02:00:00:00:00:07"),
        {f"{FRONT} bridge": ("altered", "mac", bridge_mac("babcde00000001"), "02:00:00:00:00:07")},
    ),
    "gateway address gone": (
        lambda m: ip("addr", "flush", "dev", m.front.grants.link),
        {f"{FRONT} address": ("missing", "", "", "")},
    ),
    "gateway address another": (
        lambda m: (
            ip("addr", "flush", "dev", m.front.grants.link),
            ip("addr", "add", "10.64.1.7/24", "dev", m.front.grants.link),
        ),
        {f"{FRONT} address": ("altered", "address", "10.64.1.1/24", "10.64.1.7/24")},
    ),
    "forwarding off": (
        lambda _: write_sysctl("ipv4/ip_forward", "0"),
        {
            f"{FRONT} forwarding": ("altered", "ipv4/ip_forward", "1", "0"),
            f"{BACK} forwarding": ("altered", "ipv4/ip_forward", "1", "0"),
        },
    ),
    "loopback routing off": (
        lambda m: write_sysctl(f"ipv4/conf/{m.back.grants.link}/route_localnet", "0"),
        {f"{BACK} loopback": ("altered", "route_localnet", "1", "0")},
    ),
    "port off the bridge": (
        lambda m: ip("link", "set", m.link, "nomaster"),
        {f"{WEB} link/front": ("altered", "bridge", "babcde00000001", "none")},
    ),
    "port on another bridge": (
        lambda m: ip("link", "set", m.link, "master", m.back.grants.link),
        {f"{WEB} link/front": ("altered", "bridge", "babcde00000001", "babcde00000002")},
    ),
    "hairpin off": (
        lambda m: subprocess.run(["/usr/sbin/bridge", "link", "set", "dev", m.link, "hairpin", "off"], check=True),
        {f"{WEB} link/front": ("altered", "hairpin", "on", "off")},
    ),
    "isolation off": (
        lambda m: subprocess.run(
            ["/usr/sbin/bridge", "link", "set", "dev", m.web.grants.endpoints["back"].link, "isolated", "off"], check=True
        ),
        {f"{WEB} link/back": ("altered", "isolated", "on", "off")},
    ),
    "port down": (lambda m: ip("link", "set", m.link, "down"), {f"{WEB} up/front": ("altered", "state", "up", "down")}),
    "veth deleted": (
        lambda m: ip("link", "delete", m.link),
        {f"{WEB} link/front": ("missing", "", "", ""), f"{WEB} up/front": ("missing", "", "", "")},
    ),
}


@pytest.mark.parametrize("how", OUTSIDE)
def test_drift_outside_is_named_and_mended(blog, how):
    take, expected = OUTSIDE[how]
    kept = veth.netns_path(blog.layout, blog.web).stat().st_ino
    take(blog)
    drift = {name: words(part) for name, part in blog.drift().items()}
    for name, found in expected.items():
        assert drift.get(name) == found, drift
    blog.mend()
    assert blog.drift() == {}
    assert veth.netns_path(blog.layout, blog.web).stat().st_ino == kept, "another namespace"
    blog.serve(blog.web, 80)
    assert blog.call(blog.neighbour, "192.0.2.2", 8080) == "192.0.2.9"


INSIDE = {
    "link down": (["link", "set", "eth0", "down"], {f"{WEB} link/back": ("altered", "state of eth0", "up", "down")}),
    "link renamed": (None, {f"{WEB} link/back": ("missing", "", "", "")}),
    "link deleted": (["link", "delete", "eth1"], {f"{WEB} link/front": ("missing", "", "", "")}),
    "address gone": (["addr", "flush", "dev", "eth1"], {f"{WEB} address/front": ("missing", "", "", "")}),
    "MAC": (
        ["link", "set", "eth1", "address", "02:00:00:00:00:07"],
        {f"{WEB} link/front": ("altered", "mac", "02:00:0a:40:01:02", "02:00:00:00:00:07")},
    ),
    "MTU": (["link", "set", "eth1", "mtu", "1000"], {f"{WEB} link/front": ("altered", "mtu", "1400", "1000")}),
    "route gone": (["route", "del", "default"], {f"{WEB} route": ("missing", "", "", "")}),
    "route another": (
        ["route", "replace", "default", "via", "10.64.2.77"],
        {f"{WEB} route": ("altered", "gateway", "10.64.2.1", "10.64.2.77")},
    ),
    "loopback down": (["link", "set", "lo", "down"], {f"{WEB} loopback": ("altered", "state", "up", "down")}),
}


@pytest.mark.parametrize("how", INSIDE)
def test_drift_inside_is_named_and_mended(blog, how):
    arguments, expected = INSIDE[how]

    def take():
        if arguments is None:
            ip("link", "set", "eth0", "down")
            ip("link", "set", "eth0", "name", "other0")
        else:
            ip(*arguments)

    blog.inside(blog.web, take)
    drift = {name: words(part) for name, part in blog.drift().items()}
    for name, found in expected.items():
        assert drift.get(name) == found, drift
    veth.mend_links(blog.layout, blog.web, blog.uses)
    assert blog.drift() == {}
    blog.serve(blog.web, 80)
    assert blog.call(blog.neighbour, "192.0.2.2", 8080) == "192.0.2.9"


def test_namespace_that_is_as_it_was_is_not_entered_again(blog, monkeypatch):
    entered = []
    opened = veth._opened_inside
    monkeypatch.setattr(veth, "_opened_inside", lambda path: entered.append(path.name) or opened(path))

    def look():
        entered.clear()
        containers = [blog.web]
        found = veth.observe_links(blog.layout, containers, Glimpse(blog.layout), networks=blog.uses, insides=blog.insides)
        return found[blog.web.incarnation], list(entered)

    assert look()[1] == []
    blog.inside(blog.web, lambda: ip("link", "set", "eth1", "mtu", "1000"))
    parts, looked = look()
    assert looked == [blog.web.incarnation]
    assert parts["link/front"].new == "1000"
    assert look() == (parts, [])
    # More than the kernel keeps for who does not listen: then nothing is known any more.
    blog.inside(blog.web, lambda: [netlink.send([netlink.link_change("eth1", mtu=1000 + n % 2)]) for n in range(2000)])
    assert look()[1] == [blog.web.incarnation]
    # Another namespace at its place is another, whatever was heard of the first.
    namespaces.remove_netns(veth.netns_path(blog.layout, blog.web))
    with namespaces.created(veth.netns_path(blog.layout, blog.web)):
        pass
    parts, looked = look()
    assert looked == [blog.web.incarnation]
    assert parts["link/front"].state == "missing"


RULES = {
    "inet table": ("delete table inet reconcile_abcde", f"{FRONT} rules", "inet chain arriving", "missing"),
    "bridge table": ("delete table bridge reconcile_abcde", f"{BACK} rules", "bridge chain ports", "missing"),
    "chain flushed": (
        "flush chain inet reconcile_abcde leaving",
        f"{FRONT} rules",
        "inet chain leaving",
        "missing",
    ),
    "policy": (
        "add chain inet reconcile_abcde passing { policy drop; }",
        f"{FRONT} rules",
        "inet chain passing",
        "hook and policy",
    ),
    "rule added": (
        "insert rule inet reconcile_abcde passing accept",
        f"{FRONT} rules",
        "inet chain passing",
        "a rule without a comment",
    ),
    "dormant": ("add table inet reconcile_abcde { flags dormant; }", f"{FRONT} rules", "table inet", "flags 1"),
    "set emptied": ("flush set inet reconcile_abcde gateways", f"{BACK} rules", "", ""),
    "port closed": ("flush map inet reconcile_abcde published_everywhere", f"{WEB} port/0.0.0.0:8080/tcp", "", ""),
    "port diverted": (
        "delete element inet reconcile_abcde published { 127.0.0.1 . udp . 5353 }\n"
        "add element inet reconcile_abcde published { 127.0.0.1 . udp . 5353 : 10.64.2.2 . 54 }",
        f"{WEB} port/127.0.0.1:5353/udp",
        "published 127.0.0.1 . udp . 5353",
        "10.64.2.2 . 54",
    ),
    "port opened": (
        "add element inet reconcile_abcde published_everywhere { tcp . 99 : 10.64.1.2 . 22 }",
        f"{FRONT} rules",
        "inet set published_everywhere",
        "tcp . 99 : 10.64.1.2 . 22",
    ),
    "sender let in": (
        'add element bridge reconcile_abcde senders { "vabcde111111110" . 02:00:00:00:00:09 . 10.64.1.9 }',
        f"{FRONT} rules",
        "bridge set senders",
        "vabcde111111110 . 02:00:00:00:00:09 . 10.64.1.9",
    ),
    "sender shut out": ("flush set bridge reconcile_abcde senders", f"{WEB} rules/front", "", ""),
    "verdict turned": (
        'delete element inet reconcile_abcde within { "babcde00000002" . "babcde00000002" }\n'
        'add element inet reconcile_abcde within { "babcde00000002" . "babcde00000002" : accept }',
        f"{BACK} rules",
        "within babcde00000002 . babcde00000002",
        "accept",
    ),
}


@pytest.mark.parametrize("how", RULES)
def test_drift_of_rules_is_named_and_mended(blog, how):
    text, name, field, new = RULES[how]
    nft(text)
    part = blog.drift()[name]
    assert (part.field, part.new) == (field, new)
    settle.settle(blog.layout, blog.view)
    assert blog.drift() == {}


def test_deleted_rule_is_named_by_its_comment(blog):
    listed = subprocess.run(
        ["/usr/sbin/nft", "-a", "list", "chain", "inet", "reconcile_abcde", "passing"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (line,) = [line for line in listed.splitlines() if "internal networks reach nothing outside" in line]
    nft(f"delete rule inet reconcile_abcde passing handle {line.rpartition(' ')[2]}")
    part = blog.drift()[f"{FRONT} rules"]
    assert words(part) == ("altered", "inet chain passing", "internal networks reach nothing outside", "missing")
    settle.settle(blog.layout, blog.view)
    assert blog.drift() == {}


def test_e4_flushed_firewall_is_missing_as_a_whole(blog):
    nft("flush ruleset")
    drift = blog.drift()
    assert drift[f"{FRONT} rules"].state == "missing"
    assert drift[f"{WEB} port/0.0.0.0:8080/tcp"].state == "missing"
    settle.settle(blog.layout, blog.view)
    assert blog.drift() == {}


def test_packets_change_nothing_of_what_is_compared(blog):
    blog.serve(blog.web, 80)
    for _ in range(3):
        blog.call(blog.neighbour, "192.0.2.2", 8080)
    assert blog.drift() == {}


def test_settling_again_loads_nothing(blog, monkeypatch):
    monkeypatch.setattr("reconciler.linux.nft.load_ruleset", lambda _: pytest.fail("loaded"))
    settle.settle(blog.layout, blog.view)


def test_containers_that_come_and_go_change_elements_only(blog, build, monkeypatch):
    monkeypatch.setattr("reconciler.linux.nft.load_ruleset", lambda _: pytest.fail("loaded"))
    more = build.container("more", blog.front, blog.back, host=7, ports={"0.0.0.0:9090/tcp": 90, "127.0.0.1:53/udp": 53})
    blog.up(more)
    assert blog.drift() == {}
    blog.down(more)
    assert blog.drift() == {}


def test_rules_that_another_changes_between_look_and_load_are_loaded_whole(blog, build, monkeypatch):
    read, loaded = nft_tables.read_generation, []
    monkeypatch.setattr(nft_tables, "read_generation", lambda: read() - 1)
    load = nft_tables.load_ruleset
    monkeypatch.setattr(nft_tables, "load_ruleset", lambda text: loaded.append(text) or load(text))
    blog.up(build.container("more", blog.front, host=7))
    assert len(loaded) == 1
    assert blog.drift() == {}


def test_rules_of_others_are_left_alone(blog):
    nft("table inet theirs { chain passing { type filter hook forward priority 0; policy accept; }; }")
    blog.down(blog.web, blog.back, blog.front)
    listed = subprocess.run(["/usr/sbin/nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert listed == "table inet theirs\n"


def test_lost_mount_of_a_namespace_is_kept_again_by_its_process(blog):
    path = veth.netns_path(blog.layout, blog.web)
    kept = path.stat().st_ino
    process = blog.inside(blog.web, lambda: subprocess.Popen(["/bin/sleep", "60"]))
    try:
        subprocess.run(["/bin/umount", path], check=True)
        assert blog.drift()[f"{WEB} netns"].state == "missing"
        veth.mend_links(blog.layout, blog.web, blog.uses, pid=process.pid)
        assert path.stat().st_ino == kept
        assert blog.drift() == {}
    finally:
        process.kill()
        process.wait()


def test_everything_is_gone_after_the_last_delete(blog, build):
    blog.down(blog.web, blog.back, blog.front)
    assert sorted(netlink.read_links()) == ["cable", "lan", "lo"]
    assert list(blog.layout.netns.iterdir()) == []
    assert blog.observe() == {}
    assert subprocess.run(["/usr/sbin/nft", "list", "ruleset"], check=True, capture_output=True).stdout == b""


def test_strays_are_what_no_record_names(blog, build):
    blog.mades.clear()
    glimpse = Glimpse(blog.layout)
    strays = [*blog.driver.strays(blog.view, glimpse), *settle.strays(blog.layout, blog.view, glimpse)]
    assert Stray(kind="link", name=blog.front.grants.link) in strays
    assert Stray(kind="link", name=blog.link) in strays
    assert Stray(kind="netns", name=blog.web.incarnation) in strays
    assert {stray.kind for stray in strays} == {"link", "netns", "table", "process"}
    for stray in blog.driver.strays(blog.view, glimpse):
        blog.driver.remove_stray(stray)
        blog.driver.remove_stray(stray)
    settle.settle(blog.layout, blog.view)
    glimpse = Glimpse(blog.layout)
    assert [*blog.driver.strays(blog.view, glimpse), *settle.strays(blog.layout, blog.view, glimpse)] == []


def test_two_roots_do_not_see_each_other(blog):
    nft("table inet reconcile_zzzzz { }")
    netlink.send([netlink.bridge_creation("bzzzzz00000001", mac="02:00:00:00:00:55")])
    assert blog.drift() == {}
    blog.mades.clear()
    assert "bzzzzz00000001" not in {stray.name for stray in blog.driver.strays(blog.view, Glimpse(blog.layout))}


def test_container_on_no_network_has_a_namespace_with_loopback_only(machine, build):
    none = build.network("quiet", 1, driver="none")
    web = build.container("web", none)
    machine.up(none, web)
    assert list(machine.inside(web, netlink.read_links)) == ["lo"]
    assert machine.drift() == {}
    machine.down(web, none)
    assert not namespaces.is_kept(veth.netns_path(machine.layout, web))


def test_container_on_the_host_has_no_namespace(machine, build):
    host = build.network("host", 1, driver="host")
    web = build.container("web", host)
    machine.up(host, web)
    assert not machine.layout.netns.exists()
    assert machine.drift() == {}


def test_changing_icc_and_mtu_reaches_the_ports_that_are_there(blog, build):
    changed = build.network("front", 1, icc=False, mtu=1280)
    blog.mades[changed.key] = changed
    assert blog.drift()
    blog.driver.update(blog.front, changed, uses={}, emit=print)
    blog.mend()
    assert blog.drift() == {}
    link = netlink.read_link(blog.link)
    assert (link.isolated, link.mtu) == (True, 1280)


def test_torn_pair_is_made_anew_whatever_took_its_name(blog):
    def take():
        ip("link", "delete", "eth1")
        ip("link", "add", "name", "eth1", "type", "bridge")

    blog.inside(blog.web, take)
    assert blog.drift()[f"{WEB} link/front"].state == "missing"
    veth.mend_links(blog.layout, blog.web, blog.uses)
    assert blog.drift() == {}


def test_end_of_another_pair_is_told_apart(blog):
    def take():
        ip("link", "set", "eth1", "down")
        ip("link", "set", "eth1", "name", "hidden")
        ip(
            "link",
            "add",
            "name",
            "eth1",
            "address",
            "02:00:0a:40:01:02",
            "mtu",
            "1400",
            "type",
            "veth",
            "peer",
            "name",
            "x",
        )
        ip("link", "set", "eth1", "up")

    blog.inside(blog.web, take)
    assert words(blog.drift()[f"{WEB} link/front"]) == ("altered", "other end of eth1", blog.link, "another link")
    veth.mend_links(blog.layout, blog.web, blog.uses)
    assert blog.drift() == {}


def test_parameters_of_a_namespace_are_written_once(blog):
    blog.inside(blog.web, lambda: write_sysctl("ipv4/ping_group_range", "7 7"))
    blog.mend()
    assert blog.inside(blog.web, lambda: read_sysctl("ipv4/ping_group_range")) == "7\t7"
    assert blog.inside(blog.web, lambda: read_sysctl("ipv4/ip_unprivileged_port_start")) == "0"
    assert blog.inside(blog.web, lambda: read_sysctl("ipv6/conf/eth0/accept_ra")) == "0"
    assert blog.inside(blog.web, lambda: read_sysctl("ipv6/conf/eth0/disable_ipv6")) == "1"


def test_foreign_policy_that_drops_is_named_with_what_mends_it(blog):
    root_id = blog.layout.root_id
    assert read_forward_droppers(root_id) == []
    nft("table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
    [dropper] = read_forward_droppers(root_id)
    assert dropper.chain == "table ip filter chain FORWARD"
    assert dropper.mend == "iptables -I FORWARD -i 'babcde+' -j ACCEPT && iptables -I FORWARD -o 'babcde+' -j ACCEPT"
    nft('insert rule ip filter FORWARD iifname "babcde*" accept; insert rule ip filter FORWARD oifname "bzzzzz*" accept')
    assert len(read_forward_droppers(root_id)) == 1, "half a way is none"
    nft('insert rule ip filter FORWARD oifname "b*" counter accept')
    assert read_forward_droppers(root_id) == []


def test_the_mend_of_a_foreign_policy_is_one_that_works(blog):
    blog.serve(blog.web, 80)
    nft("table inet walled { chain onward { type filter hook forward priority 0; policy drop; }; }")
    assert blog.silent(blog.neighbour, "192.0.2.2", 8080)
    [dropper] = read_forward_droppers(blog.layout.root_id)
    subprocess.run(["/bin/sh", "-ec", dropper.mend], check=True, env={"PATH": "/usr/sbin:/usr/bin"})
    assert read_forward_droppers(blog.layout.root_id) == []
    assert blog.call(blog.neighbour, "192.0.2.2", 8080) == "192.0.2.9"
