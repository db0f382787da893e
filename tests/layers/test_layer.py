"""Layers as files that are mounted: the semantics of the image spec, hostile rows, and nothing left after an error."""

import hashlib
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.engine.native.layers import erofs, layer, piped, squashfs, stored
from reconciler.engine.native.layout import Layout
from reconciler.linux import mounts
from reconciler.model.errors import ContentError, Failed, ProgramFailed
from tests.layers.tars import (
    digest,
    folder,
    hardlink,
    member,
    new_layout,
    padded,
    pieces,
    raw_header,
    symlink,
    tar,
    write,
)
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


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return new_layout(tmp_path)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def describe(path: Path) -> str:
    """One thing in a layer as text: its type, mode, owner, and what it holds."""
    found = path.lstat()
    mode = f"{stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid}"
    if stat.S_ISREG(found.st_mode):
        return f"{mode} {path.read_bytes()[:40].decode()}"
    if stat.S_ISLNK(found.st_mode):
        return f"{mode} -> {path.readlink()}"
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return f"{mode} {os.major(found.st_rdev)},{os.minor(found.st_rdev)}"
    return mode + (" opaque" if stat.S_ISDIR(found.st_mode) and is_opaque(path) else "")


def is_opaque(path: Path) -> bool:
    try:
        return "trusted.overlay.opaque" in os.listxattr(path)
    except OSError:  # A squashfs that has no attributes at all.
        return False


def look(layout: Layout, diff_id: str, target: Path) -> dict[str, str]:
    """Everything in a layer, by its path; needs a mount namespace of its own."""
    facts = stored.read_facts(layout, diff_id)
    assert facts is not None
    image = stored.image_path(layout, diff_id, facts.form)
    target.mkdir(exist_ok=True)
    if facts.form == "tree":
        mounts.bind(image, target)
    else:
        mounts.mount_image(image, target, facts.form)
    try:
        return {str(path.relative_to(target)): describe(path) for path in sorted(target.rglob("*"))}
    finally:
        mounts.unmount(target)


@pytest.fixture
def show(layout: Layout, tmp_path: Path, form: str) -> Callable[..., None]:
    """Write members as a layer, and expect what it then has."""

    def expect(members: list[tuple[tarfile.TarInfo, bytes]], expected: dict[str, str]) -> None:
        diff_id = write(layout, tar(*members), form=form)

        def work() -> None:
            assert look(layout, diff_id, tmp_path / "mounted") == expected

        in_mount_namespace(work)

    return expect


DIR, FILE = "drwxr-xr-x 0:0", "-rw-r--r-- 0:0"
GONE = "c--------- 0:0 0,0"


def test_a_layer_holds_what_its_tar_holds(show: Callable[..., None]) -> None:
    show(
        [
            folder("./", mode=0o700),
            folder("./bin/", mode=0o711, uid=3, gid=4),
            member("./bin/su", b"ELF", mode=0o4755, uid=70000, gid=4_000_000_000),
            symlink("sbin", "bin"),
            hardlink("bin/sudo", "bin/su"),
            hardlink("lsbin", "sbin"),
            member("run/fifo", type=tarfile.FIFOTYPE),
            member("dev/null", type=tarfile.CHRTYPE, device=(1, 3), mode=0o666),
            member("dev/vda", type=tarfile.BLKTYPE, device=(254, 0)),
            member("empty"),
        ],
        {
            "bin": "drwx--x--x 3:4",
            "bin/su": "-rwsr-xr-x 70000:4000000000 ELF",
            "bin/sudo": "-rwsr-xr-x 70000:4000000000 ELF",
            "dev": DIR,
            "dev/null": "crw-rw-rw- 0:0 1,3",
            "dev/vda": "brw-r--r-- 0:0 254,0",
            "empty": FILE + " ",
            "lsbin": "lrwxrwxrwx 0:0 -> bin",
            "run": DIR,
            "run/fifo": "prw-r--r-- 0:0",
            "sbin": "lrwxrwxrwx 0:0 -> bin",
        },
    )


