"""Data that an apply would put out of sight: what is refused, with the ways out in the text, and what goes through."""

import pytest
from msgspec.structs import replace

from plan.builders import AA, BB, DATA, Known, container, golden, stack, text, volume_at
from reconciler.model.errors import Borrowed, Refused
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.observation import Phase
from reconciler.model.record import ImageFact
from reconciler.model.spec import Mount, VolumeSpec

DB = container_key("blog", "db")
STORE = make_key(Kind.VOLUME, "blog", "store")


def one(target: str = "/data", source: str = "data", **fields: object):
    return stack(db=container(mounts=volume_at(target, source, **fields)))


def moved(**volumes: str):
    """A stack whose `db` has `store` at /data, and volumes with where they come from."""
    wanted = stack(db=container(mounts=volume_at("/data", "store")))
    named = {make_key(Kind.VOLUME, "blog", name): VolumeSpec(moved=old) for name, old in volumes.items()}
    return replace(wanted, specs={**wanted.specs, **named})


def refusal(known: Known, wanted, **options: object) -> str:
    with pytest.raises(Refused) as caught:
        known.plan(wanted, **options)
    error = caught.value
    assert error.exit_code == 3
    return f"{error.brief}\n{error.detail}\n{error.hint}"


def declares(*paths: str, digest: str = AA) -> dict[str, ImageFact]:
    return {"app": ImageFact(digest=digest, local=True, volumes=paths)}


def test_renamed_volume_is_refused():
    assert refusal(Known.of(one()), one(source="store")) == golden("""
        container/blog/db/1: data that are there now would be out of sight; nothing was changed
        container/blog/db/1: /data is volume/blog/data, which is not empty;
        container/blog/db/1: it would be volume/blog/store, which is new and empty
        to keep the data: write `moved: {from: data}` below store under `volumes:`
        to go on without them: --accept-data-loss container/blog/db/1
    """)


def test_mount_that_is_taken_away_is_refused():
    wanted = stack(db=container(), volumes={"data": VolumeSpec()})
    assert refusal(Known.of(one()), wanted) == golden("""
        container/blog/db/1: data that are there now would be out of sight; nothing was changed
        container/blog/db/1: /data is volume/blog/data, which is not empty;
        container/blog/db/1: it would be in the container's writable layer
        to keep the data: mount data at /data again
        to go on without them: --accept-data-loss container/blog/db/1
    """)


def test_image_whose_volume_has_another_path_is_refused():
    plain = stack(db=container())
    known = Known.of(plain, facts=declares("/data"))
    told = refusal(known, plain, facts=declares("/var/data", digest=BB))
    assert told == golden("""
        container/blog/db/1: data that are there now would be out of sight; nothing was changed
        container/blog/db/1: /data is volume/blog/db-1@/data, which is not empty;
        container/blog/db/1: it would be in the container's writable layer
        to keep the data: declare a volume with `moved: {from: "db-1@/data"}`, and mount it at /data
        to go on without them: --accept-data-loss container/blog/db/1
    """)


def test_container_under_a_new_name_is_refused_where_its_image_makes_it_a_new_volume():
    known = Known.of(stack(db=container()), facts=declares("/data"))
    told = refusal(known, stack(database=container()), facts=declares("/data"))
    assert told == golden("""
        container/blog/database/1: data that are there now would be out of sight; nothing was changed
        container/blog/database/1: /data would be volume/blog/database-1@/data, which is new;
        container/blog/database/1: container/blog/db/1, which leaves, has data there in volume/blog/db-1@/data
        to keep the data: declare a volume with `moved: {from: "db-1@/data"}`, and mount it at /data
        to go on without them: --accept-data-loss container/blog/database/1
    """)


def test_other_part_of_a_volume_is_refused():
    assert refusal(Known.of(one(subpath="a")), one(subpath="b")) == golden("""
        container/blog/db/1: data that are there now would be out of sight; nothing was changed
        container/blog/db/1: /data is volume/blog/data, which is not empty;
        container/blog/db/1: its folder a is mounted, and its folder b would be
        to keep the data: move what is in its folder a to its folder b by hand first
        to go on without them: --accept-data-loss container/blog/db/1
    """)


def test_path_of_the_host_that_becomes_a_new_volume_is_refused():
    bound = stack(db=container(mounts={"/data": Mount(type="bind", source="/srv/db")}))
    told = refusal(Known.of(bound), one())
    assert "/data is the host's /srv/db, which is not empty;" in told
    assert "it would be volume/blog/data, which is new and empty" in told
    read_only = stack(db=container(mounts={"/data": Mount(type="bind", source="/srv/db", read_only=True)}))
    assert Known.of(read_only).plan(one()).actions


