"""The tar reader: every dialect gives the same entries, and no bytes make it do anything but that or say why not."""

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine import tarentry
from reconciler.engine.native.layers.onepass import Contradiction, OnePass
from reconciler.engine.native.layers.rewrite import render_header
from reconciler.engine.tarentry import Entry, Limits
from reconciler.engine.tarstream import TarStream
from reconciler.model.errors import ContentError
from tests.layers.tars import digest, folder, hardlink, member, padded, pieces, raw_header, symlink, tar

END = bytes(1024)


def read(data: bytes, *, chunk: int = 10_007, **limits: Any) -> list[tuple[Entry, bytes]]:
    stream = TarStream(pieces(data, chunk), what="layer", limits=Limits(**limits))
    return [(entry, b"".join(stream.data()) if entry.size else b"") for entry in stream.entries()]


def names(data: bytes, **limits: Any) -> list[bytes]:
    return [entry.name for entry, _ in read(data, **limits)]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 511, 512, 4096, 1 << 20])
def test_every_dialect_and_every_size_of_chunk_gives_the_same_entries(format: int, size: int) -> None:
    long = "/".join(["folder-" + "x" * 20] * 4)
    data = tar(
        folder("./"),
        folder("a/", mode=0o1777, uid=1000, gid=1001, mtime=1_600_000_000),
        member("./a/file", b"content" * 1000, mode=0o4755, mtime=1_600_000_001),
        member(f"{long}/file", b"x"),
        symlink("a/link", "../../etc/passwd"),
        hardlink("a/hard", "./a/file"),
        member("null", type=tarfile.CHRTYPE, device=(1, 3)),
        member("fifo", type=tarfile.FIFOTYPE),
        format=format,
    )
    entries = read(data, chunk=size)
    assert [entry.name for entry, _ in entries] == [
        b"", b"a", b"a/file", f"{long}/file".encode(), b"a/link", b"a/hard", b"null", b"fifo",
    ]  # fmt: skip
    top, file = entries[1][0], entries[2][0]
    assert (top.mode, top.uid, top.gid, top.mtime) == (0o1777, 1000, 1001, 1_600_000_000 * 10**9)
    assert (file.mode, file.size, entries[2][1]) == (0o4755, 7000, b"content" * 1000)
    assert entries[4][0].link == b"../../etc/passwd"
    assert entries[5][0].link == b"a/file"
    assert (entries[6][0].major, entries[6][0].minor) == (1, 3)


def test_long_names_big_numbers_and_attributes_are_read() -> None:
    long = "n" * 200 + "/" + "m" * 200
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar(
            member(long, b"x", uid=4_000_000_000, gid=3_000_000, mtime=1.5 if format == tarfile.PAX_FORMAT else 1),
            symlink("link", long),
            format=format,
        )
        (file, _), (link, _) = read(data)
        assert file.name == long.encode()
        assert (file.uid, file.gid) == (4_000_000_000, 3_000_000)
        assert file.mtime == (1_500_000_000 if format == tarfile.PAX_FORMAT else 1_000_000_000)
        assert link.link == long.encode()
    data = tar(member("a", xattrs={"user.a": "b\nc=d", "security.capability": "\x01"}))
    assert read(data)[0][0].xattrs == {b"user.a": b"b\nc=d", b"security.capability": b"\x01"}


def test_negative_times_of_base_256_and_the_ustar_prefix_are_read() -> None:
    data = raw_header(b"file", prefix=b"some/prefix", mtime=b"\xff" * 12) + END
    ((entry, _),) = read(data)
    assert (entry.name, entry.mtime) == (b"some/prefix/file", -1_000_000_000)


def test_old_tars_say_folder_by_the_slash_alone() -> None:
    data = raw_header(b"old/", type=b"\0", magic=bytes(8)) + END
    assert read(data)[0][0].type == tarentry.DIRECTORY


def test_sizes_of_links_and_folders_mean_nothing() -> None:
    data = raw_header(b"d/", type=b"5", size=4096) + raw_header(b"l", type=b"1", link=b"x", size=77) + END
    assert [(entry.name, entry.size) for entry, _ in read(data)] == [(b"d", 0), (b"l", 0)]