def test_hard_links_share_their_inode(layout: Layout, tmp_path: Path, form: str) -> None:
    diff_id = write(layout, tar(member("a", b"x"), hardlink("b", "a"), hardlink("d/c", "./a")), form=form)

    def work() -> None:
        facts = stored.read_facts(layout, diff_id)
        assert facts is not None
        target = tmp_path / "mounted"
        target.mkdir()
        image = stored.image_path(layout, diff_id, form)
        mounts.bind(image, target) if form == "tree" else mounts.mount_image(image, target, form)
        found = [(target / name).stat() for name in ("a", "b", "d/c")]
        assert len({one.st_ino for one in found}) == 1
        assert found[0].st_nlink == 3

    in_mount_namespace(work)


def test_the_root_entry_is_kept_beside_the_image(layout: Layout) -> None:
    diff_id = write(layout, tar(folder("./", mode=0o1777, uid=5, gid=6, mtime=7, xattrs={"user.a": "b"}), member("x")))
    facts = stored.read_facts(layout, diff_id)
    assert facts is not None
    assert facts.root == stored.RootEntry(mode=0o1777, uid=5, gid=6, mtime=7 * 10**9, xattrs={"user.a": b"b"})


# ---------------------------------------------------------------- whiteouts


def test_A4_whiteouts_become_overlay_s(show: Callable[..., None]) -> None:
    show(
        [
            folder("a/"),
            member("a/.wh.gone", b"with a body"),
            folder("b/"),
            member("b/.wh..wh..opq", b"with a body"),
            member("b/new", b"x"),
            member(".wh.c"),
            member(".wh..wh.plnk/1234", b"of AUFS"),
            member(".wh..wh.aufs"),
            member("d/e/.wh.f"),
        ],
        {
            "a": DIR,
            "a/gone": GONE,
            "b": DIR + " opaque",
            "b/new": FILE + " x",
            "c": GONE,
            "d": DIR,
            "d/e": DIR,
            "d/e/f": GONE,
        },
    )


@pytest.mark.parametrize("order", [1, -1])
def test_A4_an_entry_beside_its_whiteout_wins_in_either_order(show: Callable[..., None], order: int) -> None:
    show(
        [*[member("file", b"x"), member(".wh.file")][::order], *[folder("dir/"), member(".wh.dir")][::order]],
        {"file": FILE + " x", "dir": DIR + " opaque"},
    )


def test_A4_an_opaque_mark_after_the_content_counts_as_much(show: Callable[..., None]) -> None:
    show(
        [folder("a/", mode=0o700), member("a/x", b"x"), member("b", b"y"), member("a/.wh..wh..opq")],
        {"a": "drwx------ 0:0 opaque", "a/x": FILE + " x", "b": FILE + " y"},
    )


def test_A4_an_opaque_mark_without_its_folder_makes_it(show: Callable[..., None]) -> None:
    show([member("a/b/.wh..wh..opq"), member("a/b/x")], {"a": DIR, "a/b": DIR + " opaque", "a/b/x": FILE + " "})


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..", ".wh...", ".wh.a/b", "a/.wh.b/.wh.c"])
def test_A4_whiteouts_that_say_nothing_are_refused(layout: Layout, name: str) -> None:
    with pytest.raises(ContentError, match="name"):
        write(layout, tar(member("x"), member(name)))
    assert left(layout) == []


def test_A5_overlay_s_own_marks_are_dropped(layout: Layout, tmp_path: Path, form: str) -> None:
    marks = {"trusted.overlay.opaque": "y", "user.overlay.opaque": "y", "trusted.overlay.redirect": "/etc", "user.ok": "1"}
    data = tar(
        member("gone", type=tarfile.CHRTYPE, device=(0, 0)),
        folder("dir/", xattrs=marks),
        member("file", b"x", xattrs={"trusted.overlay.metacopy": "", "security.ima": "x", "security.selinux": "y"}),
    )
    diff_id = write(layout, data, form=form)

    def work() -> None:
        assert look(layout, diff_id, tmp_path / "mounted") == {"dir": DIR, "file": FILE + " x"}
        facts = stored.read_facts(layout, diff_id)
        assert facts is not None
        target = tmp_path / "mounted"
        image = stored.image_path(layout, diff_id, form)
        mounts.bind(image, target) if form == "tree" else mounts.mount_image(image, target, form)
        assert os.listxattr(target / "dir") == ["user.ok"]
        assert os.listxattr(target / "file") == []

    in_mount_namespace(work)


