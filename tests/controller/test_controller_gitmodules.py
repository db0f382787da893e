"""Submodules on request: real repositories of git on this disk, and URLs that are not its to name."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.gitlab import ENVIRONMENT, Pushed
from reconciler.controller.sources import gitmodules
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.gitmodules import choose_place
from reconciler.controller.sources.gitplace import parse_place
from reconciler.model.errors import Usage

BLOG = """\
apiVersion: reconcile/v1
name: blog
containers:
  web: {image: "box:1", env_file: [./shared/app.env]}
"""
Open = Callable[..., GitSource]


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    """Stacks beside which their library lies."""
    folder = tmp_path / "git"
    folder.mkdir()
    return Pushed(folder)


@pytest.fixture
def lib(tmp_path: Path) -> Pushed:
    folder = tmp_path / "git" / "beside"
    folder.mkdir()
    made = Pushed(folder)
    made.commit("library", {"app.env": "A=1\n", "deep/x.txt": "x"})
    return made


@pytest.fixture
def open_source(pushed: Pushed, tmp_path: Path) -> Open:
    def make(**options: object) -> GitSource:
        given = {"place": parse_place(pushed.url), "ref": "refs/heads/main", "submodules": True, **options}
        return GitSource(GitOptions(**given), tmp_path / "root", chance=lambda: 0.5)  # type: ignore[arg-type]

    return make


def link(pushed: Pushed, commit: str, url: str, *, at: str = "shared", name: str = "shared") -> None:
    """A submodule as git records it; `submodule add` would refuse the hostile ones."""
    modules = pushed.work / ".gitmodules"
    with modules.open("a") as file:
        file.write(f'[submodule "{name}"]\n\tpath = {at}\n\turl = {url}\n')
    (pushed.work / "blog.yaml").write_text(BLOG)
    pushed.git("add", ".gitmodules", "blog.yaml")
    pushed.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{at}")
    pushed.git("commit", "-q", "-m", "a submodule")
    pushed.push()


def env_of(source: GitSource) -> str:
    return (source.tree / "shared" / "app.env").read_text()


def test_submodule_is_taken_where_that_is_asked_for_and_follows_the_commit(
    pushed: Pushed, lib: Pushed, open_source: Open
) -> None:
    link(pushed, lib.head, "../beside/bare.git")
    without = open_source(submodules=False)
    assert "shared is a submodule: --submodules takes it" in without.read().problems["blog.yaml"]
    told = without.name_paths(f"blog.yaml: {without.tree}/shared/site can't be read")
    assert told == "blog.yaml: shared/site can't be read\n  shared is a submodule: --submodules takes it (submodules: true)"
    source = open_source()  # What was taken without them is taken again.
    seen = source.read()
    assert (seen.stale, seen.problems, set(seen.versions)) == ("", {}, {"blog"})
    assert env_of(source) == "A=1\n"
    assert (source.tree / "shared" / "deep" / "x.txt").read_text() == "x"
    later = lib.commit("later", {"app.env": "A=2\n"})
    assert source.read().versions["blog"].token == seen.versions["blog"].token, "its branch is nobody's business"
    pushed.git("update-index", "--cacheinfo", f"160000,{later},shared")
    pushed.git("commit", "-q", "-m", "later")
    pushed.push()
    assert source.read().versions["blog"].token != seen.versions["blog"].token
    assert env_of(source) == "A=2\n"
    # Off again: its files go, and what needs them says so.
    assert "shared is a submodule" in open_source(submodules=False).read().problems["blog.yaml"]


def test_submodule_below_the_folder_that_is_served(pushed: Pushed, lib: Pushed, open_source: Open) -> None:
    pushed.commit("prod", {"prod/blog.yaml": BLOG})
    link(pushed, lib.head, "../beside/bare.git", at="prod/shared")
    source = open_source(folder="prod")
    assert source.read().problems == {}
    assert env_of(source) == "A=1\n"


def test_commit_whose_submodule_can_not_be_had_is_not_taken(pushed: Pushed, lib: Pushed, open_source: Open) -> None:
    link(pushed, lib.head, "../beside/bare.git")
    source = open_source()
    before = source.read()
    pushed.git("update-index", "--cacheinfo", f"160000,{'1' * 40},shared")
    pushed.git("commit", "-q", "-m", "one that nobody has")
    pushed.push()
    seen = source.read()
    assert "fetch the submodule" in seen.stale
    assert seen.versions == before.versions
    assert env_of(source) == "A=1\n"


def test_h1_submodules_that_are_not_beside_it_are_left_out_and_nothing_of_them_runs(
    pushed: Pushed, lib: Pushed, open_source: Open, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    other = Pushed(outside)
    other.commit("secret", {"app.env": "SECRET=1\n"})
    ran = tmp_path / "ran"
    for number, url in enumerate(
        (
            other.url,
            str(other.bare),
            "../../../outside/bare.git",
            f"ext::touch {ran}",
            "-u./payload",
            "ssh://-oProxyCommand=x/y",
        )
    ):
        link(pushed, other.head, url, at=f"m{number}", name=f"../../hooks{number}")
    link(pushed, lib.head, "../beside/bare.git")
    source = open_source()
    seen = source.read()
    assert seen.problems == {}
    assert sorted(path.name for path in source.tree.iterdir()) == [".gitmodules", "blog.yaml", "shared"]
    assert not ran.exists()
    left_out = source._taken.left_out  # type: ignore[union-attr]
    assert "does not lie in" in left_out["m0"]
    assert all(
        why.startswith("is a submodule that is not taken: ") for name, why in left_out.items() if name.startswith("m")
    )


def test_h1_nested_ones_and_too_many_are_not_taken(
    pushed: Pushed, lib: Pushed, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    link(lib, lib.head, "../beside/bare.git", at="inner")
    link(pushed, lib.head, "../beside/bare.git")
    source = open_source()
    source.read()
    assert not (source.tree / "shared" / "inner").exists()
    assert source._taken.left_out["shared/inner"] == "is a submodule"  # type: ignore[union-attr]
    monkeypatch.setattr(gitmodules, "MOST_MODULES", 1)
    link(pushed, lib.head, "../beside/bare.git", at="second", name="second")
    assert "has 2 submodules; 1 are taken" in open_source().read().stale


def test_h1_larger_than_its_bound_is_not_taken(pushed: Pushed, lib: Pushed, open_source: Open) -> None:
    from reconciler.controller.sources.gitrun import Bounds

    big = subprocess.run(["head", "-c", "3000000", "/dev/urandom"], capture_output=True, check=True, env=ENVIRONMENT).stdout
    (lib.work / "big.bin").write_bytes(big)
    link(pushed, lib.commit("big"), "../beside/bare.git")
    seen = open_source(bounds=Bounds(size=1024**2)).read()
    assert "is larger than 1" in seen.stale or "is larger than 1" in seen.broken


@pytest.mark.parametrize(
    ("parent", "url", "found"),
    [
        ("https://git.example/team/stacks.git", "../lib.git", "https://git.example/team/lib.git"),
        ("https://git.example/team/stacks.git", "../../other/lib.git", "https://git.example/other/lib.git"),
        ("https://git.example/team/stacks.git", "https://git.example/x", "https://git.example/x"),
        ("git@git.example:team/stacks.git", "../lib.git", "git@git.example:team/lib.git"),
        ("git@git.example:team/stacks.git", "ssh://git@git.example/lib.git", "ssh://git@git.example/lib.git"),
        ("ssh://git@h:22/team/stacks", "../lib", "ssh://git@h:22/team/lib"),
        ("/srv/git/stacks.git", "../lib.git", "file:///srv/git/lib.git"),
    ],
)
def test_urls_count_from_the_parent(parent: str, url: str, found: str) -> None:
    assert choose_place(url, parse_place(parent)).url == found


@pytest.mark.parametrize(
    ("parent", "url"),
    [
        ("https://git.example/team/stacks.git", "https://other.example/x"),
        ("https://git.example/team/stacks.git", "https://git.example:8443/x"),
        ("https://git.example/team/stacks.git", "http://127.0.0.1/x"),
        ("https://git.example/team/stacks.git", "file:///etc"),
        ("https://git.example/team/stacks.git", "/etc"),
        ("https://git.example/team/stacks.git", "../../../../x"),
        ("https://git.example/team/stacks.git", "../../../../other.example/x"),
        ("git@git.example:team/stacks.git", "git@other.example:x"),
        ("git@git.example:team/stacks.git", "root@git.example:x"),
        ("git@git.example:stacks.git", "../../x"),
        ("/srv/git/stacks.git", "/srv/secret.git"),
        ("/srv/git/stacks.git", "../../secret.git"),
        ("/srv/git/stacks.git", "file:///srv/git/../secret.git"),
        ("/srv/git/stacks.git", "../lib\n.git"),
        ("/stacks.git", "../etc/secret.git"),
        ("/srv/git/stacks.git", "-x"),
        ("/srv/git/stacks.git", ""),
    ],
)
def test_h1_urls_that_lead_elsewhere_are_refused(parent: str, url: str) -> None:
    with pytest.raises(Usage):
        choose_place(url, parse_place(parent))