def test_labels_global_headers_and_old_name_lists_are_passed_over() -> None:
    record = b"19 path=not-for-us\n"
    data = (
        raw_header(b"label", type=b"V")
        + raw_header(b"g", type=b"g", size=len(record))
        + padded(record)
        + raw_header(b"file", size=1)
        + padded(b"x")
        + END
    )
    assert names(data) == [b"file"]


@pytest.mark.parametrize("data", [b"", END, bytes(512), bytes(10240)])
def test_an_empty_tar_has_no_entries(data: bytes) -> None:
    assert read(data) == []


def test_a_tar_may_end_without_blocks_of_zeros_and_what_follows_them_is_no_entry() -> None:
    one = raw_header(b"a")
    assert names(one) == [b"a"]
    assert names(one + END + raw_header(b"b")) == [b"a"]


def test_all_bytes_are_hashed_what_follows_the_end_too() -> None:
    data = raw_header(b"a", size=3) + padded(b"abc") + END + b"trailing garbage"
    stream = TarStream(pieces(data, 100), what="layer")
    list(stream.entries())
    assert "sha256:" + stream.drain() == digest(data)
    assert stream.size == len(data)


# ---------------------------------------------------------------- sparse files


def gnu_sparse(segments: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    def area(some: list[tuple[int, int]]) -> bytes:
        return b"".join(b"%011o\0%011o\0" % segment for segment in some)

    first, more = segments[:4], segments[4:]
    rest = bytes(41) + area(first).ljust(96, b"\0") + (b"\1" if more else b"\0") + b"%011o\0" % real
    out = raw_header(b"sparse", type=b"S", size=len(data), magic=b"ustar  \0", rest=rest)
    while more:
        now, more = more[:21], more[21:]
        out += (area(now).ljust(504, b"\0") + (b"\1" if more else b"\0")).ljust(512, b"\0")
    return out + padded(data) + raw_header(b"after") + END


def pax_sparse(records: list[tuple[bytes, bytes]], data: bytes) -> bytes:
    text = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + len(str(len(body) + 2))
        text += str(length).encode() + body
    return (
        raw_header(b"pax", type=b"x", size=len(text))
        + padded(text)
        + raw_header(b"sparse", size=len(data))
        + padded(data)
        + raw_header(b"after")
        + END
    )


EXPECTED = bytes(10) + b"abc" + bytes(7) + b"de" + bytes(78)


def test_holes_of_sparse_files_are_filled_in_all_four_forms() -> None:
    marks = [(10, 3), (20, 2), (100, 0)]
    many = [(number * 2, 1) for number in range(60)]
    forms = [
        gnu_sparse(marks, 100, b"abcde"),
        pax_sparse([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.numblocks", b"2")]
            + [pair for offset, length in marks for pair in
               ((b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length))], b"abcde"),
        pax_sparse([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"10,3,20,2,100,0")], b"abcde"),
        pax_sparse([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100"),
                    (b"GNU.sparse.name", b"sparse")], b"3\n10\n3\n20\n2\n100\n0\n".ljust(512, b"\0") + b"abcde"),
    ]  # fmt: skip
    for form in forms:
        (sparse, data), (after, _) = read(form)
        assert (sparse.name, sparse.type, sparse.size, data) == (b"sparse", tarentry.FILE, 100, EXPECTED)
        assert after.name == b"after"
    (sparse, data), _ = read(gnu_sparse(many, 200, b"x" * 60))
    assert data == (b"x\0" * 60).ljust(200, b"\0")


def test_A7_sparse_maps_that_overlap_or_promise_too_much_are_refused() -> None:
    for segments, real in ([(10, 5), (12, 3)], 100), ([(10, 5), (0, 3)], 100), ([(99, 8)], 100):
        with pytest.raises(ContentError, match="sparse file's map"):
            read(gnu_sparse(segments, real, b"x" * 8))
    with pytest.raises(ContentError, match="bytes in a sparse file's map"):
        read(gnu_sparse([(0, 3)], 100, b"x" * 8))
    with pytest.raises(ContentError, match="with holes filled"):
        read(gnu_sparse([(0, 8)], 7 << 30, b"x" * 8), size=1 << 30)
    with pytest.raises(ContentError, match="map that does not end"):
        read(
            pax_sparse(
                [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")], b"9" * 4096
            )
        )


# ---------------------------------------------------------------- hostile names and numbers


@pytest.mark.parametrize("name", [b"../etc/shadow", b"a/../../b", b"..", b"/..", b"a/../..", b"./../x"])
def test_A1_a_name_that_leaves_the_layer_is_refused(name: bytes) -> None:
    with pytest.raises(ContentError, match="path inside the layer"):
        read(raw_header(name) + END)


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        (b"/etc/passwd", b"etc/passwd"),
        (b"///etc//./passwd", b"etc/passwd"),
        (b"./a/../b", b"b"),
        (b"...", b"..."),
        (b"..a/.b", b"..a/.b"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"line\nbreak", b"line\nbreak"),
        (b" ", b" "),
        (b"-rf", b"-rf"),
    ],
)
def test_A1_odd_but_legal_names_survive(name: bytes, clean: bytes) -> None:
    assert names(raw_header(name) + END) == [clean]