def test_A6_file_capabilities_are_kept(layout: Layout, tmp_path: Path, form: str) -> None:
    capability = b"\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    data = tar(member("ping", b"x", mode=0o755, xattrs={"security.capability": capability.decode("latin-1")}))
    diff_id = write(layout, data, form=form)

    def work() -> None:
        target = tmp_path / "mounted"
        target.mkdir()
        image = stored.image_path(layout, diff_id, form)
        mounts.bind(image, target) if form == "tree" else mounts.mount_image(image, target, form)
        assert os.getxattr(target / "ping", "security.capability") == capability

    in_mount_namespace(work)


# ---------------------------------------------------------------- contradictions


def test_A8_the_last_of_a_name_wins_and_other_spellings_are_other_names(show: Callable[..., None]) -> None:
    show(
        [
            *(member("same", b"%d" % number) for number in range(1000)),
            member("Same", b"case"),
            member("\u00e9", b"composed"),
            member("e\u0301", b"decomposed"),
            folder("d/", mode=0o700),
            member("d/x", b"kept"),
            folder("d/", mode=0o711),
            member("was-dir/x"),
            member("was-dir", b"now a file"),
            symlink("was-link", "nowhere"),
            folder("was-link/"),
        ],
        {
            "Same": FILE + " case",
            "d": "drwx--x--x 0:0",
            "d/x": FILE + " kept",
            "e\u0301": FILE + " decomposed",
            "same": FILE + " 999",
            "was-dir": FILE + " now a file",
            "was-link": DIR,
            "\u00e9": FILE + " composed",
        },
    )


def test_A3_a_hard_link_to_a_later_entry_and_one_whose_target_changes_afterwards(show: Callable[..., None]) -> None:
    show(
        [
            hardlink("early", "late"),
            member("late", b"late"),
            member("a", b"old"),
            hardlink("b", "a"),
            member("a", b"new"),
        ],
        {"a": FILE + " new", "b": FILE + " old", "early": FILE + " late", "late": FILE + " late"},
    )


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "dir", "link/passwd", "not-here"])
def test_A3_hard_links_to_what_the_layer_does_not_hold_are_refused(layout: Layout, target: str) -> None:
    with pytest.raises(ContentError):
        write(layout, tar(folder("dir/"), symlink("link", "/etc"), hardlink("hard", target)))
    assert left(layout) == []


