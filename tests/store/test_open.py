"""What opening a root makes, leaves alone and says: missing, lost, damaged, newer, locked, read-only, full."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from samples import container, made_root, web

from reconciler.model.errors import Failed, LockTimeout, ReconcileError, RootError
from reconciler.model.record import StackRecord
from reconciler.store.database import APPLICATION_ID, SCHEMA_VERSION, database_path
from reconciler.store.store import open_store


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_reading_a_root_that_does_not_exist_makes_none(tmp_path: Path) -> None:
    store = open_store(tmp_path / "root")
    with store.read() as tx:
        assert (tx.records(), tx.stacks(), tx.serial(), tx.used_digests()) == ({}, {}, 0, set())
    with pytest.raises(RootError, match="there is no database yet"), store.write():
        pass
    with store.read() as outer, store.read() as inner:
        assert outer.records() == inner.records() == {}
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_new_root_has_a_private_database_and_key(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    root = tmp_path / "root"
    assert root.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in root.iterdir()}
    store.close()
    assert set(modes) == {"key", "serial", "reconcile.db", "reconcile.db-wal", "reconcile.db-shm"}
    assert set(modes.values()) == {0o600}
    assert set(files_in(root)) == {"key", "serial", "reconcile.db"}


def test_the_database_keeps_the_promises_that_its_pragmas_make(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        pragmas = {
            name: tx._sql.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_reading_changes_no_file(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
    store.close()
    before = files_in(tmp_path / "root")
    store = open_store(tmp_path / "root")
    with store.read() as tx:
        assert len(tx.records()) == 1
        with pytest.raises(sqlite3.OperationalError):
            tx._sql.execute("DELETE FROM records")
    extra = set(files_in(tmp_path / "root")) - set(before)
    store.close()
    assert extra <= {"reconcile.db-wal", "reconcile.db-shm"}
    assert files_in(tmp_path / "root") == before


def test_eight_who_make_a_root_at_once_make_one(tmp_path: Path) -> None:
    ready = threading.Barrier(8)

    def make(number: int) -> None:
        ready.wait()
        store = open_store(tmp_path / "root", create=True)
        with store.write() as tx:
            tx.put_stack(StackRecord(name=f"s{number}", origin="api"))
        store.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    with open_store(tmp_path / "root").read() as tx:
        assert len(tx.stacks()) == 8
    assert not [name for name in files_in(tmp_path / "root") if ".new-" in name]


@pytest.mark.parametrize("create", [False, True])
def test_a_root_with_an_id_and_no_database_is_lost_and_not_new(tmp_path: Path, create: bool) -> None:
    (tmp_path / "id").write_text("abcde")
    with pytest.raises(RootError, match="has an id but no database") as error:
        open_store(tmp_path, create=create)
    assert "recover" in error.value.hint
    assert set(files_in(tmp_path)) == {"id"}


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def change(path: Path, *statements: str) -> None:
    sql = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        sql.execute(statement)
    sql.close()


def read_all(root: Path, *, create: bool) -> None:
    store = open_store(root, create=create)
    with store.read() as tx:
        tx.records()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_bytes(b"these are not the records you look for\n" * 200), "not a database"),
    "empty": (lambda path: path.write_bytes(b""), "not a database of reconcile, or it was emptied"),
    "cut": (lambda path: os.truncate(path, 8192), "damaged"),
    "pages": (lambda path: overwrite(path, 4096, b"\xff" * (path.stat().st_size - 4096)), "damaged"),
    "foreign": (lambda path: change(path, "PRAGMA application_id = 1"), "not a database of reconcile"),
    "newer": (lambda path: change(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}"), "made by a newer reconcile"),
    "tables": (lambda path: change(path, "DROP TABLE holds"), "not what the schema's version says"),
    "rows": (
        lambda path: change(path, "UPDATE records SET spec = '{\"command\": 3}'"),
        "a row of the database can't be read",
    ),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "can't be opened"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("create", [False, True])
def test_x4_a_database_that_can_not_be_used_is_said_so_and_left_alone(tmp_path: Path, damage: str, create: bool) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_records([container(web(index)) for index in range(1, 100)])
    store.close()
    path = store.path
    do, words = DAMAGES[damage]
    do(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(RootError, match=words) as error:
        read_all(path.parent, create=create)
    assert str(path) in error.value.brief
    assert error.value.hint
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_x4_a_deleted_log_is_said_and_not_taken_for_the_truth(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    root = store.path.parent
    lost = tmp_path / "copy"
    lost.mkdir()
    with store.write() as tx:
        tx.put_record(container())
    for name in ("reconcile.db", "key", "serial"):
        (lost / name).write_bytes((root / name).read_bytes())  # as a kill leaves it, with the -wal removed
    store.close()
    with pytest.raises(RootError, match="older than its root") as error:
        open_store(lost)
    assert str(lost / "serial") in error.value.hint
    (lost / "serial").unlink()
    open_store(lost).close()
    open_store(root).close()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"0"])
def test_a_serial_file_that_is_not_whole_is_no_reason_to_refuse(tmp_path: Path, content: bytes) -> None:
    made_root(tmp_path).close()
    (tmp_path / "root" / "serial").write_bytes(content)
    open_store(tmp_path / "root").close()


HOLDER = """
import sys
from pathlib import Path
from reconciler.store.store import open_store
with open_store(Path(sys.argv[1])).write() as tx:
    tx.bump("blog")
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(root: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_x4_a_lock_that_is_not_had_names_its_holder_and_reading_goes_on(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    store.close()
    process = start_holder(store.path.parent)
    store = open_store(store.path.parent, timeout=0.05)
    with pytest.raises(LockTimeout, match=rf"python\S* \(pid {process.pid}\)"), store.write():
        pass
    with store.read() as tx:
        assert list(tx.stacks()) == ["blog"]
    process.communicate("", timeout=30)
    with store.write() as tx:
        tx.put_record(container())


def test_a_thread_that_waits_too_long_is_told_so(tmp_path: Path) -> None:
    made_root(tmp_path).close()
    store = open_store(tmp_path / "root", timeout=0.05)
    with store.write(), ThreadPoolExecutor(1) as pool:

        def write() -> None:
            with store.write():
                pass

        with pytest.raises(LockTimeout, match="another thread"):
            pool.submit(write).result()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from samples import container, intent, web
from reconciler.store.store import open_store
store = open_store(Path(sys.argv[1]))
with store.write() as tx:
    tx.put_record(container(web(1)))
with store.write() as tx:
    tx.put_records([container(web(index)) for index in range(2, 2000)])
    tx.put_intents([intent(container(web(index))) for index in range(2, 2000)])
    tx.grant_ports(web(2), ["0.0.0.0:80/tcp"])
    tx.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_a_writer_killed_in_its_middle_leaves_what_was_committed(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.path.parent), str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    store = open_store(store.path.parent)
    with store.read() as tx:
        assert list(tx.records()) == [web(1)]
        assert tx.intents() == []
    with store.write() as tx:
        tx.grant_ports(web(3), ["0.0.0.0:80/tcp"])
        assert tx._sql.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def in_a_mount_namespace(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


TRY = """
import sys
from pathlib import Path
from reconciler.model.errors import ReconcileError
from reconciler.model.record import StackRecord
from reconciler.store.store import open_store
try:
    store = open_store(Path(sys.argv[1]), create=True)
    for number in range(4000):
        with store.write() as tx:
            tx.put_stack(StackRecord(name=f"s{number}", origin="x" * 4000))
except ReconcileError as error:
    print(type(error).__name__, error.brief, error.detail, sep="|")
try:
    with store.read() as tx:
        print(len(tx.stacks()) > 0)
except NameError:
    pass
"""


@pytest.mark.root
def test_x4_a_read_only_file_system_is_said_so(tmp_path: Path) -> None:
    made_root(tmp_path).close()
    root = tmp_path / "root"
    done = in_a_mount_namespace(
        'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; "$2" -c "$3" "$1"', str(root), sys.executable, TRY
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"RootError|{root}/reconcile.db: ")
    assert "read-only" in done.stdout


@pytest.mark.root
def test_a_full_disk_is_said_so_and_takes_nothing_back(tmp_path: Path) -> None:
    done = in_a_mount_namespace(
        'mount -t tmpfs -o size=3m tmpfs "$1"; "$2" -c "$3" "$1/root"; chmod 700 "$1/root"',
        str(tmp_path),
        sys.executable,
        TRY,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith(f"Failed|{tmp_path}/root/reconcile.db: writing the database failed: the disk is full")
    assert second == "True"


LOOK = """
import sys
from pathlib import Path
from reconciler.model.errors import ReconcileError
from reconciler.store.store import open_store
store = open_store(Path(sys.argv[1]))
with store.read() as tx:
    print(*tx.stacks())
try:
    with store.write() as tx:
        tx.bump("blog")
except ReconcileError as error:
    print(error.brief)
"""


@pytest.mark.root
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', "read-only"),
        ('dd if=/dev/zero of="$1/fill" bs=1k 2>/dev/null || true', "the disk is full"),
    ],
    ids=["read-only", "full"],
)
@pytest.mark.parametrize("log", ["kept", "taken in"])
def test_what_takes_no_writes_is_read_all_the_same(tmp_path: Path, spoil: str, words: str, log: str) -> None:
    """A disk that is full, or that the kernel took the writing from, must not blind who looks what still runs."""
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_stack(StackRecord(name="blog", origin="x"))
    root = tmp_path / "root"
    script = f'mount -t tmpfs -o size=2m tmpfs "$4"; cp "$1"/* "$4"; set -- "$4" "$2" "$3"; rm -f "$1"/*-shm; {spoil}; '
    (tmp_path / "small").mkdir()
    if log == "taken in":
        store.close()
    done = in_a_mount_namespace(
        script + '"$2" -c "$3" "$1"', str(root), sys.executable, LOOK, str(tmp_path / "small")
    )  # fmt: skip
    assert done.stderr == ""
    read, refused = done.stdout.splitlines()
    assert read == "blog"
    assert words in refused


READ = """
import sys
from pathlib import Path
from reconciler.store.store import open_store
store = open_store(Path(sys.argv[1]))
with store.read() as tx:
    assert len(tx.records()) == 1
    tx.stacks(), tx.intents(), tx.revisions("blog"), tx.events()
with store.write() as tx:
    tx.bump("blog")
store.close()
print(sorted({name.split(".")[0] for name in sys.modules} & {"sqlalchemy", "alembic", "cryptography", "asyncio", "email"}))
"""


def test_neither_reading_nor_writing_imports_sqlalchemy_or_cryptography(tmp_path: Path) -> None:
    store = made_root(tmp_path)
    with store.write() as tx:
        tx.put_record(container())
    store.close()
    done = subprocess.run([sys.executable, "-c", READ, str(store.path.parent)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_error_has_a_way_out(tmp_path: Path) -> None:
    from reconciler.store.database import explain_error

    codes = [getattr(sqlite3, name) for name in dir(sqlite3) if name.startswith("SQLITE_") and name.isupper()]
    for code in {code for code in codes if isinstance(code, int) and 0 < code < 27}:
        error = sqlite3.OperationalError("words")
        error.sqlite_errorcode = code
        found = explain_error(error, database_path(tmp_path))
        assert isinstance(found, ReconcileError)
        assert found.hint
        assert isinstance(found, Failed | LockTimeout)


def test_the_application_id_is_our_name() -> None:
    assert APPLICATION_ID.to_bytes(4, "big") == b"reco"
