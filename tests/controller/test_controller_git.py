"""A repository as a source: what is taken of it, and what is not. Real git, over file://."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.gitlab import Pushed
from reconciler.controller.sources import gitrun, gittree
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.gitplace import parse_place
from reconciler.controller.sources.gitrun import Bounds
from reconciler.linux import failpoint

TEXT = "apiVersion: reconcile/v1\nname: {name}\ncontainers:\n  web:\n    image: app:{tag}\n"


def manifest(name: str, tag: str = "1", more: str = "") -> str:
    return TEXT.format(name=name, tag=tag) + more


@pytest.fixture
def pushed(tmp_path: Path) -> Pushed:
    return Pushed(tmp_path)


Open = Callable[..., GitSource]


@pytest.fixture
def open_source(pushed: Pushed, tmp_path: Path) -> Open:
    """Makes the source, or makes it anew as the next controller does."""

    def make(**options: object) -> GitSource:
        given = {"place": parse_place(pushed.url), "ref": "refs/heads/main", **options}
        return GitSource(GitOptions(**given), tmp_path / "root", chance=lambda: 0.5)  # type: ignore[arg-type]

    return make


@pytest.fixture
def disarmed() -> Iterator[None]:
    yield
    failpoint.arm("")


def taken(source: GitSource) -> str:
    """The commit that is in force after another look."""
    seen = source.read()
    return seen.commit.id if seen.commit else ""


# --- what is taken ---


def test_commit_becomes_versions_that_say_of_which_they_are(pushed: Pushed, open_source: Open) -> None:
    first = pushed.commit("two stacks", {"blog.yaml": manifest("blog"), "shop/stack.yaml": manifest("shop")})
    seen = open_source().read()
    assert (seen.broken, seen.stale, seen.problems, seen.fresh) == ("", "", {}, True)
    assert set(seen.versions) == {"blog", "shop"}
    stack = seen.versions["shop"].stack
    assert stack.commit is not None
    assert (stack.commit.id, stack.commit.subject, stack.commit.author) == (first, "two stacks", "Ann <ann@example.org>")
    assert stack.origin == f"source:{pushed.url}"
    assert stack.source == "shop/stack.yaml"
    assert seen.versions["shop"].by_hand == f"git:{pushed.url}:shop/stack.yaml"
    assert seen.again == 30.0


def test_next_commit_renews_only_what_it_changes(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog"), "shop/stack.yaml": manifest("shop")})
    source = open_source()
    first = source.read()
    second = pushed.commit("second", {"blog.yaml": manifest("blog", tag="2")})
    seen = source.read()
    assert seen.versions["blog"].token != first.versions["blog"].token
    assert seen.versions["shop"].token == first.versions["shop"].token
    assert seen.versions["shop"].stack.commit.id == second
    again = open_source().read()
    assert again.versions == seen.versions
    assert not again.fresh


def test_only_its_folder_is_served_and_links_out_of_it_are_none(pushed: Pushed, open_source: Open) -> None:
    (pushed.work / "prod").mkdir()
    (pushed.work / "prod" / "lab.yaml").symlink_to("../lab.yaml")
    pushed.commit("first", {"lab.yaml": manifest("lab"), "prod/blog.yaml": manifest("blog")})
    source = open_source(folder="prod")
    assert source.name == f"{pushed.url}:prod"
    seen = source.read()
    assert set(seen.versions) == {"blog"}
    assert seen.versions["blog"].stack.source == "prod/blog.yaml"
    assert "is a link out of the tree" in seen.problems["lab.yaml"]
    assert "nowhere is no folder of commit" in open_source(folder="nowhere").read().broken


def test_invalid_file_leaves_its_last_version_of_the_commit_that_it_was_of(pushed: Pushed, open_source: Open) -> None:
    first = pushed.commit("good", {"blog.yaml": manifest("blog"), "shop.yaml": manifest("shop")})
    source = open_source()
    before = source.read().versions
    second = pushed.commit("typo", {"blog.yaml": manifest("blog", more="    memry: 1G\n")})
    seen = source.read()
    assert seen.problems["blog.yaml"].startswith("blog.yaml:6:5 ")
    assert seen.versions["blog"].stack == before["blog"].stack
    commits = {name: version.stack.commit for name, version in seen.versions.items()}
    assert {name: commit.id for name, commit in commits.items() if commit} == {"blog": first, "shop": second}


def test_tag_is_followed_to_its_commit(pushed: Pushed, open_source: Open) -> None:
    first = pushed.commit("first", {"blog.yaml": manifest("blog")})
    pushed.git("tag", "-a", "-m", "one", "v1")
    pushed.git("push", "-q", "origin", "v1")
    source = open_source(ref="refs/tags/v1")
    assert taken(source) == first
    second = pushed.commit("second", {"blog.yaml": manifest("blog", "2")})
    pushed.git("tag", "-f", "-a", "-m", "again", "v1")
    pushed.git("push", "-q", "--force", "origin", "v1")
    assert taken(source) == second
    assert taken(open_source(ref="HEAD")) == second


def test_variables_are_its_own_and_never_those_of_the_environment(
    pushed: Pushed, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAG", "of-the-controller")
    pushed.commit("first", {"blog.yaml": manifest("blog", "${TAG}")})
    assert "TAG" in open_source().read().problems["blog.yaml"]
    seen = open_source(variables={"TAG": "7"}).read()
    assert "app:7" in str(seen.versions["blog"].stack.specs)


# --- what is not: histories ---


def test_commits_that_follow_are_taken_one_or_many_or_merged(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source()
    source.read()
    for number in range(3):
        pushed.git("commit", "-q", "--allow-empty", "-m", f"step {number}")
    assert taken(source) != pushed.head
    pushed.push()
    assert taken(source) == pushed.head
    pushed.git("checkout", "-q", "-b", "side", "HEAD~2")
    pushed.git("commit", "-q", "--allow-empty", "-m", "beside")
    pushed.git("checkout", "-q", "main")
    pushed.git("merge", "-q", "--no-ff", "-m", "merged", "side")
    pushed.git("commit", "-q", "--allow-empty", "-m", "behind it")
    pushed.push()
    assert taken(source) == pushed.head


def test_h3_branch_that_is_pushed_back_is_not_taken_unless_that_is_allowed(pushed: Pushed, open_source: Open) -> None:
    old = pushed.commit("old", {"blog.yaml": manifest("blog", "old")})
    pushed.commit("between")
    new = pushed.commit("new", {"blog.yaml": manifest("blog", "new")})
    source = open_source()
    first = source.read()
    pushed.git("reset", "-q", "--hard", old)
    pushed.push()
    for each in (source, open_source()):
        seen = each.read()
        assert seen.versions == first.versions
        assert f"commit {old[:12]} is not taken: it is older than {new[:12]}: the branch was pushed back" in seen.stale
        assert "--allow-backwards" in seen.stale
    assert taken(open_source(allow_backwards=True)) == old
    assert taken(open_source()) == old
    pushed.git("reset", "-q", "--hard", new)
    pushed.push()
    assert taken(open_source()) == new
    pushed.git("reset", "-q", "--hard", old)
    pushed.push()
    assert f"it was taken before {new[:12]} already" in open_source().read().stale


def test_h3_rewritten_history_is_not_taken(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    new = pushed.commit("second", {"blog.yaml": manifest("blog", "2")})
    source = open_source()
    source.read()
    pushed.git("commit", "-q", "--amend", "-m", "second, differently")
    pushed.push()
    assert f"commit {new[:12]}, which was taken before, is not in its history, which was rewritten" in source.read().stale
    pushed.git("reset", "-q", "--hard", new)
    pushed.push()
    seen = source.read()
    assert (seen.stale, seen.commit.id if seen.commit else "") == ("", new)


def test_x8_other_repository_behind_the_url_is_not_taken(pushed: Pushed, open_source: Open, tmp_path: Path) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source()
    first = source.read()
    (tmp_path / "other").mkdir()
    other = Pushed(tmp_path / "other")
    other.commit("stranger", {"shop.yaml": manifest("shop")})
    pushed.bare.rename(tmp_path / "aside")
    other.bare.rename(pushed.bare)
    seen = source.read()
    assert seen.versions == first.versions
    assert "nowhere in the repository: its history was rewritten, or it is another one" in seen.stale
    pushed.git("push", "-q", str(pushed.bare), "HEAD:refs/heads/before")
    assert "it has no commit in common with" in open_source().read().stale


@pytest.mark.parametrize("how", ["deleted branch", "no manifest", "no file"])
def test_h3_x8_deleted_branch_and_emptied_tree_change_nothing(pushed: Pushed, open_source: Open, how: str) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog"), "note.txt": "x"})
    source = open_source()
    first = source.read()
    if how == "deleted branch":
        pushed.git("push", "-q", "origin", "HEAD:refs/heads/other")
        pushed.git("symbolic-ref", "HEAD", "refs/heads/other", cwd=pushed.bare)
        pushed.git("push", "-q", "origin", ":main")
    else:
        pushed.commit("emptied", {"blog.yaml": None, **({"note.txt": None} if how == "no file" else {})})
    for each in (source, open_source()):
        seen = each.read()
        assert seen.versions == first.versions
        assert ("has no branch main any more" if how == "deleted branch" else "has no manifest in it") in seen.stale


def test_branch_that_was_never_there_is_told(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    seen = open_source(ref="refs/heads/mian").read()
    assert seen.broken.startswith("it has no branch mian; what runs stays as it is\nhint: ")


def test_other_branch_is_taken_whatever_its_history(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    open_source().read()
    pushed.git("checkout", "-q", "--orphan", "next")
    pushed.git("commit", "-q", "-m", "anew")
    pushed.git("push", "-q", "origin", "HEAD:refs/heads/next")
    assert taken(open_source(ref="refs/heads/next")) == pushed.head


# --- faults ---


def test_x5_repository_that_is_down_leaves_what_was_taken_also_to_the_next_controller(
    pushed: Pushed, open_source: Open, tmp_path: Path
) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source()
    first = source.read()
    pushed.bare.rename(tmp_path / "aside")
    for each in (source, open_source()):
        seen = each.read()
        assert seen.versions == first.versions
        assert seen.stale.startswith("ask the host: ")
        assert seen.broken == ""
    assert source.read().answered_at == first.answered_at
    (tmp_path / "aside").rename(pushed.bare)
    assert source.read().stale == ""


def test_repository_that_never_answered_is_broken_and_says_so(pushed: Pushed, open_source: Open) -> None:
    assert "it has no branch main" in open_source().read().broken
    nowhere = open_source(place=parse_place("/nowhere/at/all")).read()
    assert nowhere.broken.startswith("ask the host: ")
    assert "what runs stays as it is" in nowhere.broken


def test_x1_kill_while_files_are_written_is_made_good_by_the_next_look(
    pushed: Pushed, open_source: Open, disarmed: None
) -> None:
    names = [f"s{number}" for number in range(4)]
    pushed.commit("first", {f"{name}.yaml": manifest(name) for name in names})
    open_source().read()
    second = pushed.commit("second", {f"{name}.yaml": manifest(name, "2") for name in names})
    source = open_source()
    failpoint.arm("controller.sources.gittree._write_next/rename=2*off->raise(EIO)")
    assert source.read().versions == {}, "half a commit is none"
    assert "Input/output error" in source.read().broken
    failpoint.arm("")
    for each in (source, open_source()):
        seen = each.read()
        assert {version.stack.commit.id for version in seen.versions.values() if version.stack.commit} == {second}
        assert len(seen.versions) == 4


def test_locks_of_a_git_that_was_killed_and_lost_memory_are_no_hindrance(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source()
    source.read()
    second = pushed.commit("second", {"blog.yaml": manifest("blog", "2")})
    (source.folder / "repository" / "shallow.lock").touch()
    (source.folder / "repository" / "refs" / "reconcile" / "wanted.lock").touch()
    assert taken(open_source()) == second
    (source.folder / "state.json").write_text("{")
    assert taken(open_source()) == second
    subprocess.run(["rm", "-r", source.tree], check=True)
    seen = open_source().read()
    assert (seen.broken, set(seen.versions)) == ("", {"blog"})


def test_what_came_together_is_thrown_away_and_histories_go_on(
    pushed: Pushed, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitrun, "_MOST_PACKS", 1)
    source = open_source()
    for number in range(4):
        pushed.commit("step")
        new = pushed.commit("another", {"blog.yaml": manifest("blog", f"{number}")})
        assert taken(source) == new
    assert len(list((source.folder / "repository" / "objects" / "pack").glob("*.pack"))) <= 4


# --- hostile repositories ---


def test_h1_links_submodules_and_pointers_of_lfs_are_left_out_and_said(pushed: Pushed, open_source: Open) -> None:
    work = pushed.work
    for name, target in (
        ("away.conf", "/etc/passwd"), ("up.conf", "../../etc/passwd"), ("same.conf", "real.conf"),
        ("twice.conf", "same.conf"), ("loop.conf", "loop.conf"), ("folder", "sub"), ("away.yaml", "/etc/shadow.yaml"),
    ):  # fmt: skip
        (work / name).symlink_to(target)
    mounts = "    mounts: [{mounts}]\n"
    used = ", ".join(f"./{name}.conf:/{name}:ro" for name in ("same", "twice", "run"))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    pushed.commit(
        "links",
        {
            "real.conf": "x=1\n",
            "run.conf": "#!x\n",
            "sub/x.txt": "x",
            "big.conf": pointer,
            ".gitattributes": "*.conf filter=lfs diff=lfs merge=lfs -text export-ignore\n",
            "blog.yaml": manifest("blog", more=mounts.format(mounts=used)),
            "shop.yaml": manifest("shop", more="    env_file: [./away.conf, ./big.conf]\n"),
            ".gitmodules": '[submodule "x"]\n path = mod\n url = -u./payload\n',
        },
    )
    pushed.git("update-index", "--add", "--cacheinfo", f"160000,{pushed.head},mod")
    pushed.git("update-index", "--chmod=+x", "run.conf")
    pushed.git("commit", "-q", "-m", "a submodule")
    pushed.push()
    source = open_source()
    seen = source.read()
    found = {str(path.relative_to(source.tree)) for path in source.tree.rglob("*")}
    assert found.isdisjoint({"away.conf", "up.conf", "loop.conf", "folder", "away.yaml", "mod", "big.conf"})
    assert not any(path.is_symlink() for path in source.tree.rglob("*"))
    assert (source.tree / "twice.conf").read_text() == "x=1\n"
    assert (source.tree / "run.conf").stat().st_mode & 0o777 == 0o755
    assert "no such file" in seen.problems["shop.yaml"]
    assert "away.conf is a link out of the tree, to /etc/passwd" in seen.problems["shop.yaml"]
    assert "big.conf is a pointer of git LFS" in seen.problems["shop.yaml"]
    assert "away.yaml is a link out of the tree" in seen.problems["away.yaml"]
    assert set(seen.versions) == {"blog"}
    assert open_source().read().problems == seen.problems, "the next controller knows it too"


def write_odd_tree(pushed: Pushed, names: dict[str, str]) -> None:
    """A commit with files that no git would check out: written as git's objects are."""
    blobs = {name: pushed.git("hash-object", "-w", "--stdin", stdin=text) for name, text in names.items()}
    entries = b"".join(b"100644 " + os.fsencode(name) + b"\0" + bytes.fromhex(blob) for name, blob in sorted(blobs.items()))
    (pushed.work / "odd").write_bytes(entries)
    tree = pushed.git("hash-object", "-t", "tree", "-w", "--literally", "odd")
    (pushed.work / "odd").unlink()
    commit = pushed.git("commit-tree", tree, "-m", "odd")
    pushed.git("push", "-q", "--force", "origin", f"{commit}:refs/heads/main")