def test_A2_entries_beneath_a_link_land_inside_the_layer(show: Callable[..., None], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    show(
        [
            folder("usr/lib/"),
            symlink("lib", "usr/lib"),
            member("lib/libc.so", b"x"),
            symlink("abs", "/usr"),
            member("abs/lib/second", b"y"),
            symlink("chain", "abs/../lib"),
            member("chain/third", b"z"),
            symlink("up", "../../../../../../../.."),
            member("up/top", b"t"),
            symlink("host", str(outside)),
            member("host/stolen", b"s"),
        ],
        {
            "abs": "lrwxrwxrwx 0:0 -> /usr",
            "chain": "lrwxrwxrwx 0:0 -> abs/../lib",
            "host": f"lrwxrwxrwx 0:0 -> {outside}",
            "lib": "lrwxrwxrwx 0:0 -> usr/lib",
            "top": FILE + " t",
            "up": "lrwxrwxrwx 0:0 -> ../../../../../../../..",
            "usr": DIR,
            "usr/lib": DIR,
            "usr/lib/libc.so": FILE + " x",
            "usr/lib/second": FILE + " y",
            "usr/lib/third": FILE + " z",
        }
        | {str(path).lstrip("/"): DIR for path in [*outside.parents, outside] if path != Path("/")}
        | {f"{outside}/stolen".lstrip("/"): FILE + " s"},
    )
    assert list(outside.iterdir()) == []


def test_A2_links_in_a_circle_and_files_as_folders_are_refused(layout: Layout) -> None:
    for members in (
        [symlink("a", "b"), symlink("b", "a"), member("a/x")],
        [symlink("self", "self"), member("self/x")],
        [member("file"), member("file/x")],
    ):
        with pytest.raises(ContentError, match="folder above it"):
            write(layout, tar(*members))
    assert left(layout) == []


def test_a_contradiction_without_a_second_reading_is_refused(layout: Layout) -> None:
    with pytest.raises(ContentError, match="contradict"):
        write(layout, tar(member("a"), member("a")), again=False)
    assert left(layout) == []


def test_a_second_reading_that_differs_is_refused(layout: Layout) -> None:
    good = tar(member("a", b"1"), member("a", b"2"))
    bad = good.replace(b"2" + bytes(511), b"3" + bytes(511))
    assert bad != good
    answers: Iterator[bytes] = iter([good, bad])
    with pytest.raises(ContentError, match="sha256"):
        layer.write_layer(layout, digest(good), [good], what="layer", reread=lambda: [next(answers)])
    assert left(layout) == []


# ---------------------------------------------------------------- errors leave nothing


def left(layout: Layout) -> list[str]:
    if not layout.layers.exists():
        return []
    return sorted(path.name for path in layout.layers.iterdir() if path.name != "lock")


def test_A9_content_of_another_digest_is_refused_and_nothing_kept(layout: Layout, form: str) -> None:
    data = tar(member("a", b"x" * 100_000))
    with pytest.raises(ContentError, match=r"sha256:0000.*sha256:"):
        layer.write_layer(layout, "sha256:" + "0" * 64, pieces(data), what="layer", form=form)
    assert left(layout) == []
    assert not stored.has_layer(layout, "sha256:" + "0" * 64)


def test_A11_a_file_system_image_as_layer_is_refused(layout: Layout, tmp_path: Path) -> None:
    image = tmp_path / "image"
    (tmp_path / "content").mkdir()
    made = {
        "squashfs": ["mksquashfs", str(tmp_path / "content"), str(image), "-quiet", "-no-progress"],
        "erofs": ["mkfs.erofs", str(image), str(tmp_path / "content")],
    }
    for arguments in made.values():
        image.unlink(missing_ok=True)
        subprocess.run(arguments, check=True, capture_output=True)
        with pytest.raises(ContentError, match="expected a tar"):
            write(layout, image.read_bytes())
    assert left(layout) == []


@pytest.mark.parametrize("at", [100, 3000, 60_000])
def test_a_truncated_layer_is_refused_and_nothing_kept(layout: Layout, form: str, at: int) -> None:
    with pytest.raises(ContentError, match="whole tar"):
        write(layout, tar(member("a", b"x" * 100_000))[:at], form=form)
    assert left(layout) == []


def test_an_error_of_the_source_passes_through_and_nothing_is_kept(layout: Layout, form: str) -> None:
    def broken() -> Iterator[bytes]:
        yield raw_header(b"a", size=10_000)
        raise ContentError("blob", "more", "less")

    with pytest.raises(ContentError, match="blob"):
        layer.write_layer(layout, "sha256:" + "0" * 64, broken(), what="layer", form=form)
    assert left(layout) == []


def test_a_full_disk_is_said_and_nothing_is_kept(tmp_path: Path, form: str) -> None:
    def work() -> None:
        small = tmp_path / "small"
        small.mkdir()
        mounts.mount_tmpfs(small, size=1 << 20)
        layout = new_layout(small)
        with pytest.raises(Failed) as raised:
            write(layout, tar(*(member(f"{number}", os.urandom(100_000)) for number in range(60))), form=form)
        assert "No space left" in raised.value.brief + raised.value.detail
        assert "disk is full" in raised.value.hint or "free space" in raised.value.hint
        assert left(layout) == []

    in_mount_namespace(work)


def test_a_program_that_fails_is_quoted(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    maker = piped.PipedMaker(tmp_path / "work", ["/bin/cat", "/nowhere"], what="layer x", nanoseconds=False)
    try:
        with pytest.raises(ProgramFailed) as raised:
            maker.finish()
    finally:
        maker.close()
    assert raised.value.brief == "layer x: cat (exit code 1) failed"
    assert "/nowhere: No such file or directory" in raised.value.detail


def test_no_descriptor_process_or_thread_is_left(layout: Layout, form: str) -> None:
    before, children = len(list(Path("/proc/self/fd").iterdir())), read_children()
    write(layout, tar(member("a"), member("a")), form=form)
    for data in (tar(member("b"))[:300], tar(member("../b"))):
        with pytest.raises(ContentError):
            write(layout, data, form=form)
    for thread in threading.enumerate():
        if thread.name == "layer-sha256":
            thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert read_children() == children


def read_children() -> set[str]:
    """Pids of our children, zombies too."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


# ---------------------------------------------------------------- what is here


def test_A7_zeros_take_no_room(layout: Layout) -> None:
    def zeros() -> Iterator[bytes]:
        yield raw_header(b"zeros", size=1 << 28)
        for _ in range(1 << 8):
            yield bytes(1 << 20)

    sha = hashlib.sha256()
    for chunk in zeros():
        sha.update(chunk)
    size = layer.write_layer(layout, f"sha256:{sha.hexdigest()}", zeros(), what="layer", form="squashfs")
    assert size < 1 << 20


def test_a_layer_is_here_until_it_is_removed(layout: Layout, form: str) -> None:
    data = tar(member("a", b"x" * 5000))
    assert not stored.has_layer(layout, digest(data))
    diff_id = write(layout, data, form=form)
    assert stored.has_layer(layout, diff_id)
    assert stored.list_layers(layout) == [diff_id]
    size = stored.layer_size(layout, diff_id)
    assert size >= 4096
    assert write(layout, data, form=form) == diff_id
    stored.sync_layer(layout, diff_id)
    facts = stored.read_facts(layout, diff_id)
    assert facts is not None
    assert facts.synced
    assert layer.remove_layer(layout, diff_id) == size
    assert layer.remove_layer(layout, diff_id) == 0
    assert left(layout) == []


def test_one_layer_written_by_many_at_once_is_one_layer(layout: Layout) -> None:
    data = tar(*(member(f"{number}", b"x" * 1000) for number in range(200)))
    with ThreadPoolExecutor(6) as pool:
        assert {diff_id for diff_id in pool.map(lambda _: write(layout, data), range(12))} == {digest(data)}
    assert stored.has_layer(layout, digest(data))
    for thread in threading.enumerate():
        if thread.name == "layer-sha256":
            thread.join()
    facts = stored.read_facts(layout, digest(data))
    assert facts is not None
    image = stored.image_path(layout, digest(data), facts.form)
    assert facts.sha256 in ("", hashlib.sha256(image.read_bytes()).hexdigest())
    assert len(left(layout)) == 2


def test_what_a_crash_left_half_made_is_removed_and_what_is_being_made_is_not(layout: Layout) -> None:
    data = tar(member("a", b"x" * 100_000))
    (layout.layers / "new-abandoned").mkdir(parents=True)
    (layout.layers / "new-abandoned" / "image").touch()
    (layout.layers / "new-x.json-1234").touch()
    seen = []

    def slow() -> Iterator[bytes]:
        seen.append(left(layout))
        yield data[:1000]
        write(layout, tar(member("another")))
        yield data[1000:]

    layer.write_layer(layout, digest(data), slow(), what="layer")
    assert [name[:10] for name in seen[0]] == [f"new-{digest(data)[7:13]}"]
    assert stored.has_layer(layout, digest(data))


@pytest.mark.parametrize("diff_id", ["", "sha256:../../x", "sha256:" + "A" * 64, "sha512:" + "0" * 64, "0" * 64])
def test_a_digest_that_is_none_becomes_no_path(layout: Layout, diff_id: str) -> None:
    for call in (stored.has_layer, stored.layer_size):
        with pytest.raises(ContentError, match="64 hex digits"):
            call(layout, diff_id)
    with pytest.raises(ContentError, match="64 hex digits"):
        layer.write_layer(layout, diff_id, [], what="layer")


def test_versions_of_mkfs_erofs_are_told_apart() -> None:
    assert erofs.parse_version("mkfs.erofs (erofs-utils) 1.8.6\navailable compressors: lz4") >= (1, 8)
    assert erofs.parse_version("mkfs.erofs 1.10") == (1, 10)
    assert erofs.parse_version("mkfs.erofs 1.5\n") == (1, 5)
    assert erofs.parse_version("usage: [options] FILE DIRECTORY") == (0, 0)


def test_padding_of_data_is_not_data(show: Callable[..., None]) -> None:
    show([member(f"{size}", b"x" * size) for size in (1, 511, 512, 513)], {
        f"{size}": f"{FILE} {'x' * min(size, 40)}" for size in (1, 511, 512, 513)
    })  # fmt: skip


def test_padded_is_what_it_says() -> None:
    assert len(padded(b"x" * 513)) == 1024