def test_volume_whose_folder_is_gone_is_refused():
    assert refusal(Known.of(one()).gone(DATA), one()) == golden("""
        volume/blog/data: what is on record is not on the machine; nothing was changed
        volume/blog/data: its folder is gone; an empty one would take its place
        mount the disk that holds it, and apply again
        to have it made anew and empty: --accept-data-loss volume/blog/data
    """)


def test_volume_that_is_made_anew_restarts_who_has_the_lost_folder_mounted():
    assert text(Known.of(one()).gone(DATA).plan(one(), accept_loss=frozenset({"data"}))) == golden("""
          1 create   volume/blog/data              because it is gone from the machine
              its folder is gone: it is made anew, and empty (accepted)
          2 restart  container/blog/db/1  after 1  because volume/blog/data is replaced
        2 actions: 1 create, 1 restart
    """)


def test_volume_that_is_gone_is_not_made_anew_by_mending():
    plan = Known.of(one()).gone(DATA).plan_drift()
    assert (plan.actions, plan.lost) == ((), (DATA,))


def test_all_refusals_are_told_at_once():
    before = stack(db=container(mounts=volume_at("/data", "data")), web=container(mounts=volume_at("/www", "www")))
    after = stack(
        db=container(mounts=volume_at("/data", "store")),
        web=container(mounts=volume_at("/www", "www")),
        volumes={"www": VolumeSpec(driver="x")},
    )
    told = refusal(Known.of(before), after)
    assert told.startswith("volume/blog/www, container/blog/db/1: ")
    assert "/driver  local → x  (refuse)" in told
    assert "--accept-data-loss container/blog/db/1" in told
    assert "1. declare a volume under a new name" in told


# --- what goes through


@pytest.mark.parametrize("form", ["container/blog/db/1", "db", "db/1", "db-1", "blog/db", "container/db"])
def test_accepted_loss_is_told_and_the_volume_is_kept(form: str):
    plan = Known.of(one()).plan(one(source="store"), accept_loss=frozenset({form}))
    assert text(plan) == golden("""
          1 create   volume/blog/store             because it is new in the manifest
          2 replace  container/blog/db/1  after 1  because /mounts/~1data/source changed
              /mounts/~1data/source  data → store  (replace)
              discards its writable layer
              no longer sees volume/blog/data at /data: accepted, its data are kept
          volume/blog/data  kept: no longer in the manifest; `reconcile delete volume/blog/data` removes it
        2 actions: 1 create, 1 replace
    """)


def test_one_acceptance_is_not_another():
    for form in ("data", "db/2", "web", "volume/blog/data"):
        refusal(Known.of(one()), one(source="store"), accept_loss=frozenset({form}))


def test_empty_volume_is_no_loss():
    known = Known.of(one()).seen(DATA, empty=True)
    assert known.plan(one(source="store")).actions
    assert known.plan(stack(db=container())).actions


def test_volume_that_is_there_and_filled_may_take_the_place():
    both = stack(db=container(mounts=volume_at("/data", "data")), volumes={"store": VolumeSpec()})
    assert Known.of(both).plan(one(source="store")).actions
    told = refusal(Known.of(both).seen(STORE, empty=True), one(source="store"))
    assert "would be volume/blog/store, which is empty" in told
    assert "mount data as before, or copy its data into store first" in told


def test_volume_that_is_mounted_from_elsewhere_may_have_the_data():
    share = {"store": VolumeSpec(driver_opts={"type": "nfs", "device": "nas:/db"})}
    assert Known.of(one()).plan(stack(db=container(mounts=volume_at("/data", "store")), volumes=share)).actions
    memory = {"store": VolumeSpec(driver_opts={"type": "tmpfs", "device": "tmpfs"})}
    refusal(Known.of(one()), stack(db=container(mounts=volume_at("/data", "store")), volumes=memory))


def test_same_volume_at_another_path_is_seen_there():
    assert Known.of(one()).plan(one(target="/srv")).actions


def test_mount_of_the_folder_above_counts_by_what_it_is():
    known = Known.of(one(target="/var/lib/data"))
    bind = stack(db=container(mounts={"/var/lib": Mount(type="bind", source="/srv")}), volumes={"data": VolumeSpec()})
    assert known.plan(bind).actions
    assert "would be volume/blog/new, which is new and empty" in refusal(known, one(target="/var/lib", source="new"))
    memory = stack(db=container(mounts={"/var/lib/data": Mount(type="tmpfs")}))
    assert "it would be memory (tmpfs)" in refusal(known, memory)


