"""Subnets that collide with nothing."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.engine.native.net.pools import POOLS, Claims, check_subnet, choose_free_subnets
from reconciler.model.errors import SubnetTaken
from reconciler.model.key import Key

NEAR = st.builds(
    lambda base, length: str(ipaddress.IPv4Network((base, length), strict=False)),
    st.integers(int(ipaddress.IPv4Address("10.63.255.0")), int(ipaddress.IPv4Address("10.64.40.0"))),
    st.integers(16, 32),
)


@given(st.lists(NEAR, max_size=12), st.integers(0, 6))
def test_chosen_subnets_are_free_distinct_and_of_a_pool(busy, count):
    found = choose_free_subnets(count, busy)
    networks = [ipaddress.IPv4Network(subnet) for subnet in found]
    assert len(found) == count
    for place, network in enumerate(networks):
        assert any(network.subnet_of(ipaddress.IPv4Network(pool)) for pool in POOLS)
        assert not any(network.overlaps(other) for other in networks[:place])
        assert not any(network.overlaps(ipaddress.IPv4Network(other)) for other in busy)


@given(st.lists(NEAR, max_size=6))
def test_the_first_free_one_is_taken(busy):
    (found,) = choose_free_subnets(1, busy)
    for candidate in ipaddress.IPv4Network(POOLS[0]).subnets(new_prefix=24):
        if str(candidate) == found:
            return
        assert any(candidate.overlaps(ipaddress.IPv4Network(other)) for other in busy)


def test_a_routed_first_pool_gives_way_to_the_next():
    assert choose_free_subnets(1, ["10.0.0.0/8"]) == ["172.20.0.0/24"]
    assert choose_free_subnets(1, ["10.0.0.0/8", "172.16.0.0/12"]) == ["192.168.128.0/24"]
    assert choose_free_subnets(1, ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]) == []


def test_first_subnets_of_an_idle_host():
    assert choose_free_subnets(2, []) == ["10.64.0.0/24", "10.64.1.0/24"]


@pytest.fixture
def claims():
    made = Claims()
    yield made
    made.close()


@pytest.mark.root
def test_x10_what_another_root_is_about_to_make_is_avoided(machine, claims):
    """Neither has made a bridge yet, so that no route tells."""
    other = Claims()
    assert other.choose(2, []) == ["10.64.0.0/24", "10.64.1.0/24"]
    assert claims.choose(1, []) == ["10.64.2.0/24"]
    assert claims.choose(1, ["10.64.2.0/24"]) == ["10.64.3.0/24"]
    other.close()
    assert claims.choose(1, []) == ["10.64.0.0/24"]


@pytest.mark.root
def test_claims_of_everything_keep_nobody_from_a_network(machine, claims, monkeypatch):
    """Any user may bind such names."""
    monkeypatch.setattr("reconciler.engine.native.net.pools.POOLS", ("10.64.0.0/22",))
    other = Claims()
    assert len(other.choose(4, [])) == 4
    assert claims.choose(1, []) == ["10.64.0.0/24"]
    other.close()


@pytest.mark.root
def test_routes_of_the_host_are_avoided_and_named(machine, build, claims):
    front = build.network("front", 0)
    machine.up(front)
    assert claims.choose(1, ["10.64.1.0/24"]) == ["10.64.2.0/24"]
    key = Key("network/blog/new")
    check_subnet(machine.layout, key, "10.64.0.0/24")  # a bridge of this root: the store knows about it
    with pytest.raises(SubnetTaken, match=r"network/blog/new: the subnet 192\.0\.2\.128/25 overlaps 192\.0\.2\.0/24.*lan"):
        check_subnet(machine.layout, key, "192.0.2.128/25")
