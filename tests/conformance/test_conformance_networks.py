"""Networks, settle and the pool: what is made, what is open, what has a name, and what goes again."""

import ipaddress

import pytest
from grounds import Ground, Site, wait_for
from msgspec import structs

from reconciler.model.errors import SubnetTaken
from reconciler.model.key import Kind, make_key
from reconciler.model.observation import Phase
from reconciler.model.spec import Attachment

KEY = make_key(Kind.NETWORK, "blog", "front")


def test_create_makes_it_and_may_come_twice(ground: Ground) -> None:
    front = ground.network()
    assert ground.status(front).phase is Phase.MISSING
    ground.engine.settle(ground.view, names=False)
    for _ in range(2):
        assert ground.create(front).phase is Phase.PRESENT
    ground.engine.settle(ground.view)
    assert ground.status(front).phase is Phase.PRESENT
    assert ground.drifted() == []


def test_delete_removes_it_and_what_is_gone_is_no_error(ground: Ground) -> None:
    front = ground.network()
    ground.delete(front)
    ground.up(front)
    for _ in range(2):
        ground.delete(front)
        assert ground.status(front).phase is Phase.MISSING


@pytest.mark.parametrize("driver", ["host", "none"])
def test_host_and_none_are_always_there(ground: Ground, driver: str) -> None:
    plain = ground.network(driver=driver)
    assert ground.create(plain).phase is Phase.PRESENT
    ground.engine.settle(ground.view)
    assert ground.status(plain).phase is Phase.PRESENT
    ground.delete(plain)
    ground.forget(plain)
    ground.engine.sweep(ground.view)
    assert ground.read_remains() == []


def test_container_runs_on_host_none_and_on_several_networks(ground: Ground) -> None:
    image = ground.image()
    host, none = ground.network("host", driver="host"), ground.network("none", driver="none")
    front, back = ground.network("front", 1), ground.network("back", 2)
    several = [
        ground.container("h", image, host, host=2),
        ground.container("n", image, none, host=3),
        ground.container("b", image, front, back, host=4),
    ]
    ground.up()
    assert {ground.status(made).phase for made in several} == {Phase.RUNNING}
    assert ground.drifted() == []


def test_update_in_place_leaves_its_containers_where_they_are(site: Site) -> None:
    before = site.pids()
    new = site.ground.change(site.front, labels={"a": "1"}, icc=False, mtu=1400)
    site.ground.engine.settle(site.ground.view, names=False)
    assert site.ground.update(site.front, new).phase is Phase.PRESENT
    site.ground.update(site.web, site.web)
    site.ground.engine.settle(site.ground.view)
    assert site.ground.drifted() == []
    assert site.pids() == before


def test_settle_opens_what_the_view_says_and_closes_everything_else(site: Site) -> None:
    ground = site.ground
    assert ground.open_ports() == {"127.0.0.1:8080/tcp"}
    new = ground.change(site.web, ports={"0.0.0.0:8081/udp": 53})
    ground.engine.settle(ground.view)
    assert ground.open_ports() == {"0.0.0.0:8081/udp"}
    ground.forget(new)
    ground.engine.settle(ground.view)
    assert ground.open_ports() == set()
    ground.add(new)
    ground.engine.settle(ground.view)
    assert ground.open_ports() == {"0.0.0.0:8081/udp"}


def test_settle_again_changes_nothing(site: Site) -> None:
    before = site.ground.open_ports(), site.pids()
    site.ground.engine.settle(site.ground.view)
    assert (site.ground.open_ports(), site.pids()) == before
    assert site.ground.drifted() == []


def test_held_container_has_neither_open_port_nor_name(site: Site) -> None:
    ground = site.ground
    assert ground.ask_name(site.front, "web") == {"10.64.1.2"}
    held = structs.replace(site.web, held=True)
    ground.mades = [held if made == site.web else made for made in ground.mades]
    ground.stop(held)
    ground.engine.settle(ground.view)
    assert ground.open_ports() == set()
    assert ground.ask_name(site.front, "web") == set()
    assert ground.drifted() == []


