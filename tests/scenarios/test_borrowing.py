"""Networks and volumes of other stacks: who reaches whom, who may delete what, and two commands at once."""

import pytest

from lab.world import World

pytestmark = pytest.mark.root


@pytest.fixture
def lent(world: World) -> World:
    world.use("borrowing")
    world.run("apply", "shop.yaml", "edge.yaml", "--yes", check=0)
    return world


def reach(world: World, container: str, url: str) -> bool:
    return "It works" in world.run("exec", container, "timeout", "3", "wget", "-q", "-O", "-", url).out


def address(world: World, name: str, network: str) -> str:
    return str(world.record(name)["status"]["addresses"][network][0])


def test_borrowers_meet_on_the_lent_network_and_nowhere_else(lent: World):
    lent.run("apply", "pics.yaml", "--yes", check=0)
    assert reach(lent, "shop/web", "http://gate:8080/")
    assert reach(lent, "edge/proxy", "http://store:8080/")
    assert reach(lent, "pics/web", "http://proxy:8080/")
    back = address(lent, "shop/web", "back")
    assert reach(lent, "shop/db", f"http://{back}:8080/")
    assert not reach(lent, "edge/proxy", f"http://{back}:8080/"), "what is not lent is apart"
    assert not reach(lent, "pics/web", f"http://{back}:8080/")
    assert "It works" in lent.fetch("http://127.0.0.1:8090/"), "ports are published on a borrowed network"


def test_a_name_that_two_borrowers_have_means_both(lent: World):
    lent.run("apply", "pics.yaml", "--yes", check=0)
    both = {address(lent, "shop/web", "edge/front"), address(lent, "pics/web", "edge/front")}
    said = lent.run("exec", "edge/proxy", "nslookup", "web", check=0).out
    assert all(one in said for one in both), said


def test_borrowed_volume_is_the_owners_data(lent: World):
    lent.run("exec", "edge/proxy", "sh", "-c", "echo bread > /files/list", check=0)
    assert lent.run("exec", "shop/web", "cat", "/files/list", check=0).out == "bread\n"
    lent.run("delete", "shop", "--volumes", "--yes", check=0)
    assert lent.run("exec", "edge/proxy", "cat", "/files/list", check=0).out == "bread\n"


def test_applying_again_plans_nothing_in_any_order(lent: World):
    for paths in (["edge.yaml"], ["shop.yaml"], ["edge.yaml", "shop.yaml"]):
        assert lent.run("plan", *paths).code == 0
    assert lent.run("drift").code == 0
    assert lent.run("describe", "network/front", "-o", "json").json()[0]["borrowed_by"] == ["container/shop/web/1"]


def test_stack_that_is_not_there_is_named_before_anything_changes(world: World):
    world.use("borrowing")
    said = world.run("apply", "shop.yaml", "--yes", check=1).err
    assert "container/shop/web/1: borrow network/edge/front: there is no stack edge" in said
    assert "apply the stack edge first, or both manifests in one command" in said
    assert world.records() == {}


def test_owner_is_not_deleted_while_it_is_borrowed(lent: World):
    pid = lent.pid("edge/proxy")
    for what in (["edge"], ["edge.yaml"], ["network/edge/front"], ["edge", "--volumes"]):
        said = lent.run("delete", *what, "--yes", check=3).err
        assert "it is borrowed by container/shop/web/1" in said or "uses it" in said, said
    assert lent.pid("edge/proxy") == pid
    lent.run("delete", "shop", "--yes", check=0)
    assert lent.pid("edge/proxy") == pid
    lent.run("delete", "edge", "--volumes", "--yes", check=0)
    assert lent.records() == {}


def test_network_is_made_anew_only_together_with_its_borrowers(lent: World):
    lent.edit(lent.folder / "edge.yaml", "10.60.1.0/24", "10.60.2.0/24")
    said = lent.run("apply", "edge.yaml", "--yes", check=3).err
    assert "network/edge/front can't be replaced: it is borrowed by container/shop/web/1" in said
    assert "in one command" in said
    lent.run("apply", "edge.yaml", "shop.yaml", "--yes", check=0)
    assert address(lent, "shop/web", "edge/front").startswith("10.60.2.")
    assert reach(lent, "shop/web", "http://gate:8080/")
    assert "It works" in lent.fetch("http://127.0.0.1:8090/")


def test_bridge_that_others_removed_is_mended_by_owner_and_borrower(lent: World):
    pid = lent.pid("shop/web")
    link = next(item for key, item in lent.records().items() if key == "network/edge/front")["status"]["link"]
    lent.nsenter("ip", "link", "delete", link)
    assert "apply the stack edge first" in lent.run("apply", "shop.yaml", "--yes", check=1).err
    assert "apply shop too" in lent.run("apply", "edge.yaml", "--yes", check=0).out
    lent.run("apply", "shop.yaml", "--yes", check=0)
    assert lent.pid("shop/web") == pid
    assert reach(lent, "shop/web", "http://gate:8080/")


def test_of_a_borrowers_apply_and_its_owners_delete_at_once_one_loses_cleanly(world: World):
    world.use("borrowing")
    for _ in range(3):
        world.run("apply", "edge.yaml", "--yes", check=0)
        borrow = world.popen("apply", "pics.yaml", "--yes")
        world.run("delete", "edge", "--volumes", "--yes")
        borrow.communicate(timeout=120)
        there = {key.split("/")[1] for key in world.records() if key.startswith(("container/pics", "network/edge"))}
        assert there != {"pics"}, "a borrower runs on a network that is gone"
        if "pics" in there:
            assert world.run("apply", "edge.yaml", "pics.yaml", "--yes").code == 0
            world.run("delete", "pics", "--yes", check=0)
        world.run("delete", "edge", "--volumes", "--yes")
        world.run("delete", "pics", "--yes")
    assert world.records() == {}
