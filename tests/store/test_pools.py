"""Nothing scarce is given twice: by rules, under load, and by the database even where the code is wrong."""

import contextlib
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import NETWORK, made_root, web

from reconciler.model.errors import AddressesUsedUp, AddressTaken, Failed, NameTaken, PortTaken, SubnetTaken
from reconciler.model.key import Key, Kind, make_key
from reconciler.model.record import Endpoint, Grants
from reconciler.store.pools import meets, split_port
from reconciler.store.store import Store
from reconciler.store.writing import Writing

SUBNET, GATEWAY = "10.40.0.0/29", "10.40.0.1"


def test_addresses_are_the_lowest_free_without_the_three_that_are_not_for_containers(tmp_path: Path) -> None:
    with made_root(tmp_path).write() as tx:
        given_ = [tx.grant_address(NETWORK, web(i), SUBNET, GATEWAY) for i in range(1, 6)]
        assert given_ == [f"10.40.0.{i}" for i in range(2, 7)]
        with pytest.raises(AddressesUsedUp, match=r"all of 10\.40\.0\.0/29"):
            tx.grant_address(NETWORK, web(6), SUBNET, GATEWAY)
        tx.free_grants(web(2))
        assert tx.grant_address(NETWORK, web(6), SUBNET, GATEWAY) == "10.40.0.3"


def test_a_key_gets_the_address_again_that_it_holds_unless_it_asks_for_a_fresh_one(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        first = [tx.grant_address(NETWORK, web(i), SUBNET, GATEWAY) for i in (1, 2)]
    with store.write() as tx:
        assert [tx.grant_address(NETWORK, web(i), SUBNET, GATEWAY) for i in (2, 1)] == first[::-1]
        assert tx.grant_address(NETWORK, web(1), SUBNET, GATEWAY, fresh=True) == "10.40.0.4"
        other = tx.grant_address(NETWORK, web(1), "10.50.0.0/24", "10.50.0.1")
        assert other == "10.50.0.2", "one of a subnet that the network has no more does not count"
        assert len(tx.grants_of(web(1))) == 3


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("10.40.0.2", "held by container/blog/web/1"),
        ("10.40.0.1", "it is the gateway's"),
        ("10.40.0.0", "no address for a container in"),
        ("10.40.0.7", "no address for a container in"),
        ("10.41.0.2", "no address for a container in"),
    ],
)
def test_a_wanted_address_that_can_not_be_had_says_why(tmp_path: Path, wanted: str, why: str) -> None:
    with made_root(tmp_path).write() as tx:
        tx.grant_address(NETWORK, web(1), SUBNET, GATEWAY)
        with pytest.raises(AddressTaken, match=why):
            tx.grant_address(NETWORK, web(2), SUBNET, GATEWAY, wanted)
        assert tx.grant_address(NETWORK, web(2), SUBNET, GATEWAY, "10.40.0.6") == "10.40.0.6"


@pytest.mark.parametrize(("subnet", "first"), [("10.0.0.0/31", "10.0.0.0"), ("10.0.0.9/32", "10.0.0.9")])
def test_the_smallest_subnets_have_neither_network_address_nor_broadcast(tmp_path: Path, subnet: str, first: str) -> None:
    with made_root(tmp_path).write() as tx:
        assert tx.grant_address(NETWORK, web(), subnet, "") == first


