"""Backups read by `restore`: hostile entries, cut and foreign archives, newer and older ones. Nothing is left of them."""

import io
import json
import os
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.engine.native.layout import Layout
from reconciler.engine.native.volumes import archive, managed
from reconciler.linux.tarball import Exactly
from reconciler.model.errors import ContentError, Failed, ReconcileError, RootError, RootInUse
from reconciler.model.events import silent
from reconciler.model.key import Key, Kind, container_key, make_key
from reconciler.model.record import Endpoint, Grants, Hold, Record, StackRecord
from reconciler.model.spec import Attachment, ContainerSpec, NetworkSpec, Sensitive, VolumeSpec
from reconciler.store import database
from reconciler.store.store import open_store
from reconciler.verbs.backup import backup
from reconciler.verbs.recover import recover
from reconciler.verbs.restore import restore
from reconciler.verbs.root import Root, opened_root, read_root_id
from tests.layers.tars import new_layout

pytestmark = pytest.mark.root

ID = "0123456789abcdef"
DATA = make_key(Kind.VOLUME, "blog", "data")
FRONT = make_key(Kind.NETWORK, "blog", "front")
WEB = container_key("blog", "web")
SECRET = "plant-7f3a9c-swordfish"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """A root with a stack, a network, a held container and a volume with a file in it; nothing of it is on the machine."""
    with opened_root(tmp_path / "root", create=True) as made:
        (link,) = [f"b{made.root_id}aaaaaaaa"]
        end = Endpoint(address="10.1.0.2", mac="02:00:00:00:00:01", link=f"v{made.root_id}01234567a")
        spec = ContainerSpec(image="app", networks={"front": Attachment()}, env={"TOKEN": Sensitive(SECRET)})
        records = [
            Record(key=FRONT, spec=NetworkSpec(), grants=Grants(link=link, subnet="10.1.0.0/24", gateway="10.1.0.1")),
            Record(key=DATA, spec=VolumeSpec(), grants=Grants(volume_id=ID), created_at=5.0),
            Record(key=WEB, spec=spec, grants=Grants(endpoints={"front": end}), incarnation="0123456789ab"),
        ]
        with made.store.write() as tx:
            tx.put_stack(StackRecord(name="blog", origin="file:/srv/blog.yaml"))
            tx.put_records(records)
            tx.grant_volume_id(ID, DATA)
            tx.set_hold(WEB, Hold(kind="stop", who="anna", when=1.0, why="tests"))
        layout = Layout(root=made.path, run=tmp_path / "run", root_id=made.root_id)
        managed.ensure_volume(layout, ID, key=DATA, spec=VolumeSpec(), created=5.0)
        (managed.volume_data(layout, ID) / "file").write_text("kept")
        yield made


def packed(root: Root, *, volumes: bool = True) -> bytes:
    out = io.BytesIO()
    backup(root, out, volumes=volumes, emit=silent)
    return out.getvalue()


def unpacked(data: bytes, tmp_path: Path, name: str = "new") -> Path:
    restore(tmp_path / name, io.BytesIO(data), what="host.tar")
    return tmp_path / name


Change = Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]


