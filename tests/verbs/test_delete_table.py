"""What a delete comes to: how it is asked for, whose the stack is, what of it is borrowed; without and with --take-over.

Whole deletes by the verb, on a root whose engine is the memory one. The owner `edge` has a container, a network and a
volume; `shop` borrows nothing, the network, or the volume.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from plan.builders import container, stack, volume_at
from reconciler.engine.memory.engine import MemoryEngine
from reconciler.engine.memory.machine import Machine, Published
from reconciler.model.errors import Borrowed, OriginDiffers, ReconcileError, Refused
from reconciler.model.key import Key, Kind, container_key, make_key, stack_of
from reconciler.model.record import Stack
from reconciler.model.spec import NetworkSpec, VolumeSpec
from reconciler.store.store import open_store
from reconciler.verbs.apply import ApplyOptions, apply
from reconciler.verbs.delete import Doomed, delete
from reconciler.verbs.face import Face
from reconciler.verbs.plan import Wish
from reconciler.verbs.root import Root

FRONT, FILES = make_key(Kind.NETWORK, "edge", "front"), make_key(Kind.VOLUME, "edge", "files")
PROXY = container_key("edge", "proxy")
YES = ApplyOptions(yes=True, wait=False)

ASKED = {
    "stack": Doomed(stack="edge"),
    "stack+volumes": Doomed(stack="edge", all_volumes=True),
    "its manifest": Doomed(stack="edge", origin="file:/srv/edge.yaml"),
    "another manifest": Doomed(stack="edge", origin="file:/tmp/edge.yaml"),
    "the network": Doomed(stack="edge", keys=(FRONT,)),
    "the volume": Doomed(stack="edge", keys=(FILES,), volumes=("files",)),
    "the container": Doomed(stack="edge", keys=(PROXY,)),
}
"""How people ask."""

OWNERS = {"file": "file:/srv/edge.yaml", "source": "source:fleet"}
"""Whose the stack is."""

# gone: done, exit 0. origin, borrowed: refused, exit 3, nothing is changed. One word is both without and with --take-over.
TABLE = """
    asked for         owner    borrowed: nothing    network             volume
    stack             file     gone                 borrowed            gone
    stack             source   origin gone          origin borrowed     origin gone
    stack+volumes     file     gone                 borrowed            borrowed
    stack+volumes     source   origin gone          origin borrowed     origin borrowed
    its manifest      file     gone                 borrowed            gone
    its manifest      source   origin gone          origin borrowed     origin gone
    another manifest  file     origin gone          origin borrowed     origin gone
    another manifest  source   origin gone          origin borrowed     origin gone
    the network       file     gone                 borrowed            gone
    the network       source   origin gone          origin borrowed     origin gone
    the volume        file     gone                 gone                borrowed
    the volume        source   origin gone          origin gone         origin borrowed
    the container     file     gone                 gone                gone
    the container     source   origin gone          origin gone         origin gone
"""


def cells() -> Iterator[tuple[str, str, str, bool, str]]:
    head, *rows = TABLE.strip("\n").splitlines()
    starts = [head.index(word) for word in ("asked", "owner", "borrowed:", "network", "volume")]
    for row in rows:
        asked, owner, *outcomes = (row[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True))
        for borrowed, outcome in zip(("nothing", "network", "volume"), outcomes, strict=True):
            words = outcome.split()
            yield asked, owner, borrowed, False, words[0]
            yield asked, owner, borrowed, True, words[-1]


CELLS = list(cells())


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    machine = Machine()
    machine.registry["registry.test/app:1"] = Published(digest="sha256:" + "a" * 64)
    store = open_store(tmp_path / "root", create=True)
    made = Root(tmp_path / "root", root_id="aaaaa", store=store, engine=MemoryEngine(machine))
    yield made
    made.close()


def own(origin: str) -> Stack:
    return stack(
        "edge", networks={"front": NetworkSpec()}, volumes={"files": VolumeSpec()}, proxy=container(), origin=origin
    )


def borrow(what: str) -> Stack:
    networks = ("edge/front",) if what == "network" else ()
    mounts = volume_at("/files", "edge/files") if what == "volume" else {}
    made = stack("shop", web=container(networks=networks, mounts=mounts), origin="file:/srv/shop.yaml")
    return structs.replace(made, specs={key: spec for key, spec in made.specs.items() if "/shop/edge/" not in key})


def records(root: Root) -> dict[Key, object]:
    with root.store.read() as tx:
        return dict(tx.records())


@pytest.mark.parametrize(
    ("asked", "owner", "borrowed", "take_over", "outcome"),
    CELLS,
    ids=[f"{a}, owned by a {o}, borrowed {b}{', --take-over' if t else ''}: {w}" for a, o, b, t, w in CELLS],
)
def test_delete(root: Root, asked: str, owner: str, borrowed: str, *, take_over: bool, outcome: str) -> None:
    apply(root, Wish(stacks=(own(OWNERS[owner]), borrow(borrowed))), YES, face=Face())
    before = records(root)
    doomed = structs.replace(ASKED[asked], take_over=take_over)
    refusal: ReconcileError | None = None
    try:
        delete(root, doomed, YES, face=Face())
    except Refused as error:
        refusal = error
    after = records(root)
    assert {key for key in before if stack_of(key) == "shop"} <= after.keys()
    if outcome == "gone":
        assert refusal is None
        gone = set(doomed.keys) or {key for key in before if stack_of(key) == "edge"} - (
            set() if doomed.all_volumes else {FILES}
        )
        assert before.keys() - after.keys() == gone
        return
    assert before == after
    assert refusal is not None
    assert refusal.exit_code == 3
    if outcome == "origin":
        assert isinstance(refusal, OriginDiffers)
        assert OWNERS[owner] in refusal.brief
        assert "--take-over" in refusal.hint
    else:
        assert isinstance(refusal, Borrowed)
        assert "borrowed by container/shop/web/1" in refusal.brief
        assert "delete shop first" in refusal.hint


@pytest.mark.parametrize("owner", OWNERS)
def test_apply_of_what_another_owns_is_refused_until_it_is_taken_over(root: Root, owner: str) -> None:
    apply(root, Wish(stacks=(own(OWNERS[owner]),)), YES, face=Face())
    other = structs.replace(own("file:/tmp/edge.yaml"), source="/tmp/edge.yaml")
    with pytest.raises(OriginDiffers) as caught:
        apply(root, Wish(stacks=(other,)), YES, face=Face())
    assert caught.value.brief == f"stack edge belongs to {OWNERS[owner]}, not to file:/tmp/edge.yaml"
    assert "--take-over" in caught.value.hint
    assert ("source fleet" in caught.value.hint) == (owner == "source")
    apply(root, Wish(stacks=(other,), take_over=True), YES, face=Face())
    with root.store.read() as tx:
        assert tx.stacks()["edge"].origin == "file:/tmp/edge.yaml"


def test_source_applies_and_deletes_what_is_its_own(root: Root) -> None:
    apply(root, Wish(stacks=(own("source:fleet"),)), YES, face=Face())
    apply(root, Wish(stacks=(own("source:fleet"),)), YES, face=Face())
    delete(root, Doomed(stack="edge", origin="source:fleet", all_volumes=True), YES, face=Face())
    assert records(root) == {}