def test_A1_names_that_are_empty_or_too_long_are_refused_and_the_limit_named() -> None:
    with pytest.raises(ContentError, match="name"):
        read(raw_header(b"") + END)
    with pytest.raises(ContentError, match="at most 4095 bytes"):
        read(tar(member("/".join(["x" * 200] * 320))))
    with pytest.raises(ContentError, match="at most 255 bytes between slashes"):
        read(tar(member("a/" + "x" * 256)))
    with pytest.raises(ContentError, match="NUL"):
        read(raw_header(b"x", type=b"x", size=12) + padded(b"12 path=a\0b\n") + raw_header(b"a") + END)
    with pytest.raises(ContentError, match="target of at most"):
        read(tar(symlink("a", "x" * 5000)))
    with pytest.raises(ContentError, match="target"):
        read(raw_header(b"a", type=b"2") + END)


def test_A7_bombs_meet_a_limit_that_is_named() -> None:
    with pytest.raises(ContentError, match="at most 10 entries"):
        read(tar(*(member(f"{number}") for number in range(11))), entries=10)
    with pytest.raises(ContentError, match="at most 10 entries"):
        read((raw_header(b"x", type=b"L", size=1) + padded(b"a")) * 11, entries=10)
    with pytest.raises(ContentError, match="at most 1024 folders above"):
        read(tar(member("d/" * 1025 + "x")))
    with pytest.raises(ContentError, match="extended header of at most 1048576 bytes, found one of 1073741824"):
        read(raw_header(b"pax", type=b"x", size=1 << 30))
    with pytest.raises(ContentError, match="at most 1000 bytes in all"):
        read(tar(*(member(f"{number:0200}") for number in range(6))), names=1000)
    with pytest.raises(ContentError, match="at most 100000 bytes uncompressed"):
        read(b"".join(raw_header(b"%d" % number, size=1024) + bytes(1024) for number in range(99)), size=100_000)
    with pytest.raises(ContentError, match="file of at most"):
        read(raw_header(b"big", size=b"\x80" + b"\x7f" * 11) + END)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"<html>login</html>" * 100, "expected a tar"),
        (b"hsqs" + bytes(4096), "expected a tar"),
        (raw_header(b"a", size=5000) + bytes(1000), "its end after 1512 bytes"),
        (raw_header(b"a")[:300], "its end after 300 bytes"),
        (raw_header(b"a") + b"garbage".ljust(512), "a header after 1 entries"),
        (raw_header(b"a") + bytes(512) + raw_header(b"b"), "two blocks of zeros"),
        (raw_header(b"a", type=b"x", size=9) + padded(b"7 a=b\nxxx"), "PAX records"),
        (raw_header(b"a", type=b"x", size=9) + padded(b"999 a=b\n\n"), "PAX records"),
        (raw_header(b"a", type=b"x", size=6) + padded(b"0 a=b\n"), "PAX records"),
        (raw_header(b"a", uid=b"-000001\0"), "octal digits as uid"),
        (raw_header(b"a", uid=b"0000009\0"), "octal digits as uid"),
        (raw_header(b"a", uid=b"\xff" * 8), "owner of 32 bits"),
        (raw_header(b"a", type=b"M"), "the type M"),
        (raw_header(b"a", type=b"x", size=14) + padded(b"14 uid=0x1000\n") + raw_header(b"b"), "digits as uid"),
    ],
)
def test_what_is_no_tar_is_refused_saying_what_was_found(data: bytes, found: str) -> None:
    with pytest.raises(ContentError, match=found):
        read(data)


