"""Layers that mean harm, in every form that we make: refused by a rule that is named, or harmless; nothing is left."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.engine.native.layers import erofs, layer, squashfs, stored
from reconciler.engine.native.layout import Layout
from reconciler.engine.tarentry import Limits
from reconciler.linux import mounts
from reconciler.model.errors import ContentError
from tests.layers.tars import folder, hardlink, member, new_layout, padded, pieces, raw_header, symlink, tar, write
from tests.linux.spaces import in_mount_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="because mounts and owners need root"),
]

FORMS = [
    pytest.param("squashfs", marks=pytest.mark.skipif(not squashfs.is_usable(), reason="because sqfstar is missing")),
    pytest.param("erofs", marks=pytest.mark.skipif(not erofs.is_usable(), reason="because mkfs.erofs >= 1.8 is missing")),
    "tree",
]
END = bytes(1024)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return new_layout(tmp_path)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def pax(*records: tuple[bytes, bytes]) -> bytes:
    text = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body)
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        text += b"%d" % length + body
    return raw_header(b"pax", type=b"x", size=len(text)) + padded(text)


def left(layout: Layout) -> list[str]:
    return sorted(path.name for path in layout.layers.iterdir() if path.name != "lock") if layout.layers.exists() else []


def refused(layout: Layout, data: bytes, words: str, *, form: str = "", limits: Limits | None = None) -> None:
    with pytest.raises(ContentError, match=words):
        write(layout, data, form=form, **({"limits": limits} if limits else {}))
    assert left(layout) == []


def paths_of(layout: Layout, data: bytes, form: str, target: Path) -> list[bytes]:
    """What a layer of these bytes shows once it is mounted."""
    diff_id = write(layout, data, form=form)
    target.mkdir(exist_ok=True)
    found: list[bytes] = []

    def work() -> None:
        image = stored.image_path(layout, diff_id, form)
        mounts.bind(image, target) if form == "tree" else mounts.mount_image(image, target, form)
        top = os.fsencode(target)
        names = [os.path.join(here, name) for here, dirs, rest in os.walk(top) for name in (*dirs, *rest)]  # noqa: PTH118
        (target.parent / "found").write_bytes(b"\0".join(sorted(os.path.relpath(name, top) for name in names)))

    in_mount_namespace(work)
    found = (target.parent / "found").read_bytes().split(b"\0")
    layer.remove_layer(layout, diff_id)
    return found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(raw_header(b"../x") + END, "path inside the layer", id="dotdot"),
        pytest.param(raw_header(b"/../x") + END, "path inside the layer", id="absolute-dotdot"),
        pytest.param(raw_header(b"") + END, "name", id="empty"),
        pytest.param(raw_header(b".") + END, "folder as the layer's root", id="dot-as-a-file"),
        pytest.param(pax((b"path", b"a\0b")) + raw_header(b"x") + END, "NUL byte", id="nul"),
        pytest.param(tar(member("x/" * 32768 + "y"), format=tarfile.GNU_FORMAT), "at most 4095 bytes", id="64k"),
        pytest.param(tar(member("y" * 65536), format=tarfile.PAX_FORMAT), "at most 4095 bytes", id="64k-pax"),
    ],
)
def test_a1_names_that_leave_the_layer_or_are_none_are_refused(layout: Layout, data: bytes, words: str) -> None:
    refused(layout, data, words)


def test_a1_odd_but_legal_names_are_there(layout: Layout, form: str, tmp_path: Path) -> None:
    names = [b"/abs", b"./dot", b"\xff\xfe", b"new\nline", b" ", b"-rf", b"...", b"n" * 100]
    data = b"".join(map(raw_header, names)) + END
    expected = sorted([b"abs", b"dot", *names[2:]])
    assert paths_of(layout, data, form, tmp_path / "at") == expected


@pytest.mark.parametrize("order", [1, -1])
def test_a2_a_file_beneath_a_link_to_the_host_changes_nothing_there(
    layout: Layout, form: str, tmp_path: Path, order: int
) -> None:
    """Also by a chain, and where the folder becomes a link only after something was put into it."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/passwd").write_text("of the host")
    links = [symlink("a", str(tmp_path / "host")), symlink("b", "a"), symlink("c", "../../" + "../" * 20 + "b")]
    members = [member(f"{name}/passwd", b"stolen") for name in "abc"]
    both = [*links, *members] if order > 0 else [*members, *links]
    if order > 0:
        paths_of(layout, tar(*both), form, tmp_path / "at")
    else:
        paths_of(layout, tar(folder("a/"), *both), form, tmp_path / "at")
    assert (tmp_path / "host/passwd").read_text() == "of the host"
    assert sorted(path.name for path in (tmp_path / "host").iterdir()) == ["passwd"]


@pytest.mark.parametrize("target", ["../../../etc/passwd", "/etc/passwd", "link/passwd", "of-a-lower-layer"])
def test_a3_hard_links_out_of_the_layer_are_refused(layout: Layout, form: str, target: str) -> None:
    refused(layout, tar(symlink("link", "/etc"), hardlink("hard", target)), "hard|link|inside", form=form)


