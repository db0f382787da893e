"""Packing and unpacking by descriptors, with archives and folders that mean harm."""

import errno
import io
import os
import signal
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.linux import tarball

pytestmark = pytest.mark.root


def archive(*entries: tuple[str, bytes, str]) -> io.BytesIO:
    """A tar of (name, type, content or link)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, rest in entries:
            header = tarfile.TarInfo(name)
            header.type, header.mode = kind, 0o4755
            if kind == tarfile.REGTYPE:
                header.size = len(rest)
            else:
                header.linkname = rest
            tar.addfile(header, io.BytesIO(rest.encode()))
    out.seek(0)
    return out


@contextmanager
def below(folder: Path) -> Iterator[tarball.Place]:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield tarball.Place(folder=opened)
    finally:
        os.close(opened)


def unpack(stream: io.BytesIO, place: tarball.Place, *, set_ids: bool = False) -> list[str]:
    skipped: list[str] = []
    tarball.unpack(stream, place, owner=(0, 0), set_ids=set_ids, skipped=skipped.append)
    return skipped


FILE, LINK, HARD, FOLDER, DEVICE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    "entries",
    [
        [("../out", FILE, "x")],
        [("a/../../out", FILE, "x")],
        [("a", LINK, "HOST"), ("a/out", FILE, "x")],
        [("a", LINK, ".."), ("a/out", FILE, "x")],
        [("a", LINK, "HOST"), ("b", LINK, "a"), ("b/out", FILE, "x")],
        [("a", LINK, "HOST"), ("h", HARD, "a/canary")],
        [("h", HARD, "../host/canary")],
    ],
)
def test_D1_archive_that_leads_out_writes_and_reads_nothing_there(tmp_path: Path, entries: list[tuple[str, bytes, str]]):
    host, here = tmp_path / "host", tmp_path / "here"
    host.mkdir()
    here.mkdir()
    (host / "canary").write_text("alive")
    stream = archive(*((name, kind, rest.replace("HOST", str(host))) for name, kind, rest in entries))
    with below(here) as place, pytest.raises(OSError, match=r"(?i)leads out|loop|symbolic|not a directory|cross"):
        unpack(stream, place)
    assert [path.name for path in host.iterdir()] == ["canary"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "host"]
    assert (host / "canary").stat().st_nlink == 1


def test_absolute_names_stay_inside_links_are_replaced_and_devices_left_out(tmp_path: Path):
    (tmp_path / "host").write_text("alive")
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").symlink_to(tmp_path / "host")
    with below(here) as place:
        skipped = unpack(archive(("/abs/file", FILE, "x"), ("file", FILE, "new"), ("dev", DEVICE, "")), place)
    assert (here / "abs/file").read_text() == "x"
    assert (here / "file").read_text() == "new"
    assert (tmp_path / "host").read_text() == "alive"
    assert skipped == ["dev"]
    assert stat.S_IMODE((here / "file").stat().st_mode) == 0o755  # without its setuid bit


def test_inside_a_root_links_lead_about_in_it(tmp_path: Path):
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("/usr/lib")
    (root / "up").symlink_to("../../../..")
    opened = os.open(root, os.O_PATH)
    try:
        place = tarball.Place("/", root=opened)
        unpack(archive(("lib/a", FILE, "x"), ("up/b", FILE, "y")), place, set_ids=True)
    finally:
        os.close(opened)
    assert (root / "usr/lib/a").read_text() == "x"
    assert (root / "b").read_text() == "y"
    assert stat.S_IMODE((root / "b").stat().st_mode) == 0o4755
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_what_is_packed_comes_back_as_it_was(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep/er").mkdir(parents=True)
    (source / "file").write_text("text")
    os.link(source / "file", source / "deep/hard")
    (source / "deep/link").symlink_to("../nowhere")
    os.mkfifo(source / "fifo")
    os.chown(source / "file", 7, 8)
    (source / "file").chmod(0o4711)
    target.mkdir()
    out, skipped = io.BytesIO(), []
    opened = os.open(source, os.O_PATH)
    tarball.pack(opened, "top", out, skipped=skipped.append)
    os.close(opened)
    out.seek(0)
    with below(target) as place:
        tarball.unpack(out, place, owner=None, set_ids=True, skipped=skipped.append)
    top = target / "top"
    assert (top / "file").read_text() == "text"
    assert (top / "deep/hard").samefile(top / "file")
    assert (top / "deep/link").readlink() == Path("../nowhere")
    assert (top / "fifo").is_fifo()
    found = (top / "file").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o4711)
    assert skipped == []


@contextmanager
def swapping(folder: Path) -> Iterator[None]:
    """A process that puts `own` in the place of `x`, over and over."""
    child = os.fork()
    if child == 0:
        while True:
            with suppress(OSError):
                os.link(folder / "own", folder / "swap")
            with suppress(OSError):
                os.rename(folder / "swap", folder / "x")  # noqa: PTH104 - nothing but the call
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("kind", [FILE, tarfile.FIFOTYPE, FOLDER])
def test_D1_file_put_in_the_place_of_what_is_unpacked_becomes_neither_roots_nor_setuid(tmp_path: Path, kind: bytes):
    own = tmp_path / "own"
    own.touch(mode=0o600)
    os.chown(own, 1000, 1000)
    stream = archive(("x", kind, "new" if kind == FILE else ""))
    tries = 0
    with swapping(tmp_path), below(tmp_path) as place:
        for _ in range(1500):
            stream.seek(0)
            with suppress(OSError):
                unpack(stream, place, set_ids=True)
                tries += 1
            with suppress(OSError):
                (tmp_path / "x").rmdir()
            found = own.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (1000, 0o600)
    assert tries or kind != FILE


def test_file_takes_its_name_once_it_is_whole_and_the_old_one_keeps_it_until_then(tmp_path: Path):
    (tmp_path / "x").write_text("old")
    whole = archive(("x", FILE, "new" * 1000)).getvalue()
    with below(tmp_path) as place:
        with pytest.raises(tarfile.ReadError):
            unpack(io.BytesIO(whole[: 512 + 1000]), place)
        assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x", "old")]
        unpack(io.BytesIO(whole), place)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x", "new" * 1000)]


def test_where_no_file_is_without_a_name_nothing_is_left_of_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(tarball.os, "open", refuse)
    test_file_takes_its_name_once_it_is_whole_and_the_old_one_keeps_it_until_then(tmp_path)


def test_header_that_would_be_read_whole_is_bounded(tmp_path: Path):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with below(tmp_path) as place, pytest.raises(OSError, match="too large"):
        unpack(io.BytesIO(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16)), place)


@pytest.mark.parametrize("cut", [1024, 1024 + 100, 1024 + 512, 2048, 0])
def test_tar_that_breaks_off_is_an_error_wherever_it_does(tmp_path: Path, cut: int):
    """Between two entries, in a header, before the data of a file, after the last entry; and before the first."""
    whole = archive(("a", FILE, "one"), ("b", FILE, "two")).getvalue()
    with below(tmp_path) as place, pytest.raises((OSError, tarfile.ReadError), match=r"breaks off|end of data"):
        unpack(io.BytesIO(whole[:cut]), place)
    assert (tmp_path / "a").exists() == (cut >= 1024)
    with below(tmp_path) as place:
        unpack(io.BytesIO(whole[: 2048 + 512]), place)
        assert (tmp_path / "b").read_text() == "two"
        with pytest.raises(tarfile.ReadError):
            unpack(io.BytesIO(whole[:1024] + b"x" * 1024), place)
