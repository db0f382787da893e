"""Borrowed networks and volumes, converged; and what happens when owner and borrower run at once."""

from converge_bench import Bench
from msgspec.structs import replace

from plan.builders import container, stack, volume_at
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.record import Stack
from reconciler.model.spec import NetworkSpec, VolumeSpec

FRONT = make_key(Kind.NETWORK, "edge", "front")
FILES = make_key(Kind.VOLUME, "edge", "files")
SHOP = container_key("shop", "web")
PROXY = container_key("edge", "proxy")


def owner(subnet: str = "") -> Stack:
    return stack(
        "edge",
        networks={"front": NetworkSpec(subnet=subnet)},
        volumes={"files": VolumeSpec()},
        proxy=container(networks=("front",)),
    )


def borrower(name: str = "shop") -> Stack:
    made = stack(name, web=container(networks=("edge/front",), mounts=volume_at("/files", "edge/files")))
    return replace(made, specs={key: spec for key, spec in made.specs.items() if f"/{name}/edge/" not in key})


def test_borrower_gets_an_address_of_the_owners_network_and_both_have_a_name_on_it(bench: Bench) -> None:
    assert bench.apply(owner("10.9.0.0/24"), borrower()).failed == ()
    address = bench.records()[SHOP].grants.endpoints["edge/front"].address
    assert address.startswith("10.9.0.")
    assert bench.machine.names[f"{FRONT} web"] == (address,)
    assert f"{FRONT} proxy" in bench.machine.names
    assert bench.lines(owner("10.9.0.0/24"), borrower()) == ["nothing to do"]
    assert {key for key in bench.records() if "/shop/" in key} == {"image/shop/app", SHOP}


def test_two_borrowers_of_one_name_are_both_behind_it(bench: Bench) -> None:
    bench.apply(owner())
    bench.apply(borrower("shop"))
    bench.apply(borrower("pics"))
    assert len(set(bench.machine.names[f"{FRONT} web"])) == 2


def test_deleting_the_borrower_leaves_the_owner_as_it_is(bench: Bench) -> None:
    bench.apply(owner())
    bench.apply(borrower())
    pids = bench.pids()
    assert bench.delete("shop").failed == ()
    assert bench.pids() == {PROXY: pids[PROXY]}
    assert {FRONT, FILES} <= bench.records().keys()
    assert bench.delete("edge", FILES).failed == ()
    assert bench.records() == {}


def test_network_that_is_replaced_takes_its_borrowers_along_in_one_apply(bench: Bench) -> None:
    bench.apply(owner("10.9.0.0/24"), borrower())
    before = bench.pids()
    assert bench.apply(owner("10.8.0.0/24"), borrower()).failed == ()
    after = bench.pids()
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    assert bench.records()[SHOP].grants.endpoints["edge/front"].address.startswith("10.8.0.")


def test_network_that_can_not_be_made_anew_comes_back_with_its_borrowers(bench: Bench) -> None:
    bench.apply(owner("10.9.0.0/24"), borrower())
    bench.machine.fail_next("create", FRONT)
    assert FRONT in bench.apply(owner("10.8.0.0/24"), borrower()).failed
    assert bench.pids().keys() == {PROXY, SHOP}
    assert bench.records()[SHOP].grants.endpoints["edge/front"].address.startswith("10.9.0.")


# ---------------------------------------------------------------- races


def test_owners_delete_loses_cleanly_to_a_borrower_that_was_quicker(bench: Bench) -> None:
    bench.apply(owner())
    planned = bench.plan_delete("edge", FILES)
    bench.apply(borrower())
    result = bench.run(planned)
    assert set(result.failed) == {FRONT, FILES}
    assert {failure.brief for failure in bench.failures()} == {
        "network/edge/front can't be deleted: it is borrowed by container/shop/web/1",
        "volume/edge/files can't be deleted: it is borrowed by container/shop/web/1",
    }
    assert SHOP in bench.pids()
    assert bench.fold().intents == ()
    assert bench.lines(borrower()) == ["nothing to do"]


def test_borrower_loses_cleanly_to_an_owners_delete_that_was_quicker(bench: Bench) -> None:
    bench.apply(owner())
    planned = bench.plan(borrower())
    bench.own(borrower())
    assert bench.delete("edge", FILES).failed == ()
    assert bench.run(planned).failed == (SHOP,)
    assert bench.failures()[0].brief == "container/shop/web/1: borrow network/edge/front: it is gone"
    assert bench.failures()[0].hint == "apply the stack edge, then apply again"
    assert bench.pids() == {}
    assert bench.fold().intents == ()


def test_borrower_loses_to_a_delete_that_has_begun(bench: Bench) -> None:
    bench.apply(owner())
    planned = bench.plan(borrower())
    bench.own(borrower())
    deletion = next(action for action in bench.plan_delete("edge").actions if action.key == FRONT)
    bench.begin(deletion, bench.plan_delete("edge"))
    assert bench.run(planned).failed == (SHOP,)
    assert "an apply of edge is taking it away" in bench.failures()[0].brief


def test_owners_delete_loses_to_a_borrower_that_has_begun(bench: Bench) -> None:
    bench.apply(owner())
    deletion = bench.plan_delete("edge")
    planned = bench.plan(borrower())
    bench.begin(next(action for action in planned.actions if action.key == SHOP), planned)
    assert FRONT in bench.run(deletion).failed
    assert FRONT in bench.records()