def test_errors_show_hostile_names_without_their_control_characters() -> None:
    with pytest.raises(ContentError) as raised:
        read(raw_header(b"\x1b[31m/../../x" + b"y" * 80) + END)
    assert "\x1b" not in raised.value.brief
    assert len(raised.value.brief) < 250


# ---------------------------------------------------------------- properties

NAMES = st.lists(st.sampled_from(["a", "b", ".c", "d e", "é", "x" * 60, "-"]), min_size=1, max_size=4).map("/".join)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=2000), st.integers(0, 0o7777), st.integers(0, 1 << 31)), max_size=8),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.integers(1, 3000),
)
def test_what_python_writes_we_read(files: list[tuple[str, bytes, int, int]], format: int, size: int) -> None:
    data = tar(*(member(name, body, mode=mode, uid=uid) for name, body, mode, uid in files), format=format)
    found = [(entry.name.decode(), body, entry.mode, entry.uid) for entry, body in read(data, chunk=size)]
    assert found == files


@given(
    NAMES, st.binary(max_size=600), st.integers(0, 0xFFFFFFFE), st.integers(-(1 << 40), 1 << 40),
    st.dictionaries(st.sampled_from(["user.a", "user.b", "security.capability"]), st.text("ab\n= é", max_size=300)),
)  # fmt: skip
def test_what_we_write_anew_python_reads(name: str, body: bytes, uid: int, mtime: int, xattrs: dict[str, str]) -> None:
    entry = Entry(name=name.encode() * 3, type=b"0", mode=0o640, uid=uid, gid=uid, size=len(body), mtime=mtime * 10**9)
    entry.xattrs = {key.encode(): value.encode() for key, value in xattrs.items()}
    data = render_header(entry) + padded(body) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (info,) = archive.getmembers()
        file = archive.extractfile(info)
        assert file is not None
        assert (info.name, file.read(), info.uid, info.gid, info.mode) == (name * 3, body, uid, uid, 0o640)
        assert info.mtime == min(max(mtime, 0), 0xFFFFFFFF)
        assert {key: info.pax_headers[f"SCHILY.xattr.{key}"] for key in xattrs} == xattrs


BASE = tar(
    folder("a/"), member("a/f", b"x" * 700, xattrs={"user.a": "b"}), symlink("l", "a/f"), hardlink("h", "a/f"),
    member("a/.wh.gone"), member("a/.wh..wh..opq"), member("n" * 150, b"y"), member("c", type=tarfile.CHRTYPE),
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=12),
    st.integers(0, len(BASE)),
    st.booleans(),
)
def test_no_change_of_bytes_gets_an_answer_other_than_entries_or_content_error(
    changes: list[tuple[int, int]], end: int, mend: bool
) -> None:
    data = bytearray(BASE[:end])
    for at, byte in changes:
        if at < len(data):
            data[at] = byte
    if mend:  # With right checksums the changes get past the first door.
        for at in range(0, len(data) - 511, 512):
            block = data[at : at + 148] + b" " * 8 + data[at + 156 : at + 512]
            if bytes(data[at + 257 : at + 262]) == b"ustar":
                data[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    one_pass(bytes(data))


@settings(max_examples=100)
@given(st.binary(max_size=3000))
def test_no_bytes_at_all_get_another_answer(data: bytes) -> None:
    one_pass(data)


def one_pass(data: bytes) -> None:
    stream = TarStream(pieces(data, 700), what="layer")
    seen: set[bytes] = {b""}
    try:
        for entry in OnePass(stream).entries():
            assert entry.name
            assert b".." not in entry.name.split(b"/")
            assert not entry.name.startswith(b"/")
            assert entry.name not in seen
            assert entry.name.rpartition(b"/")[0] in seen
            assert entry.type != tarentry.HARD_LINK or entry.link in seen
            seen.add(entry.name)
            assert sum(map(len, stream.data())) == entry.size if entry.size else True
    except (ContentError, Contradiction):
        return