def test_ten_thousand_addresses_are_given_in_order(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        for index in range(1, 10_001):
            last = tx.grant_address(NETWORK, web(index), "10.0.0.0/16", "10.0.0.1")
    assert last == str(ip_address("10.0.0.1") + 10_000)


def test_subnets_that_overlap_are_refused_naming_the_other(tmp_path: Path) -> None:
    other = make_key(Kind.NETWORK, "shop", "back")
    with made_root(tmp_path).write() as tx:
        tx.grant_subnet(NETWORK, "10.40.0.0/16")
        tx.grant_subnet(NETWORK, "10.40.0.0/24")
        for subnet in ("10.40.0.0/16", "10.40.9.0/24", "10.0.0.0/8"):
            with pytest.raises(SubnetTaken, match="network/blog/front"):
                tx.grant_subnet(other, subnet)
        tx.grant_subnet(other, "10.41.0.0/16")
        assert sorted(tx.taken_subnets()) == ["10.40.0.0/16", "10.40.0.0/24", "10.41.0.0/16"]


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        ("0.0.0.0:80/tcp", "127.0.0.1:80/tcp"),
        ("127.0.0.1:80/tcp", "0.0.0.0:80/tcp"),
        ("127.0.0.1:80/tcp", "127.0.0.1:80/tcp"),
        ("[::]:80/tcp", "[fd00::1]:80/tcp"),
        ("[fd00:0::1]:80/tcp", "[fd00::1]:80/tcp"),
    ],
)
def test_ports_that_meet_are_refused_naming_the_holder_and_none_is_given(tmp_path: Path, held: str, wanted: str) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.grant_ports(web(1), [held])
        with pytest.raises(PortTaken, match="container/blog/web/1"):
            tx.grant_ports(web(2), ["0.0.0.0:443/tcp", wanted])
        assert tx.grants_of(web(2)) == []
    with pytest.raises(PortTaken), store.write() as tx:
        tx.grant_ports(web(2), [wanted])


def test_ports_that_do_not_meet_are_given(tmp_path: Path) -> None:
    with made_root(tmp_path).write() as tx:
        tx.grant_ports(web(1), ["127.0.0.1:80/tcp"])
        tx.grant_ports(web(1), ["127.0.0.1:80/tcp", "0.0.0.0:80/tcp"])
        tx.grant_ports(web(2), ["0.0.0.0:80/udp", "0.0.0.0:81/tcp"])
        tx.grant_ports(web(3), ["127.0.0.1:82/tcp"])
        tx.grant_ports(web(4), ["127.0.0.2:82/tcp"])
        assert len(tx.grants_in("port")) == 6


def test_links_macs_and_volume_ids_are_had_by_one_key(tmp_path: Path) -> None:
    with made_root(tmp_path).write() as tx:
        for grant in (tx.grant_link, tx.grant_mac, tx.grant_volume_id):
            grant("x", web(1))
            grant("x", web(1))
            with pytest.raises(NameTaken, match="held by container/blog/web/1"):
                grant("x", web(2))
        assert tx.holder("mac", "x") == web(1)


