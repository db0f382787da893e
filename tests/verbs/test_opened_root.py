"""Opening a root while others do."""

from pathlib import Path

import pytest

from reconciler.model.errors import RootError
from reconciler.model.key import container_key
from reconciler.model.record import Record, StackRecord
from reconciler.model.spec import ContainerSpec
from reconciler.verbs import root as opening

WEB = container_key("blog", "web")


def make_root(path: Path) -> str:
    with opening.opened_root(path, create=True, engine="memory") as made, made.store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="x"))
        tx.put_record(Record(key=WEB, spec=ContainerSpec(image="app")))
        return made.root_id


@pytest.mark.parametrize("create", [True, False])
def test_x10_root_that_another_process_made_meanwhile_has_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool
) -> None:
    """Seen once: of two first applies one was told that the root had lost its id."""
    path = tmp_path / "root"
    root_id = make_root(path)
    answers = [None]
    read = opening.read_root_id
    monkeypatch.setattr(opening, "read_root_id", lambda path: answers.pop() if answers else read(path))
    with opening.opened_root(path, create=create, engine="memory") as found:
        assert found.root_id == root_id
        with found.store.read() as tx:
            assert list(tx.records()) == [WEB]


def test_root_that_lost_its_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "root"
    make_root(path)
    (path / "id").unlink()
    with pytest.raises(RootError, match="has lost its id"), opening.opened_root(path, create=True, engine="memory"):
        pass
    assert not (path / "id").exists()
