"""What is written is read back, with serials and holds as the contract says."""

import contextlib
from pathlib import Path

import msgspec
import pytest
from samples import APPLY, DIGEST, NETWORK, container, intent, made_root, secret_container, web

from reconciler.model.errors import Failed
from reconciler.model.events import ActionDone, Note
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.record import Endpoint, Grants, Hold, Intent, Made, Record, Stack, StackRecord
from reconciler.model.spec import ImageSpec, NetworkSpec, VolumeSpec
from reconciler.store import revisions as stored_revisions
from reconciler.store.events import Retention, write_retention

STOP = Hold(kind="stop", who="root", when=12.5, why="maintenance")


def every_kind() -> list[Record]:
    endpoint = Endpoint(address="10.40.0.2", mac="02:00:00:00:00:01", link="vaaaaa123456780")
    return [
        Record(key=make_key(Kind.IMAGE, "blog", "app"), spec=ImageSpec(reference="docker.io/library/app:1"), image=DIGEST),
        Record(key=NETWORK, spec=NetworkSpec(subnet="10.40.0.0/24"), grants=Grants(link="b1", subnet="10.40.0.0/24")),
        Record(
            key=make_key(Kind.VOLUME, "blog", "data"), spec=VolumeSpec(labels={"a": "b"}), grants=Grants(volume_id="v1")
        ),
        container(
            incarnation="0123456789ab",
            grants=Grants(endpoints={"front": endpoint}),
            status={"phase": "running", "pid": 12},
            created_at=3.5,
        ),
        secret_container(web(2)),
    ]


