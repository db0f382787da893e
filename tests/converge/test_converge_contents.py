"""Contents on their way: kept before anything is made of them, given to who sees them, back where a change failed."""

import hashlib

import pytest
from converge_bench import Bench
from msgspec.structs import replace

from plan.builders import container, stack
from reconciler.converge.keep import keep_contents
from reconciler.model.content import pack
from reconciler.model.key import Kind, container_key, make_key
from reconciler.model.observation import Phase
from reconciler.model.plan import Plan
from reconciler.model.record import ApplyId, Intent, Made, Record, Stack, StackRecord
from reconciler.model.spec import ConfigSpec, FileMount

WEB = container_key("blog", "web")
TARGET = "/etc/app.conf"


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def blog(text: str, **file: object) -> Stack:
    """`web` with a config of this text."""
    made = stack(web=container(configs={TARGET: FileMount(source="app", digest=digest(text), **file)}))  # type: ignore[arg-type]
    return replace(made, specs={**made.specs, make_key(Kind.CONFIG, "blog", "app"): ConfigSpec(digest=digest(text))})


def plan(bench: Bench, text: str, **file: object) -> Plan:
    return replace(bench.plan(blog(text, **file)), contents={digest(text): pack(text.encode())})


def apply(bench: Bench, text: str, **file: object) -> bool:
    with bench.store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="name:blog"))
    return not bench.run(plan(bench, text, **file)).failed


def seen(bench: Bench) -> bytes:
    """What the container that runs sees."""
    [thing] = [thing for thing in bench.machine.find(WEB) if thing.phase is Phase.RUNNING]
    return thing.files[TARGET]


def test_container_sees_what_its_spec_says_by_digest(bench: Bench) -> None:
    assert apply(bench, "one")
    assert seen(bench) == b"one"
    assert bench.lines(blog("one")) == ["nothing to do"]
    first = bench.pids()
    assert apply(bench, "two")
    assert seen(bench) == b"two"
    assert bench.pids() != first


def test_replacement_that_does_not_start_leaves_the_old_one_with_the_old_file(bench: Bench) -> None:
    apply(bench, "one")
    bench.machine.fail_next("start", WEB, "it does not like it")
    assert not apply(bench, "two")
    assert seen(bench) == b"one"
    assert bench.records()[WEB].spec == blog("one").specs[WEB]
    # Its record says the old digest, by which the old file is found whenever it is made again.
    bench.machine.vanish(WEB)
    assert apply(bench, "one")
    assert seen(bench) == b"one"


def test_file_changes_beneath_who_says_nothing_and_a_signal_tells(bench: Bench) -> None:
    hup = {"on_change": "nothing", "signal": "SIGHUP"}
    apply(bench, "one", **hup)
    pids = bench.pids()
    assert apply(bench, "two", **hup)
    assert bench.pids() == pids
    assert seen(bench) == b"two"
    [thing] = bench.machine.find(WEB)
    assert thing.signals == ["SIGHUP"]


def test_restart_brings_the_new_file_with_the_same_incarnation(bench: Bench) -> None:
    apply(bench, "one", on_change="restart")
    before, pids = bench.records()[WEB].incarnation, bench.pids()
    assert apply(bench, "two", on_change="restart")
    assert seen(bench) == b"two"
    assert bench.records()[WEB].incarnation == before
    assert bench.pids() != pids


def test_what_a_revision_wanted_is_made_again_without_any_file(bench: Bench) -> None:
    apply(bench, "one")
    old = blog("one")
    apply(bench, "two")
    assert bench.run(bench.plan(old)).failed == ()  # a plan without contents: all of them are kept
    assert seen(bench) == b"one"


def test_content_that_is_not_kept_any_more_fails_its_container_by_name(bench: Bench) -> None:
    apply(bench, "one")
    with bench.store.write() as tx:
        tx.delete_record(WEB)
        tx.delete_record(make_key(Kind.CONFIG, "blog", "app"))
        assert tx.drop_unused_contents() == 1
    bench.machine.vanish(WEB)
    assert bench.run(bench.plan(blog("one"))).failed == (WEB,)
    assert "is not kept any more" in bench.failures()[0].brief
    assert "apply again" in bench.failures()[0].hint


def test_contents_are_kept_before_the_first_action(bench: Bench) -> None:
    with bench.store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="name:blog"))
    keep_contents(plan(bench, "one"), bench.ground)
    assert bench.machine.calls == []
    assert bench.store.read_content(digest("one")) == b"one"


@pytest.mark.parametrize("named_by", ["record", "intent", "revision"])
def test_content_stays_as_long_as_something_names_it(bench: Bench, named_by: str) -> None:
    spec = blog("one").specs[WEB]
    keep_contents(plan(bench, "one"), bench.ground)
    with bench.store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="name:blog"))
        if named_by == "record":
            tx.put_record(Record(key=WEB, spec=spec))
        elif named_by == "intent":
            made = Made(key=WEB, spec=spec)
            apply_id = ApplyId(pid=1, start_time=1, boot_id="b")
            tx.put_intent(Intent(key=WEB, stack="blog", verb="create", apply=apply_id, begun_at=1.0, new=made))
        else:
            tx.add_revision(blog("one"), images={}, who="me", at=1.0, summary={})
        assert tx.drop_unused_contents() == 0
    assert bench.store.read_content(digest("one")) == b"one"