def test_a4_every_form_of_whiteout_removes_what_the_spec_says_and_no_more(
    layout: Layout, form: str, tmp_path: Path
) -> None:
    with_body = tar(folder("a/"), member("a/.wh..wh..opq", b"a body"), member("a/x", b"x"), member(".wh.gone", b"body"))
    assert paths_of(layout, with_body, form, tmp_path / "at") == [b"a", b"a/x", b"gone"]
    for order in (1, -1):
        both = [member("f", b"x"), member(".wh.f")][::order]
        assert paths_of(layout, tar(*both), form, tmp_path / "at") == [b"f"]
    for name in (".wh.", ".wh...", ".wh..", ".wh.a/b", "d/.wh.a/b"):
        refused(layout, tar(member("x"), member(name)), "name", form=form)


def test_a6_what_is_neither_file_nor_link_nor_device_is_refused(layout: Layout) -> None:
    for kind in b"s", b"D", b"M", b"\xff":
        refused(layout, raw_header(b"it", type=kind) + END, "expected a file, folder, link, device or fifo")


def test_a7_times_beyond_64_bits_are_the_nearest_that_fits(layout: Layout, form: str, tmp_path: Path) -> None:
    """Of the root too, whose record is JSON. Once an OverflowError and no error of ours."""
    far = b"".join(
        pax((b"mtime", time)) + raw_header(name, type=b"5") + raw_header(name + b"/big", mtime=b"\x80" + b"\x7f" * 11)
        for name, time in ((b"./", b"9" * 18), (b"early", b"-" + b"9" * 18))
    )
    assert paths_of(layout, far + END, form, tmp_path / "at") == [b"big", b"early", b"early/big"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ((b"SCHILY.xattr.user.a\0b", b"x"), "attribute's name of at most 255 bytes"),
        ((b"SCHILY.xattr.user.", b"x"), "attribute's name"),
        ((b"SCHILY.xattr.", b"x"), "attribute's name"),
        ((b"SCHILY.xattr.user." + b"n" * 251, b"x"), "attribute's name of at most 255 bytes"),
        ((b"SCHILY.xattr.user.a", b"x" * 65537), "at most 65536 bytes as the attribute user.a, found 65537"),
    ],
)
@pytest.mark.parametrize("name", [b"file", b"./"])
def test_a7_attributes_that_no_file_can_have_are_refused(
    layout: Layout, form: str, name: bytes, record: tuple[bytes, bytes], words: str
) -> None:
    refused(layout, pax(record) + raw_header(name, type=b"5" if name == b"./" else b"0") + END, words, form=form)


def test_a7_holes_of_gigabytes_in_a_tar_of_a_kilobyte_are_refused(layout: Layout, form: str) -> None:
    """Every hole is zeros once it is written, and a tree would have them on its disk."""
    records = [(b"GNU.sparse.size", b"%d" % (20 << 30)), (b"GNU.sparse.map", b"0,1")]
    data = pax(*records) + raw_header(b"hole", size=1) + padded(b"x") + END
    refused(layout, data, 'entry "hole": expected holes of at most 1073741824 bytes, or 200 times', form=form)


def test_a7_a_layer_that_takes_forever_meets_its_deadline(layout: Layout) -> None:
    def trickle() -> Iterator[bytes]:
        yield raw_header(b"slow", size=1 << 30)
        while True:
            yield bytes(512)

    with pytest.raises(ContentError, match=r"expected all of it within 0 s, found [0-9]+ bytes until then"):
        layer.write_layer(layout, "sha256:" + "0" * 64, trickle(), what="layer", limits=Limits(seconds=0))
    assert left(layout) == []


def test_a7_folders_a_hundred_thousand_deep_are_refused(layout: Layout, form: str) -> None:
    refused(layout, tar(folder("d/" * 100_000)), "at most 4095 bytes", form=form)
    refused(layout, tar(folder("d/" * 2000)), "at most 1024 folders above", form=form)


def test_a7_a_million_entries_are_the_most(layout: Layout) -> None:
    refused(layout, tar(*(member(f"{n}") for n in range(50))), "at most 49 entries", limits=Limits(entries=49))
    assert Limits().entries == 1_000_000


def test_a7_too_many_things_in_one_folder_are_refused_however_they_come(layout: Layout, form: str) -> None:
    """By themselves, as folders that nobody names, and as whiteouts: sqfstar's time goes by their square."""
    limits, said = Limits(siblings=9), 'entry "a": expected at most 9 things in one folder, found more'
    for names in ([f"a/{n}" for n in range(10)], [f"a/{n}/b" for n in range(10)], [f"a/.wh.{n}" for n in range(10)]):
        refused(layout, tar(*map(member, names)), said, form=form, limits=limits)
    assert Limits().siblings == 65_536


def test_a7_headers_and_maps_that_promise_gigabytes_are_not_read(layout: Layout, form: str) -> None:
    refused(layout, raw_header(b"pax", type=b"x", size=1 << 30), "extended header of at most 1048576", form=form)
    overlap = pax((b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"0,5,3,5"))
    refused(layout, overlap + raw_header(b"s", size=10) + padded(b"x" * 10) + END, "sparse file's map", form=form)


def test_a9_a_wrong_digest_leaves_nothing(layout: Layout, form: str) -> None:
    data = tar(member("a", b"x"), member("a", b"y"))
    with pytest.raises(ContentError, match="its content: expected sha256:0000"):
        layer.write_layer(layout, "sha256:" + "0" * 64, pieces(data), what="layer", form=form, reread=lambda: pieces(data))
    assert left(layout) == []