def test_records_of_every_kind_come_back_as_they_were(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    records = every_kind()
    with store.write() as tx:
        tx.put_records(records)
        serial = tx.serial()
    with store.read() as tx:
        found = tx.records()
        alone = tx.record(web(2))
    assert found == {record.key: msgspec.structs.replace(record, serial=serial) for record in records}
    assert alone == found[web(2)]


def test_records_are_read_of_the_stacks_that_are_asked_for(tmp_path: Path) -> None:
    store = made_root(tmp_path, "blog", "shop")
    with store.write() as tx:
        tx.put_records([container(), container(web(stack="shop"))])
    with store.read() as tx:
        assert list(tx.records(["shop"])) == [web(stack="shop")]
        assert list(tx.records([])) == []
        assert list(tx.records()) == [web(), web(stack="shop")]


def test_a_record_without_its_stack_is_refused(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with pytest.raises(Failed, match="refused what contradicts it"), store.write() as tx:
        tx.put_record(container(web(stack="nobody")))


def test_a_stack_with_records_is_not_deleted(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
    with pytest.raises(Failed), store.write() as tx:
        tx.delete_stack("blog")
    with store.write() as tx:
        tx.delete_record(web())
        tx.delete_stack("blog")
    with store.read() as tx:
        assert tx.stacks() == {}


def test_an_error_takes_the_whole_transaction_back(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with contextlib.suppress(ZeroDivisionError), store.write() as tx:
        tx.put_record(container())
        tx.grant_link("vaaaaa123456780", web())
        raise ZeroDivisionError
    with store.read() as tx:
        assert tx.records() == {}
        assert tx.grants_in("link") == []


def test_a_savepoint_takes_back_only_what_was_done_in_it(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        before = tx.serial()
        tx.grant_link("kept", web())
        with contextlib.suppress(ZeroDivisionError), tx.savepoint():
            tx.grant_link("lost", web())
            tx.grant_address(NETWORK, web(), "10.0.0.0/24", "10.0.0.1")
            assert len(tx.grants_of(web())) == 3
            tx.put_record(container())
            raise ZeroDivisionError
        assert tx.serial() == before
        assert tx.grant_address(NETWORK, web(2), "10.0.0.0/24", "10.0.0.1") == "10.0.0.2"
        tx.put_record(container(web(2)))
    with store.read() as tx:
        assert list(tx.records()) == [web(2)]
        assert tx.serial() == before + 1
        assert {grant.value for pool in ("link", "address") for grant in tx.grants_in(pool)} == {"kept", "10.0.0.2"}


def test_serials_grow_once_a_transaction_and_only_for_the_stack_that_changed(tmp_path: Path) -> None:
    store = made_root(tmp_path, "blog", "shop")
    with store.read() as tx:
        first = tx.stacks()
    with store.write() as tx:
        tx.put_record(container())
        tx.put_record(container(web(2)))
        assert tx.bump("blog") == tx.serial()
    with store.read() as tx:
        stacks, records = tx.stacks(), tx.records()
        assert stacks["shop"] == first["shop"]
        assert stacks["blog"].serial == first["blog"].serial + 1
        assert {record.serial for record in records.values()} == {tx.serial()}


def test_what_was_only_seen_makes_no_plan_stale(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
    with store.read() as tx:
        before = tx.stacks()["blog"].serial
    with store.write() as tx:
        tx.put_statuses({web(): {"phase": "exited", "exit_code": 3}})
    with store.read() as tx:
        assert tx.records()[web()].status == {"phase": "exited", "exit_code": 3}
        assert tx.stacks()["blog"].serial == before


def test_a_hold_survives_an_apply_that_does_not_know_of_it(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
    with store.write() as tx:
        tx.set_hold(web(), STOP)
    with store.write() as tx:
        tx.put_record(container(hold=None, incarnation="ffffffffffff"))
    with store.read() as tx:
        record = tx.record(web())
        assert record is not None
        assert (record.hold, record.incarnation) == (STOP, "ffffffffffff")
    with store.write() as tx:
        tx.set_hold(web(), None)
    with store.read() as tx:
        assert tx.holds() == {}


def test_a_hold_goes_with_its_record_and_needs_one(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
        tx.set_hold(web(), STOP)
        tx.delete_record(web())
    with store.read() as tx:
        assert tx.holds() == {}
    with pytest.raises(Failed), store.write() as tx:
        tx.set_hold(web(), STOP)


def test_an_open_intent_is_seen_until_it_is_finished(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    old, new = secret_container(), container(spec={"command": ("new",)})
    begun = Intent(
        key=web(),
        stack="blog",
        verb="replace",
        apply=APPLY,
        begun_at=9.0,
        old=Made(key=web(), spec=old.spec, image=DIGEST, incarnation="a" * 12),
        new=Made(key=web(), spec=new.spec, image="sha256:new", incarnation="b" * 12),
    )
    with store.write() as tx:
        tx.put_record(old)
        numbers = tx.put_intents([begun, intent(container(web(2)))])
    with store.read() as tx:
        first, second = tx.intents()
        assert first == msgspec.structs.replace(begun, id=numbers[0])
        assert (second.key, second.id) == (web(2), numbers[1])
        assert tx.intents(["shop"]) == []
        record = tx.record(web())
        assert record is not None
        assert record.unfinished == "replace"
        assert "sha256:new" in tx.used_digests()
    with store.write() as tx:
        tx.finish_intents(numbers)
    with store.read() as tx:
        assert tx.intents() == []
        assert tx.records()[web()].unfinished == ""
    with store.write() as tx:
        assert tx.put_intent(intent(old)) > max(numbers), "an id is never given twice"


def test_revisions_are_numbered_kept_in_number_and_gone_with_their_stack(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    image = make_key(Kind.IMAGE, "blog", "app")
    wanted = Stack(
        name="blog",
        origin="file:/srv/blog.yaml",
        source="blog.yaml",
        specs={image: ImageSpec(reference="app:1"), web(): secret_container().spec},
    )
    with store.write() as tx:
        for number in range(1, stored_revisions.KEPT + 3):
            images = {image: f"sha256:{number}"}
            assert tx.add_revision(wanted, images=images, who="root", at=float(number), summary={"create": 2}) == number
        tx.finish_revision("blog", number, result="done")
    with store.read() as tx:
        found = tx.revisions("blog")
        assert [revision.number for revision in found] == list(range(3, stored_revisions.KEPT + 3))
        assert (found[-1].result, found[-1].images, found[-1].summary) == (
            "done",
            {image: f"sha256:{number}"},
            {"create": 2},
        )
        whole = tx.revision("blog", number)
        assert whole is not None
        assert whole.wanted == wanted
        assert tx.revision("blog", 1) is None
        assert tx.used_digests() == {f"sha256:{number}" for number in range(3, stored_revisions.KEPT + 3)}
    with store.write() as tx:
        tx.delete_stack("blog")
    with store.read() as tx:
        assert tx.revisions("blog") == []
        assert tx.used_digests() == set()


def test_a_digest_is_used_by_records_and_leases_and_by_nothing_unknown(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
        tx.put_record(msgspec.structs.replace(container(web(2)), image="unknown"))
        tx.lease("sha256:hand", "busybox:1")
        tx.lease("sha256:hand", "busybox:1")
        tx.lease("sha256:hand", "busybox:latest")
    with store.read() as tx:
        assert tx.used_digests() == {DIGEST, "sha256:hand"}
        assert [lease.name for lease in tx.leases()] == ["busybox:1", "busybox:latest"]
    with store.write() as tx:
        tx.drop_lease("sha256:hand", "busybox:1")
        assert [lease.name for lease in tx.leases()] == ["busybox:latest"]
        tx.drop_lease("sha256:hand")
        assert tx.leases() == []


def test_events_are_read_on_from_where_one_was(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    key = container_key("shop", "web")
    with store.write() as tx:
        tx.add_events([Note(text="one"), ActionDone(id=1, verb="create", key=key, took=0.5)], at=7.0, stack="blog")
        tx.add_events([Note(text="two", at=3.0)], at=8.0, stack="blog")
    with store.read() as tx:
        every = tx.events()
        assert [(e.at, e.stack, e.key) for e in every] == [(7.0, "blog", ""), (7.0, "shop", key), (3.0, "blog", "")]
        assert every[1].event == ActionDone(id=1, verb="create", key=key, took=0.5, at=7.0)
        assert tx.events(every[0].id, limit=1) == [every[1]]
        assert tx.events(stack="blog", limit=1) == [every[2]]
        assert tx.events(every[2].id) == []


def test_events_are_kept_by_number_and_age_as_the_root_says(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    write_retention(tmp_path / "root", Retention(keep=5, age=60.0))
    with store.write() as tx:
        tx.add_events([Note(text=f"old {number}") for number in range(3)], at=100.0)
        tx.add_events([Note(text="new")], at=150.0)
    with store.read() as tx:
        assert len(tx.events()) == 4
        assert [one.event.text for one in tx.events(at=120.0)] == ["new"]
    with store.write() as tx:
        tx.add_events([Note(text="newer")], at=170.0)
    with store.read() as tx:
        assert [one.event.text for one in tx.events()] == ["new", "newer"]
    with store.write() as tx:
        tx.add_events([Note(text=str(number)) for number in range(9)], at=171.0)
    with store.read() as tx:
        assert [one.event.text for one in tx.events()] == list("45678")


def test_events_are_kept_by_size_some_at_a_time_and_the_newest_whatever_its_size(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.add_events([Note(text="x" * 1000) for _ in range(1300)], at=1.0)
    write_retention(tmp_path / "root", Retention(size=100_000))
    left = []
    for _ in range(4):  # Who writes meanwhile waits for five hundred of them at most.
        with store.write() as tx:
            more = tx.shrink_events()
        with store.read() as tx:
            left.append((len(tx.events(1, limit=2000)), more))
    [kept] = {count for count, _ in left[2:]}
    assert 90 <= kept < 100
    assert left[:2] == [(800, True), (300, True)]
    assert [more for _, more in left[2:]] == [False, False]
    with store.write() as tx:  # By whoever writes, too: after each 64 of them.
        tx.add_events([Note(text="y" * 1000) for _ in range(64)], at=2.0)
    with store.read() as tx:
        assert len(tx.events(1, limit=2000)) == kept
    with store.write() as tx:
        tx.add_events([Note(text="z" * 200_000)], at=3.0)
    with store.read() as tx:
        assert [one.at for one in tx.events(1, limit=2000)] == [3.0]


def test_only_the_newest_events_are_kept(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    kept = Retention().keep
    many = [Note(text=str(number)) for number in range(kept)]
    with store.write() as tx:
        tx.add_events(many, at=1.0)
        tx.add_events(many[:5], at=2.0)
    with store.read() as tx:
        found = tx.events(1, limit=2 * kept)
    assert len(found) == kept
    assert (found[0].event, found[-1].at) == (Note(text="5", at=1.0), 2.0)


def test_a_reader_sees_one_moment_while_another_writes(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.read() as tx:
        before = tx.stacks()
        with store.write() as writer:
            writer.put_stack(StackRecord(name="shop", origin="api"))
        assert tx.stacks() == before
    with store.read() as tx:
        assert "shop" in tx.stacks()


@pytest.mark.parametrize("number", [2**63, 2**200])
def test_events_after_a_number_that_no_database_holds_are_none(tmp_path: Path, number: int) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.add_events([Note(text="one")], at=7.0)
    with store.read() as tx:
        assert tx.events(number) == []
        assert len(tx.events(-number)) == 1
