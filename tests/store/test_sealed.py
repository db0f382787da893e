"""Sensitive values are nowhere in the root, and come back with its key only."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import SECRET, intent, made_root, secret_container, web

from reconciler.model.errors import RootError
from reconciler.model.events import PlanMade
from reconciler.model.key import Kind, make_key
from reconciler.model.plan import Action, Base, Change, Effect, Plan, Reason, Verb
from reconciler.model.record import ImageFact, Made, Record, Stack
from reconciler.model.spec import ContainerSpec, ImageSpec, Sensitive, VolumeSpec
from reconciler.store.sealed import Sealer, map_sensitive, sealed_json, unsealed, write_key

IMAGE = make_key(Kind.IMAGE, "blog", "app")


def planned(env: dict[str, str | Sensitive]) -> Plan:
    """A plan with something in every field that has specs."""
    specs = {IMAGE: ImageSpec(reference="app:1"), web(): ContainerSpec(image="app", env=env)}
    change = Change(path="/env/A", old=None, new="(sensitive)", effect=Effect.REPLACE)
    return Plan(
        stacks=("blog",),
        actions=(Action(id=1, verb=Verb.REPLACE, key=web(), reason=Reason.FIELD_CHANGED, changes=(change,)),),
        specs=specs,
        images={IMAGE: ImageFact(digest="sha256:aa")},
        bases=(Base(stack="blog", serial=4, origin="api"),),
        wanted=(Stack(name="blog", origin="api", source="blog.yaml", specs=specs),),
    )


@pytest.fixture(scope="module")
def sealer(tmp_path_factory: pytest.TempPathFactory) -> Sealer:
    root = tmp_path_factory.mktemp("sealer")
    write_key(root / "key")
    return Sealer(root)


def test_a_planted_secret_is_in_no_file_of_the_root(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    secret = secret_container()
    made = Made(key=web(), spec=secret.spec)
    wanted = Stack(name="blog", origin="api", source="-", specs={web(): secret.spec})
    with store.write() as tx:
        tx.put_record(msgspec.structs.replace(secret, status={"env": [Sensitive(SECRET)]}))
        tx.put_intent(msgspec.structs.replace(intent(secret), old=made))
        tx.add_revision(wanted, images={}, who="root", at=1.0, summary={})
        tx.add_events([PlanMade(plan={"specs": {web(): Sensitive(SECRET)}})], at=1.0)
    out = tmp_path / "root" / "saved.plan"
    out.write_bytes(sealed_json(planned({"TOKEN": Sensitive(SECRET)}), store.sealer))
    assert SECRET not in repr(secret)
    for _ in range(2):  # with the log, and after it went into the database
        files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
        assert {"reconcile.db", "key", "saved.plan"} <= {path.name for path in files}
        assert [path.name for path in files if SECRET.encode() in path.read_bytes()] == []
        assert b"PLAIN" in b"".join(path.read_bytes() for path in files)
        store.close()
    store.look()
    with store.read() as tx:
        record = tx.record(web())
        assert record is not None
        assert record.spec == secret.spec


def test_the_key_is_private_and_made_once(tmp_path: Path) -> None:
    made_root(tmp_path).close()
    key = tmp_path / "root" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes()
    made_root(tmp_path).close()
    assert len(before) == 32
    assert key.read_bytes() == before
    with pytest.raises(FileExistsError):
        write_key(key)


@pytest.mark.parametrize("content", [None, b"short", bytes(32)])
def test_without_the_right_key_nothing_is_opened_and_the_error_says_nothing(tmp_path: Path, content: bytes | None) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_records([secret_container()])
    store.close()
    key = tmp_path / "root" / "key"
    key.unlink() if content is None else key.write_bytes(content)
    store = made_root(tmp_path)
    with pytest.raises(RootError) as error, store.read() as tx:
        tx.records()
    assert str(key) in error.value.brief
    assert SECRET not in f"{error.value.brief}{error.value.detail}{error.value.hint}"


def test_a_changed_token_is_not_opened(sealer: Sealer) -> None:
    token = sealer.seal("text")
    changed = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    assert sealer.open(token) == "text"
    for wrong in (changed, "text", "", "sealed:1:", "sealed:1:%%"):
        with pytest.raises(RootError):
            sealer.open(wrong)


def test_the_same_value_is_sealed_differently_each_time(sealer: Sealer) -> None:
    assert sealed_json(Sensitive("x"), sealer) != sealed_json(Sensitive("x"), sealer)


environments = st.dictionaries(st.text(max_size=5), st.text() | st.text().map(Sensitive), max_size=4)


@settings(deadline=None)
@given(environments)
def test_plans_records_and_stacks_come_back_as_they_were(sealer: Sealer, env: dict[str, str | Sensitive]) -> None:
    plan = planned(env)
    spec = plan.specs[web()]
    values: list[Any] = [
        plan,
        plan.wanted[0],
        Record(key=web(), spec=spec, image="sha256:aa"),
        Made(key=web(), spec=spec),
        Record(key=make_key(Kind.VOLUME, "blog", "data"), spec=VolumeSpec()),
    ]
    for value in values:
        assert unsealed(sealed_json(value, sealer), type(value), sealer) == value


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{}", b'{"key": 3, "spec": {}}', b'{"key": "x", "spec": {}}', b"\xff"]
)
def test_bytes_that_are_not_what_was_saved_are_one_kind_of_error(sealer: Sealer, data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        unsealed(data, Record, sealer)


def test_a_label_that_looks_like_a_sensitive_value_is_left_alone(sealer: Sealer) -> None:
    spec = ContainerSpec(image="app", labels={"type": "sensitive", "value": "seen"})
    record = Record(key=web(), spec=spec)
    assert b'"seen"' in sealed_json(record, sealer)
    assert unsealed(sealed_json(record, sealer), Record, sealer) == record


def test_what_has_nothing_sensitive_is_not_copied_and_needs_no_key(tmp_path: Path) -> None:
    plan = planned({"A": "b"})
    assert map_sensitive(plan, str.upper) is plan
    assert unsealed(sealed_json(plan, Sealer(tmp_path)), Plan, Sealer(tmp_path)) == plan


def test_saving_a_secret_before_there_is_a_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="key for sensitive values can't be read"):
        sealed_json(planned({"A": Sensitive("b")}), Sealer(tmp_path / "nowhere"))