def test_h1_names_that_lead_out_are_never_written(pushed: Pushed, open_source: Open, tmp_path: Path) -> None:
    good = {"blog.yaml": manifest("blog")}
    odd = {"../escaped": "x", ".git": "x", "..": "x", "a/../../b": "x", "new-x": "x", "/".join("d" * 40): "x"}
    write_odd_tree(pushed, {**good, **odd, "\udcff.yaml": manifest("shop"), "\x1b[2J.yaml": "x: ["})
    source = open_source()
    seen = source.read()
    assert set(seen.versions) == {"blog"}
    assert seen.problems["\ufffd.yaml"] == "\ufffd.yaml has a name that is no UTF-8"
    assert json.dumps(seen.problems).encode()
    assert {path.name for path in source.tree.rglob("*")} == {"blog.yaml", "\x1b[2J.yaml"}
    assert list((tmp_path / "root").rglob("escaped")) == []


def test_h1_tree_in_which_a_name_is_a_file_and_a_folder_is_refused(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source()
    first = source.read()
    blob = pushed.git("hash-object", "-w", "--stdin", stdin="x")
    inner = pushed.git("mktree", stdin=f"100644 blob {blob}\tx\n")
    name = (b"100644 a\0", b"40000 a\0")
    entries = name[0] + bytes.fromhex(blob) + name[1] + bytes.fromhex(inner)
    entries += b"100644 blog.yaml\0" + bytes.fromhex(pushed.git("rev-parse", "HEAD:blog.yaml"))
    (pushed.work / "odd").write_bytes(entries)
    tree = pushed.git("hash-object", "-t", "tree", "-w", "--literally", "odd")
    commit = pushed.git("commit-tree", tree, "-p", "HEAD", "-m", "odd")
    pushed.git("push", "-q", "origin", f"{commit}:refs/heads/main")
    seen = source.read()
    assert "a is a file and a folder" in seen.stale
    assert seen.versions == first.versions


def test_h1_nothing_of_the_repository_runs_and_nothing_is_configured_by_it(
    pushed: Pushed, open_source: Open, tmp_path: Path
) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog"), ".gitattributes": "* filter=run\n"})
    proof = tmp_path / "ran"
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-auto-gc"):
        path = pushed.bare / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {proof}\n")
        path.chmod(0o755)
    source = open_source()
    source.read()
    hooks = source.folder / "repository" / "hooks"
    hooks.mkdir()
    for path in (pushed.bare / "hooks").iterdir():
        path.rename(hooks / path.name)
    pushed.commit("second", {"blog.yaml": manifest("blog", "2")})
    assert taken(source) == pushed.head
    assert not proof.exists()


def test_h1_repository_larger_than_the_bound_is_refused_and_leaves_nothing(pushed: Pushed, open_source: Open) -> None:
    pushed.commit("first", {"blog.yaml": manifest("blog")})
    source = open_source(bounds=Bounds(size=1024**2))
    first = source.read()
    (pushed.work / "noise").write_bytes(os.urandom(3 * 1024**2))
    pushed.commit("noise", {"blog.yaml": manifest("blog", "2")})
    seen = source.read()
    assert "fetch: it is larger than 1.0 MB" in seen.stale
    assert seen.versions == first.versions
    assert list((source.folder / "repository" / "objects" / "pack").glob("tmp_*")) == []
    pushed.bare.chmod(0)
    assert "it is larger than 1.0 MB" in source.read().stale, "it is not fetched again as long as it is the same"
    pushed.bare.chmod(0o755)
    assert taken(open_source()) == pushed.head


def test_h1_bombs_of_trees_and_of_files_are_refused_by_what_they_say_of_themselves(
    pushed: Pushed, open_source: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gittree, "MOST_BYTES", 1024**2)
    blob = pushed.git("hash-object", "-w", "--stdin", stdin=manifest("blog"))
    tree = pushed.git("mktree", stdin=f"100644 blob {blob}\tblog.yaml\n")
    for _ in range(10):  # Ten of each in each of ten: 10^10 files of some hundred bytes of git.
        tree = pushed.git("mktree", stdin="".join(f"040000 tree {tree}\tf{number}\n" for number in range(10)))
    commit = pushed.git("commit-tree", tree, "-m", "a bomb")
    pushed.git("push", "-q", "origin", f"{commit}:refs/heads/main")
    assert "it printed more than" in open_source().read().broken
    (pushed.work / "zeros").write_bytes(bytes(2 * 1024**2))
    pushed.commit("zeros", {"blog.yaml": manifest("blog")})
    seen = open_source().read()
    assert "have 2.1 MB; 1.0 MB are taken" in seen.broken
    assert "--path" in seen.broken


# --- what its manifests may ask for ---


def test_g2_manifest_that_asks_for_the_machine_is_invalid_and_its_last_version_stays(
    pushed: Pushed, open_source: Open
) -> None:
    pushed.commit("good", {"blog.yaml": manifest("blog")})
    source = open_source()
    first = source.read().versions["blog"].stack
    pushed.commit("greedy", {"blog.yaml": manifest("blog", more="    mounts: ['/etc:/host']\n    ports: ['80:80']\n")})
    seen = source.read()
    assert "blog.yaml containers.web.mounts: /etc lies outside of the source" in seen.problems["blog.yaml"]
    assert "containers.web.ports: port 80 of the host is below 1024" in seen.problems["blog.yaml"]
    assert seen.versions["blog"].stack == first


# --- signatures ---


def ssh_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True)
    return key


