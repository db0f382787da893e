"""Contents as stored: sealed, once each, opened with the root's key only."""

from pathlib import Path

import pytest
from samples import SECRET, made_root

from reconciler.model.errors import Failed, RootError
from reconciler.store.store import Store, open_store

DIGEST = "hmac-sha256:" + "5e" * 32


def kept(tmp_path: Path) -> Store:
    store = made_root(tmp_path)
    sealed = {DIGEST: store.sealer.seal_bytes(SECRET.encode() + b"\xff\x00")}
    with store.write() as tx:
        tx.put_contents(sealed)
        tx.put_contents(sealed)
    return store


def test_content_is_read_back_as_the_bytes_that_it_was(tmp_path: Path) -> None:
    store = kept(tmp_path)
    assert store.read_content(DIGEST) == SECRET.encode() + b"\xff\x00"
    with store.read() as tx:
        assert tx.kept_contents() == {DIGEST}
    store.close()


def test_nothing_on_disk_has_it_in_clear(tmp_path: Path) -> None:
    kept(tmp_path).close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_another_key_does_not_open_it(tmp_path: Path) -> None:
    kept(tmp_path).close()
    (tmp_path / "root" / "key").write_bytes(b"k" * 32)
    store = open_store(tmp_path / "root")
    with pytest.raises(RootError, match="not sealed with this key"):
        store.read_content(DIGEST)
    store.close()


def test_content_that_nothing_names_is_dropped_and_then_missed_by_name(tmp_path: Path) -> None:
    store = kept(tmp_path)
    with store.write() as tx:
        assert tx.drop_unused_contents() == 1
        assert tx.drop_unused_contents() == 0
    with pytest.raises(Failed, match="not kept any more"):
        store.read_content(DIGEST)
    store.close()
