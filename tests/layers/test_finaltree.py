"""Two ways through a layer: whatever the entries, what comes out is free of contradictions, and the two ways agree."""

import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.engine.native.layers.finaltree import FinalTree
from reconciler.engine.native.layers.onepass import Contradiction, OnePass
from reconciler.engine.tarentry import DIRECTORY, HARD_LINK, Entry
from reconciler.engine.tarstream import TarStream
from reconciler.model.errors import ContentError
from tests.layers.tars import folder, hardlink, member, pieces, symlink, tar

Written = list[tuple[Entry, bytes]]

PATHS = st.lists(st.sampled_from(["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq"]), min_size=1, max_size=4).map("/".join)
TARGETS = st.sampled_from(["a", "b", "a/b", "../a", "/b", ".", "..", "c/../a", "nowhere"])
MEMBERS = st.one_of(
    st.builds(member, PATHS, st.binary(max_size=600)),
    st.builds(folder, PATHS, mode=st.sampled_from([0o700, 0o755])),
    st.builds(symlink, PATHS, TARGETS),
    st.builds(hardlink, PATHS, PATHS),
    st.builds(member, PATHS, type=st.just(tarfile.CHRTYPE)),
)


def write(stream: TarStream, way: OnePass | FinalTree) -> Written:
    entries = way.entries() if isinstance(way, OnePass) else way.entries(stream)
    return [(entry, b"".join(stream.data()) if entry.size else b"") for entry in entries]


def one_pass(data: bytes) -> Written:
    stream = TarStream(pieces(data, 700), what="layer")
    return write(stream, OnePass(stream))


def two_passes(data: bytes) -> Written:
    tree = FinalTree()
    tree.learn(TarStream(pieces(data, 700), what="layer"))
    return write(TarStream(pieces(data, 700), what="layer"), tree)


def check(written: Written) -> None:
    """What makers rely on: parents first, no name twice, hard links only backwards and never to folders."""
    kinds = {b"": DIRECTORY}
    for entry, body in written:
        assert kinds.get(entry.name.rpartition(b"/")[0]) == DIRECTORY, entry
        assert entry.name not in kinds, entry
        assert not {b"..", b".", b""} & set(entry.name.split(b"/")), entry
        assert b".wh." not in entry.name, entry
        if entry.type == HARD_LINK:
            assert kinds.get(entry.link, DIRECTORY) != DIRECTORY, entry
        assert len(body) == entry.size
        kinds[entry.name] = entry.type


def as_tree(written: Written) -> dict[bytes, object]:
    """The tree that these entries make; hard links by the content that they share."""
    found: dict[bytes, object] = {}
    for entry, body in written:
        if entry.type == HARD_LINK:
            found[entry.name] = found[entry.link]
        else:
            found[entry.name] = (entry.type, entry.mode, entry.link, body, entry.xattrs)
    return found


@settings(max_examples=400)
@given(st.lists(MEMBERS, max_size=9))
def test_whatever_the_entries_two_passes_write_no_contradiction_and_agree_with_one(
    members: list[tuple[tarfile.TarInfo, bytes]],
) -> None:
    data = tar(*members)
    try:
        twice = two_passes(data)
    except ContentError:
        twice = None
    else:
        check(twice)
    try:
        once = one_pass(data)
    except (Contradiction, ContentError):
        return
    check(once)
    assert twice is not None
    assert as_tree(once) == as_tree(twice)


def test_the_two_ways_agree_on_a_plain_layer() -> None:
    data = tar(
        folder("d/"), member("d/f", b"x"), hardlink("h", "d/f"), symlink("l", "d"), member("d/.wh.g"),
        folder("o/"), member("o/.wh..wh..opq"), member("p/q/r", b"y"),
    )  # fmt: skip
    check(one_pass(data))
    assert as_tree(one_pass(data)) == as_tree(two_passes(data))
    assert len(one_pass(data)) == 9