def test_commits_that_nobody_signed_or_somebody_else_are_never_taken(
    pushed: Pushed, open_source: Open, tmp_path: Path
) -> None:
    ann, eve = ssh_key(tmp_path, "ann"), ssh_key(tmp_path, "eve")
    signers = tmp_path / "allowed"
    signers.write_text(f"ann@example.org {(tmp_path / 'ann.pub').read_text()}")
    pushed.git("config", "gpg.format", "ssh")
    pushed.git("config", "user.signingkey", str(ann))
    good = pushed.commit("signed", {"blog.yaml": manifest("blog")}, "-S")
    source = open_source(allowed_signers=signers)
    first = source.read()
    assert taken(source) == good
    bare = pushed.commit("unsigned", {"blog.yaml": manifest("blog", "2")})
    seen = source.read()
    assert f"commit {bare[:12]} is not taken, for its signature does not count: it bears no signature" in seen.stale
    assert seen.versions == first.versions
    pushed.git("config", "user.signingkey", str(eve))
    pushed.commit("by somebody else", {"blog.yaml": manifest("blog", "3")}, "-S")
    seen = source.read()
    assert "does not count: " in seen.stale
    assert "No principal matched" in seen.stale
    assert seen.versions == first.versions
    signers.write_text(f"eve@example.org {(tmp_path / 'eve.pub').read_text()}")
    assert taken(source) == pushed.head
    signers.write_text(f"ann@example.org {(tmp_path / 'ann.pub').read_text()}")
    assert source.read().broken, "what the signers of now did not sign is not in force"
    signers.write_text("")
    assert "are none" in source.read().broken


