"""What stacks borrow of each other, as plans and as refusals, each with the way out in it."""

import pytest
from msgspec.structs import replace

from plan.builders import Known, container, golden, stack, text, volume_at, with_replicas
from reconciler.model.errors import Borrowed, NotLent, ReconcileError
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.record import Stack
from reconciler.model.spec import Attachment, NetworkSpec, VolumeSpec

FRONT = make_key(Kind.NETWORK, "edge", "front")
FILES = make_key(Kind.VOLUME, "edge", "files")
SHOP = container_key("shop", "web")

edge = stack("edge", networks={"front": NetworkSpec(subnet="10.40.0.0/24")}, volumes={"files": VolumeSpec()})


def without_lent(wanted: Stack) -> Stack:
    """What the builder declares for every name is not declared for what is borrowed."""
    return replace(wanted, specs={key: spec for key, spec in wanted.specs.items() if "/shop/edge/" not in key})


def borrower(*, networks: dict[str, Attachment] | None = None, **fields: object) -> Stack:
    given = networks if networks is not None else {"edge/front": Attachment()}
    return without_lent(stack("shop", web=container(networks=given, **fields)))


shop = borrower(mounts=volume_at("/files", "edge/files"))


def said(error: ReconcileError) -> str:
    return "\n".join(filter(None, (f"{error.exit_code} {error.brief}", error.detail, f"hint: {error.hint}")))


def refused(*, known: Known, wanted: tuple[Stack, ...], **options: object) -> str:
    with pytest.raises((Borrowed, NotLent)) as caught:
        known.plan(*wanted, **options)
    return said(caught.value)


def test_borrower_comes_after_the_owner_when_both_are_in_one_apply():
    assert text(Known().plan(shop, edge)) == golden("""
          1 create   image/edge/app                   because it is new in the manifest
          2 create   image/shop/app                   because it is new in the manifest
          3 create   network/edge/front               because it is new in the manifest
          4 create   volume/edge/files                because it is new in the manifest
          5 create   container/shop/web/1  after 2-4  because it is new in the manifest
              borrows the network front of stack edge
              borrows the volume files of stack edge
        5 actions: 5 create
    """)


def test_borrower_alone_makes_nothing_of_its_owner():
    assert text(Known.of(edge).plan(shop)) == golden("""
          1 create   image/shop/app                 because it is new in the manifest
          2 create   container/shop/web/1  after 1  because it is new in the manifest
              borrows the network front of stack edge
              borrows the volume files of stack edge
        2 actions: 2 create
    """)


def test_applied_borrower_plans_nothing():
    assert text(Known.of(edge, shop).plan(shop)) == "nothing to do"
    assert text(Known.of(edge, shop).plan(edge)) == "nothing to do"
    assert text(Known.of(edge, shop).plan_drift()) == "nothing to do"


def test_stack_that_is_not_there_is_to_be_applied_first():
    assert refused(known=Known(), wanted=(shop,)) == golden("""
        1 container/shop/web/1: borrow network/edge/front: there is no stack edge
        container/shop/web/1: borrow volume/edge/files: there is no stack edge
        hint: apply the stack edge first, or both manifests in one command
    """)


def test_stack_without_that_network_is_to_be_applied_first():
    assert refused(known=Known.of(stack("edge")), wanted=(borrower(),)) == golden("""
        1 container/shop/web/1: borrow network/edge/front: the stack edge has no network named front
        hint: apply the stack edge first, or both manifests in one command
    """)


def test_network_that_others_removed_is_to_be_made_by_its_owner_first():
    assert refused(known=Known.of(edge).gone(FRONT), wanted=(borrower(),)) == golden("""
        1 container/shop/web/1: borrow network/edge/front: it is on record and not on the machine
        hint: apply the stack edge first, or both manifests in one command
    """)


def test_owner_that_makes_it_anew_says_whose_links_are_cut():
    assert text(Known.of(edge, shop).gone(FRONT).plan(edge)) == golden("""
          1 create   network/edge/front  because it is gone from the machine
          network/edge/front  lent to container/shop/web/1: apply shop too, for the links are cut
        1 action: 1 create
    """)


def test_manifest_in_the_same_apply_that_lacks_it_is_named():
    assert refused(known=Known(), wanted=(borrower(), stack("edge"))) == golden("""
        1 container/shop/web/1: borrow network/edge/front: the manifest of edge has no network named front
        hint: declare it there: networks: {front: {}}
    """)


def test_owner_can_not_drop_it_from_its_manifest_while_it_is_borrowed():
    assert refused(known=Known.of(edge, shop), wanted=(stack("edge"),)) == golden("""
        3 network/edge/front can't be deleted: it is borrowed by container/shop/web/1
        hint: delete shop first, or take it out of the manifest of shop and apply
    """)


def test_owner_that_drops_it_in_one_apply_with_who_borrows_it_is_refused():
    assert refused(known=Known.of(edge, shop), wanted=(stack("edge"), shop)) == golden("""
        1 container/shop/web/1: borrow network/edge/front: it leaves the manifest of edge in this apply
        hint: keep it there, or let no container name it (networks)
    """)