def test_after_a_replace_a_key_keeps_what_its_record_names(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.grant_address(NETWORK, web(), SUBNET, GATEWAY)
        tx.grant_mac("02:00:00:00:00:01", web())
        tx.grant_link("vold", web())
        tx.grant_ports(web(), ["0.0.0.0:80/tcp", "127.0.0.1:81/tcp"])
    with store.write() as tx:
        tx.grant_link("vnew", web())
        tx.grant_ports(web(), ["0.0.0.0:82/tcp"])
        assert len(tx.grants_of(web())) == 7, "both incarnations hold theirs while it is replaced"
    kept = Grants(endpoints={"front": Endpoint(address="10.40.0.2", mac="02:00:00:00:00:01", link="vnew")})
    with store.write() as tx:
        tx.free_grants(web(), keep=kept, ports=["0.0.0.0:82/tcp"])
    with store.read() as tx:
        held = {(grant.pool, grant.scope, grant.value) for grant in tx.grants_of(web())}
    assert held == {
        ("address", NETWORK, "10.40.0.2"),
        ("mac", "", "02:00:00:00:00:01"),
        ("link", "", "vnew"),
        ("port", "82/tcp", "0.0.0.0"),
    }


def test_a_deleted_record_gives_back_all_that_it_held(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.grant_link("vold", web())
        tx.delete_record(web())
    with store.read() as tx:
        assert tx.grants_of(web()) == []


@pytest.mark.parametrize("pool", ["address", "subnet", "link", "mac", "port", "volume"])
def test_the_database_refuses_a_second_holder_even_where_the_code_is_wrong(tmp_path: Path, pool: str) -> None:
    store = made_root(tmp_path)
    store.close()
    sql = sqlite3.connect(store.path)
    sql.execute("INSERT INTO grants VALUES (?, 's', 'v', 'a')", (pool,))
    with pytest.raises(sqlite3.IntegrityError):
        sql.execute("INSERT INTO grants VALUES (?, 's', 'v', 'b')", (pool,))
    sql.close()


KEYS = [web(index) for index in range(1, 6)]
NETWORKS = [make_key(Kind.NETWORK, "blog", name) for name in ("a", "b", "c")]
hosts = st.sampled_from(["0.0.0.0", "127.0.0.1", "10.0.0.1"])
ports = st.builds("{}:{}/{}".format, hosts, st.integers(1, 3), st.sampled_from(["tcp", "udp"]))
subnets = st.sampled_from(["10.0.0.0/12", "10.8.0.0/13", "10.8.1.0/24", "10.16.0.0/16", "10.16.0.0/24", "10.0.0.0/8"])


steps = st.tuples(
    st.sampled_from(KEYS), st.sampled_from(NETWORKS), subnets, st.lists(ports, max_size=3), st.sampled_from("fsnpa")
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_root(tmp_path_factory.mktemp("pools"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=5))
def test_no_sequence_of_transactions_gives_anything_twice(
    shared: Store, transactions: list[list[tuple[Key, Key, str, list[str], str]]]
) -> None:
    with shared.write() as tx:
        for key in (*KEYS, *NETWORKS):
            tx.free_grants(key)
    for transaction in transactions:
        with shared.write() as tx:
            for key, network, subnet, wanted, what in transaction:
                with contextlib.suppress(Failed), tx.savepoint():
                    grant_something(tx, key, network, subnet, wanted, what)
        assert_nothing_is_held_twice(shared)


def grant_something(tx: Writing, key: Key, network: Key, subnet: str, wanted: list[str], what: str) -> None:
    if what == "f":
        tx.free_grants(key)
    elif what == "s":
        tx.grant_subnet(network, subnet)
    elif what == "p":
        tx.grant_ports(key, wanted)
    address = tx.grant_address(network, key, SUBNET, GATEWAY, fresh=what == "n")
    assert ip_address(address) in ip_network(SUBNET)


def assert_nothing_is_held_twice(store: Store) -> None:
    with store.read() as tx:
        addresses = [(grant.scope, grant.value) for grant in tx.grants_in("address")]
        taken = [(ip_network(grant.value), grant.owner) for grant in tx.grants_in("subnet")]
        held = [(grant.value, grant.scope, grant.owner) for grant in tx.grants_in("port")]
    assert len(addresses) == len(set(addresses))
    assert not {(network, GATEWAY) for network in NETWORKS} & set(addresses)
    for place, (subnet, owner) in enumerate(taken):
        assert not [s for s, other in taken[place + 1 :] if other != owner and s.overlaps(subnet)]
    for place, (host, scope, owner) in enumerate(held):
        rest = held[place + 1 :]
        assert not [h for h, s, other in rest if other != owner and s == scope and meets(h, host)]


@given(ports)
def test_a_port_is_its_address_and_its_scope(port: str) -> None:
    assert ":".join(split_port(port)) == port


def take(store: Store, owner: Key) -> str:
    with store.write() as tx:
        tx.grant_subnet(
            make_key(Kind.NETWORK, "n", owner.rsplit("/", 1)[1]), f"10.{100 + int(owner.rsplit('/', 1)[1])}.0.0/16"
        )
        return tx.grant_address(NETWORK, owner, "10.40.0.0/24", GATEWAY)


def test_fifty_threads_at_once_get_fifty_addresses(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with ThreadPoolExecutor(50) as pool:
        taken = list(pool.map(lambda index: take(store, web(index)), range(1, 51)))
    assert len(set(taken)) == 50
    with store.read() as tx:
        assert len(tx.taken_subnets()) == 50


OTHER_PROCESS = """
import sys
from pathlib import Path
from reconciler.model.key import Key
from reconciler.store.store import open_store
store = open_store(Path(sys.argv[1]))
for index in range(40):
    owner = Key(f"container/{sys.argv[2]}/web/{index}")
    with store.write() as tx:
        print(tx.grant_address(Key("network/blog/front"), owner, "10.40.0.0/24", "10.40.0.1"))
"""


def test_two_processes_at_once_never_get_the_same_address(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(store.path.parent), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    outputs = [process.communicate(timeout=60)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len({*outputs[0], *outputs[1]}) == 80