def test_signatures_of_gpg_count_for_gpg_keys_alone(pushed: Pushed, open_source: Open, tmp_path: Path) -> None:
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)
    run = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*run, "--quick-gen-key", "ann@example.org", "ed25519", "sign"], check=True, capture_output=True)
    keys = tmp_path / "keys.asc"
    keys.write_bytes(subprocess.run([*run, "--armor", "--export"], check=True, capture_output=True).stdout)
    program = tmp_path / "gpg-of-ann"
    program.write_text(f'#!/bin/sh\nexec gpg --homedir {home} --batch --pinentry-mode loopback --passphrase "" "$@"\n')
    program.chmod(0o755)
    pushed.git("config", "gpg.program", str(program))
    pushed.git("config", "user.signingkey", "ann@example.org")
    good = pushed.commit("signed", {"blog.yaml": manifest("blog")}, "-S")
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)
    source = open_source(allowed_signers=keys)
    assert source.read().broken == ""
    assert taken(source) == good
    pushed.commit("unsigned", {"blog.yaml": manifest("blog", "2")})
    assert "bears no signature" in source.read().stale
    ssh_key(tmp_path, "ann")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"* {(tmp_path / 'ann.pub').read_text()}")
    pushed.git("reset", "-q", "--hard", good)
    pushed.push()
    assert "does not count" in open_source(allowed_signers=allowed).read().broken
    assert json.loads((source.folder / "state.json").read_text())["commit"]["id"] == good