def changed(data: bytes, change: Change) -> bytes:
    """The archive with each entry as `change` says."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(mode="w", fileobj=out) as new:
        for info in old:
            file = old.extractfile(info) if info.isreg() else None
            for made, content in change(info, file.read() if file else b""):
                made.size = len(content)
                new.addfile(made, io.BytesIO(content))
    return out.getvalue()


def with_entry(data: bytes, name: str, kind: bytes = tarfile.REGTYPE, link: str = "", *, content: bytes = b"") -> bytes:
    """The archive with one entry more, after those of the volume."""

    def change(info: tarfile.TarInfo, body: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        more = tarfile.TarInfo(name)
        more.type, more.linkname = kind, link
        return [(more, content), (info, body)] if info.name == "end.json" else [(info, body)]

    return changed(data, change)


def test_restored_root_has_an_id_of_its_own_and_everything_else_as_it_was(root: Root, tmp_path: Path) -> None:
    place = unpacked(packed(root), tmp_path)
    new = read_root_id(place)
    assert new not in (None, root.root_id)
    with open_store(place).read() as tx:
        records = tx.records()
        assert records[FRONT].grants.link == f"b{new}aaaaaaaa"
        assert records[FRONT].grants.subnet == "10.1.0.0/24"
        end = records[WEB].grants.endpoints["front"]
        assert (end.address, end.mac, end.link) == ("10.1.0.2", "02:00:00:00:00:01", f"v{new}01234567a")
        assert records[WEB].spec.env["TOKEN"] == Sensitive(SECRET)
        assert records[WEB].hold == Hold(kind="stop", who="anna", when=1.0, why="tests")
        assert {grant.value for grant in tx.grants_in("link")} == {f"b{new}aaaaaaaa", f"v{new}01234567a"}
        assert [grant.value for grant in tx.grants_in("address")] == ["10.1.0.2"]
    assert (place / "volumes" / ID / "data/file").read_text() == "kept"
    assert json.loads((place / "volumes" / ID / "volume.json").read_text())["root_id"] == new
    assert (place / "key").stat().st_mode & 0o777 == 0o600
    there = {path.name for path in place.iterdir()} - {"reconcile.db-wal", "reconcile.db-shm"}
    assert there == {"id", "key", "reconcile.db", "volumes"}


HOSTILE: dict[str, tuple[Any, ...]] = {
    "a name that leads out": (f"volumes/{ID}/data/../../../../etc/passwd",),
    "an absolute name": ("/etc/reconcile-planted",),
    "a device": (f"volumes/{ID}/data/null", tarfile.CHRTYPE),
    "a hard link to the key": (f"volumes/{ID}/data/key", tarfile.LNKTYPE, "key"),
    "a hard link out": (f"volumes/{ID}/data/shadow", tarfile.LNKTYPE, f"volumes/{ID}/data/../../../etc/shadow"),
    "a name twice": (f"volumes/{ID}/data/file",),
    "a file in no folder": (f"volumes/{ID}/data/none/file",),
    "another file beside the data": (f"volumes/{ID}/lock",),
    "a volume that nobody has": ("volumes/ffffffffffffffff/data", tarfile.DIRTYPE),
    "a volume's id that is a path": ("volumes/../data/x",),
    "the database again": ("reconcile.db",),
    "an id": ("id",),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_entries_are_refused_and_nothing_is_left(root: Root, tmp_path: Path, case: str) -> None:
    data = with_entry(packed(root), *HOSTILE[case])
    with pytest.raises(ContentError):
        unpacked(data, tmp_path)
    assert not (tmp_path / "new").exists()


def test_link_in_the_archive_is_never_followed(root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    data = with_entry(packed(root), f"volumes/{ID}/data/way", tarfile.SYMTYPE, str(tmp_path / "outside"))
    data = with_entry(data, f"volumes/{ID}/data/way/planted", content=b"x")
    with pytest.raises(ContentError, match="folders of the volume"):
        unpacked(data, tmp_path)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 1.0])
def test_cut_archive_is_refused(root: Root, tmp_path: Path, part: float) -> None:
    data = packed(root)
    with pytest.raises(ReconcileError):
        unpacked(data[: int(data.rindex(b"end.json") * part)], tmp_path)
    assert not (tmp_path / "new").exists()


def test_archive_without_its_end_or_with_fewer_volumes_is_refused(root: Root, tmp_path: Path) -> None:
    data = packed(root)
    with pytest.raises(ContentError, match="cut"):
        unpacked(changed(data, lambda info, body: [(info, body)] if info.name != "end.json" else []), tmp_path)
    with pytest.raises(ContentError, match="1 volumes"):
        unpacked(changed(data, lambda info, body: [(info, body)] if "volumes/" not in info.name else []), tmp_path)


def manifest(data: bytes, **fields: Any) -> bytes:
    def change(info: tarfile.TarInfo, body: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        return [(info, json.dumps({**json.loads(body), **fields}).encode() if info.name == "manifest.json" else body)]

    return changed(data, change)


def test_what_is_newer_or_something_else_is_refused_with_a_way_out(root: Root, tmp_path: Path) -> None:
    data = packed(root)
    for fields in ({"version": 2}, {"schema": database.SCHEMA_VERSION + 1}):
        with pytest.raises(RootError, match="made by a newer reconcile") as raised:
            unpacked(manifest(data, **fields), tmp_path)
        assert raised.value.hint
    with pytest.raises(ContentError, match="reconcile-backup"):
        unpacked(manifest(data, format="other"), tmp_path)
    with pytest.raises(ContentError, match="expected"):
        unpacked(b"no tar at all" * 100, tmp_path)
    assert not (tmp_path / "new").exists()


def test_damaged_database_and_foreign_key_are_refused(root: Root, tmp_path: Path) -> None:
    def replaced(name: str, content: bytes) -> bytes:
        return changed(packed(root), lambda info, body: [(info, content if info.name == name else body)])

    with pytest.raises(RootError):
        unpacked(replaced("reconcile.db", b"SQLite format 3\0" + bytes(4096)), tmp_path)
    with pytest.raises(RootError, match="key"):
        unpacked(replaced("key", b"short"), tmp_path)
    with pytest.raises(RootError, match="not sealed with this key"):
        unpacked(replaced("key", bytes(32)), tmp_path)
    assert not (tmp_path / "new").exists()


def test_database_of_an_older_schema_is_restored_migrated(root: Root, tmp_path: Path) -> None:
    versions = Path(__file__).parents[1] / "store" / "versions"
    older = sqlite3.connect(":memory:", isolation_level=None)
    older.executescript((versions / "v0001.sql").read_text())
    older.execute("PRAGMA user_version = 1")
    older.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    image, key = older.serialize(), (versions / "key").read_bytes() if (versions / "key").exists() else b""
    older.close()

    def change(info: tarfile.TarInfo, body: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        bodies = {"reconcile.db": image, **({"key": key} if key else {})}
        return [(info, bodies.get(info.name, body))]

    place = unpacked(manifest(changed(packed(root, volumes=False), change), schema=1), tmp_path)
    with open_store(place).read() as tx:
        assert tx.records()
        assert tx.intents() == []


def test_nothing_is_written_over(root: Root, tmp_path: Path) -> None:
    data = packed(root)
    with pytest.raises(RootInUse):
        unpacked(data, tmp_path, "root")
    place = unpacked(data, tmp_path)
    before = (place / "id").read_bytes()
    with pytest.raises(RootInUse):
        unpacked(data, tmp_path)
    assert (place / "id").read_bytes() == before
    (tmp_path / "mounted" / "lost+found").mkdir(parents=True)
    unpacked(data, tmp_path, "mounted")
    with pytest.raises(RootInUse):
        recover(place)


def test_volume_that_changes_while_it_is_read_gives_a_whole_archive(root: Root, tmp_path: Path) -> None:
    """What was said of a file's size holds, whatever becomes of it."""
    number = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(number, b"x" * 10)
        assert Exactly(number, 20).read(20) == bytes(20)
        os.lseek(number, 0, os.SEEK_SET)
        assert Exactly(number, 20).read(20) == b"x" * 10 + bytes(10)
        os.lseek(number, 0, os.SEEK_SET)
        assert Exactly(number, 4).read(20) == b"x" * 4
    finally:
        os.close(number)


def test_devices_and_sockets_are_left_out_and_said(tmp_path: Path) -> None:
    layout = new_layout(tmp_path)
    managed.ensure_volume(layout, ID, key=DATA, spec=VolumeSpec(), created=5.0)
    os.mknod(managed.volume_data(layout, ID) / "null", 0o20600, os.makedev(1, 3))
    with tarfile.open(mode="w|", fileobj=io.BytesIO(), format=tarfile.PAX_FORMAT) as tar:
        (line,) = archive.pack_volume(layout, ID, tar)
    assert "null: a device or a socket" in line


def test_volume_with_data_is_not_filled_again(tmp_path: Path) -> None:
    layout = new_layout(tmp_path)
    managed.ensure_volume(layout, ID, key=Key(DATA), spec=VolumeSpec(), created=5.0)
    (managed.volume_data(layout, ID) / "file").touch()
    with pytest.raises(Failed, match="there is some already"):
        archive.open_unpacker(layout, ID)
