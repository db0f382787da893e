"""Where mounts' targets end in a root: links inside it followed, up to another mount."""

from pathlib import Path

import pytest

from reconciler.engine.native.runtime import targets


@pytest.mark.parametrize(
    ("target", "ends"),
    [
        ("/a/b", "/a/b"),
        ("/missing/deep", "/missing/deep"),
        ("/abs/x", "/a/x"),
        ("/up/x", "/a/x"),
        ("/chain/x", "/a/x"),
        ("/a/../abs/./x", "/a/x"),
        ("/into/x", "/data/in/x"),
        ("/back/x", "/data/in/x"),
        ("/data/link", "/data/link"),
        ("/", "/"),
    ],
)
def test_b5_target_ends_inside_the_root_and_stops_at_a_mount(tmp_path: Path, target: str, ends: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "data/in").mkdir(parents=True)
    (tmp_path / "data/link").symlink_to("/a")
    links = {"abs": "/a", "up": "../../../a", "chain": "abs", "into": "/data/in", "back": "/data/in/../.."}
    for name, to in links.items():
        (tmp_path / name).symlink_to(to)
    assert targets.resolve(str(tmp_path), target, {"/data"}) == ends


def test_b5_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="more than 40 links"):
        targets.resolve(str(tmp_path), "/a/x", ())