def test_who_only_read_a_volume_may_leave_it():
    known = Known.of(one(read_only=True))
    assert known.plan(stack(db=container(), volumes={"data": VolumeSpec()})).actions
    refusal(known, one(source="store", read_only=True))


def test_dropped_volume_of_an_image_is_kept_and_told_once_it_is_accepted():
    plain = stack(db=container())
    known = Known.of(plain, facts=declares("/data"))
    plan = known.plan(plain, facts=declares(digest=BB), accept_loss=frozenset({"db"}))
    assert [line.key for line in plan.lines] == ["volume/blog/db-1@/data"]
    empty = known.seen(Key("volume/blog/db-1@/data"), empty=True)
    assert [line.key for line in empty.plan(plain, facts=declares(digest=BB)).lines] == ["volume/blog/db-1@/data"]


def test_container_that_leaves_takes_no_data_from_one_that_shares_nothing_with_it():
    known = Known.of(one())
    named = stack(other=container(mounts=volume_at("/data", "data")))
    assert known.plan(named).actions, "the volume goes with its name"
    redis = stack(other=container("redis", mounts=volume_at("/data", "cache")))
    assert known.plan(redis, facts={"redis": ImageFact(digest=BB, local=True)}).actions, "another image"


# --- moved


def test_moved_volume_takes_the_folder_over_before_who_mounts_it():
    assert text(Known.of(one()).plan(moved(store="data"))) == golden("""
          1 update   volume/blog/store             because it takes over another's folder
              /name  data → store  (in-place)
          2 replace  container/blog/db/1  after 1  because /mounts/~1data/source changed
              /mounts/~1data/source  data → store  (replace)
              discards its writable layer
        2 actions: 1 update, 1 replace
    """)


def test_moved_volume_is_moved_once():
    assert Known.of(moved(store="data")).plan(moved(store="data")).actions == ()
    assert [a.reason.value for a in Known().plan(moved(store="data")).actions] == ["new"] * 3


def test_volume_of_an_image_is_moved_to_a_name():
    known = Known.of(stack(db=container()), facts=declares("/data"))
    plan = known.plan(moved(store="db-1@/data"), facts=declares("/data"))
    assert [(a.verb.value, a.key, a.reason.value) for a in plan.actions] == [
        ("update", STORE, "moved"),
        ("replace", DB, "field-changed"),
    ]


def test_two_volumes_of_which_one_is_to_become_the_other_are_refused():
    both = stack(db=container(mounts=volume_at("/data", "data")), volumes={"store": VolumeSpec()})
    assert "volume/blog/store: it is on record, and so is volume/blog/data" in refusal(Known.of(both), moved(store="data"))


def test_moved_volume_whose_folder_is_gone_is_refused():
    known = Known.of(one()).gone(DATA)
    assert "--accept-data-loss volume/blog/store" in refusal(known, moved(store="data"))
    assert known.plan(moved(store="data"), accept_loss=frozenset({"store"})).actions


def test_volume_that_another_stack_borrows_keeps_its_name():
    lender = one()
    borrower = stack("shop", web=container(mounts=volume_at("/data", "blog/data")))
    specs = {key: spec for key, spec in borrower.specs.items() if "blog" not in key}
    known = Known.of(lender, replace(borrower, specs=specs))
    with pytest.raises(Borrowed, match="volume/blog/data can't be moved"):
        known.plan(moved(store="data"))


def test_sizes_of_what_is_discarded_are_told():
    known = Known.of(one()).seen(DB, Phase.RUNNING, size=12_000_000)
    plan = known.plan(stack(db=container(mounts=volume_at("/data", "data"), env={"A": "1"})))
    assert plan.actions[0].notes == ("discards its writable layer (12.0 MB)",)


def test_each_replica_s_own_volume_takes_over_that_of_its_index():
    def own(name: str, old: str = ""):
        names = {f"{name}@{index}": VolumeSpec(moved=old) for index in (1, 2)}
        return stack(db=container(mounts=volume_at("/data", f"{name}@1")), volumes=names)

    plan = Known.of(own("data")).plan(own("store", "data"))
    assert [(a.key, a.reason.value) for a in plan.actions[:2]] == [
        ("volume/blog/store@1", "moved"),
        ("volume/blog/store@2", "moved"),
    ]
    plain = Known.of(one())
    assert "write `moved: {from: data}` below data under `volumes:`" in refusal(plain, own("data"))
    assert [(a.key, a.reason.value) for a in plain.plan(own("data", "data")).actions[:2]] == [
        ("volume/blog/data@1", "moved"),
        ("volume/blog/data@2", "new"),
    ]