def test_name_leads_to_every_container_that_bears_it_on_that_network_only(site: Site) -> None:
    ground = site.ground
    assert ground.ask_name(site.front, "web") == {"10.64.1.2"}
    assert ground.ask_name(site.back, "db") == {"10.64.2.2"}
    assert ground.ask_name(site.back, "web") == set()
    ground.forget(site.web)
    ground.engine.settle(ground.view)
    wait_for(lambda: ground.ask_name(site.front, "web") == set(), "the name has gone")
    ground.add(site.web)


def test_replicas_bear_one_name_and_each_has_its_own(ground: Ground) -> None:
    image, front = ground.image(), ground.network("front", 1)
    first, second = (ground.container("db", image, front, host=host, index=host) for host in (2, 3))
    ground.change(first, networks={"front": Attachment(aliases=("data",))})
    ground.up()
    both = {"10.64.1.2", "10.64.1.3"}
    assert {name: ground.ask_name(front, name) for name in ("db", "db.front", "db-2", "db-3.front", "data")} == {
        "db": both,
        "db.front": both,
        "db-2": {"10.64.1.2"},
        "db-3.front": {"10.64.1.3"},
        "data": {"10.64.1.2"},
    }
    ground.forget(second)
    ground.engine.settle(ground.view)
    wait_for(lambda: ground.ask_name(front, "db") == {"10.64.1.2"}, "the answer follows")
    ground.add(second)


def test_settle_without_names_leaves_names_alone(site: Site) -> None:
    ground = site.ground
    ground.forget(site.web)
    ground.engine.settle(ground.view, names=False)
    assert ground.open_ports() == set()
    assert ground.ask_name(site.front, "web") == {"10.64.1.2"}
    ground.add(site.web)


def test_observe_says_who_holds_the_ports_asked_for(ground: Ground) -> None:
    ground.hold_port("127.0.0.1:18080/tcp")
    seen = ground.observe(ports=["127.0.0.1:18080/tcp", "127.0.0.1:18081/tcp"])
    assert set(seen.port_holders) == {"127.0.0.1:18080/tcp"}
    assert "pid" in seen.port_holders["127.0.0.1:18080/tcp"]
    assert ground.observe().port_holders == {}


def test_chosen_subnets_are_free_and_disjoint(ground: Ground) -> None:
    taken = ground.engine.choose_subnets(2, ())
    more = ground.engine.choose_subnets(3, taken)
    networks = [ipaddress.ip_network(subnet) for subnet in (*taken, *more)]
    assert len(networks) == 5
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    assert ground.engine.choose_subnets(0, taken) == []


def test_chosen_subnets_keep_off_the_hosts_routes(ground: Ground) -> None:
    [first] = ground.engine.choose_subnets(1, ())
    ground.add_route(first)
    [other] = ground.engine.choose_subnets(1, ())
    assert not ipaddress.ip_network(first).overlaps(ipaddress.ip_network(other))


def test_used_up_pool_is_an_error(ground: Ground) -> None:
    with pytest.raises(SubnetTaken):
        ground.engine.choose_subnets(1, ["0.0.0.0/1", "128.0.0.0/1"])


def test_subnet_that_the_host_routes_is_refused_and_a_free_one_is_not(ground: Ground) -> None:
    ground.add_route("10.99.0.0/16")
    with pytest.raises(SubnetTaken, match=r"10\.99\."):
        ground.engine.check_subnet(KEY, "10.99.7.0/24")
    ground.engine.check_subnet(KEY, "10.98.7.0/24")


def test_subnet_of_our_own_bridge_is_no_foreign_route(ground: Ground) -> None:
    front = ground.network()
    ground.up(front)
    ground.engine.check_subnet(KEY, front.grants.subnet)