def test_owner_and_borrower_may_let_go_of_it_in_one_apply():
    known = Known.of(edge, borrower())
    plan = known.plan(stack("edge", volumes={"files": VolumeSpec()}), stack("shop", web=container()))
    assert text(plan) == golden("""
          1 replace  container/shop/web/1           because /networks/edge~1front changed
              /networks/edge~1front  {} → (unset)  (replace)
              discards its writable layer
          2 delete   network/edge/front    after 1  because it is no longer in the manifest
        2 actions: 1 replace, 1 delete
    """)


def test_delete_of_the_owner_is_refused_naming_all_borrowers():
    pics = without_lent(stack("pics", web=container(networks=("edge/front",))))
    pics = replace(pics, specs={key: spec for key, spec in pics.specs.items() if "/pics/edge/" not in key})
    known = Known.of(edge, shop, pics)
    keys = [key for key in known.records if key.split("/")[1] == "edge"]
    with pytest.raises(Borrowed) as caught:
        known.plan_delete(*keys)
    assert said(caught.value) == golden("""
        3 network/edge/front can't be deleted: it is borrowed by container/pics/web/1 and container/shop/web/1
        hint: delete pics and shop first, or take it out of the manifest of pics and the manifest of shop and apply
    """)


def test_delete_of_a_borrowed_volume_is_refused_and_keeping_it_is_not():
    only = borrower(networks={}, mounts=volume_at("/files", "edge/files"))
    known = Known.of(edge, only)
    keys = [key for key in known.records if key.split("/")[1] == "edge"]
    with pytest.raises(Borrowed, match="volume/edge/files can't be deleted: it is borrowed by container/shop/web/1"):
        known.plan_delete(*keys, volumes=(FILES,))
    assert "volume/edge/files  kept" in text(known.plan_delete(*keys))


def test_delete_of_the_borrower_leaves_what_is_the_owners():
    known = Known.of(edge, shop)
    plan = known.plan_delete(*[key for key in known.records if key.split("/")[1] == "shop"])
    assert {action.key.split("/")[1] for action in plan.actions} == {"shop"}


def test_replace_by_the_owner_alone_is_refused_naming_the_borrowers():
    moved = stack("edge", networks={"front": NetworkSpec(subnet="10.41.0.0/24")}, volumes={"files": VolumeSpec()})
    assert refused(known=Known.of(edge, shop), wanted=(moved,)) == golden("""
        3 network/edge/front can't be replaced: it is borrowed by container/shop/web/1
        hint: apply its manifest and that of shop in one command: their containers are replaced with it
    """)
    assert text(Known.of(edge, shop).plan(moved, shop)) == golden("""
          1 replace  network/edge/front             because /subnet changed
              /subnet  10.40.0.0/24 → 10.41.0.0/24  (replace)
              stops and detaches shop/web first
          2 replace  container/shop/web/1  after 1  because network/edge/front is replaced
              discards its writable layer
              address on edge/front: 10.40.0.2 → one of 10.41.0.0/24
        2 actions: 2 replace
    """)


def test_in_place_change_by_the_owner_concerns_no_borrower():
    changed = stack(
        "edge", networks={"front": NetworkSpec(subnet="10.40.0.0/24", icc=False)}, volumes={"files": VolumeSpec()}
    )
    assert "1 action: 1 update" in text(Known.of(edge, shop).plan(changed))


@pytest.mark.parametrize(
    ("network", "fields", "says"),
    [
        (NetworkSpec(driver="host"), {}, "network/edge/front is a host network, which nobody needs to borrow"),
        (NetworkSpec(subnet="10.40.0.0/24"), {"ipv4": "10.41.0.9"}, "address 10.41.0.9 on edge/front: it is outside"),
        (NetworkSpec(), {"ipv4": "10.41.0.9"}, "its owner gives that network no subnet"),
        (NetworkSpec(internal=True), {"ports": {"0.0.0.0:80/tcp": 80}}, "ports can't be published from internal"),
    ],
    ids=["host network", "address outside", "address in a pool", "ports on an internal network"],
)
def test_what_does_not_fit_the_owners_network_is_found_before_anything_changes(
    network: NetworkSpec, fields: dict[str, object], says: str
):
    attachment = Attachment(ipv4=str(fields.pop("ipv4", "")))
    wanted = borrower(networks={"edge/front": attachment}, **fields)
    assert says in refused(known=Known.of(stack("edge", networks={"front": network})), wanted=(wanted,))


def test_replicas_write_a_borrowed_volume_only_where_its_owner_lets_them():
    two = with_replicas(shop, web=2)
    assert refused(known=Known.of(edge), wanted=(two,)) == (
        "1 container/shop/web/2: replicas would write volume/edge/files together\n"
        "hint: mount it read_only, or let edge give it access: shared"
    )
    shared = stack("edge", networks={"front": NetworkSpec()}, volumes={"files": VolumeSpec(access="shared")})
    assert Known.of(shared).plan(two).actions
    assert Known.of(edge).plan(with_replicas(borrower(mounts=volume_at("/f", "edge/files", read_only=True)), web=2)).actions


def test_borrower_that_was_run_by_hand_is_deleted_by_its_name():
    error = Borrowed(FRONT, "replaced", ["container/run/x/1", "container/shop/web/1"])
    assert error.hint == "delete run/x and shop first, or take it out of the manifest of shop and apply"
    assert Borrowed(FRONT, "deleted", ["container/run/x/1"]).hint == "delete run/x first"
