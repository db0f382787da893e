"""A folder of manifests, read as people and programs leave it: half-written, renamed, invalid, gone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.controller.sources import directory
from reconciler.controller.sources.directory import DirectorySource
from reconciler.verbs.plan import load

TEXT = "apiVersion: reconcile/v1\nname: {name}\ncontainers:\n  web:\n    image: app:{tag}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "stacks"
    made.mkdir()
    return made


def write(path: Path, name: str, tag: str = "1", more: str = "") -> None:
    """As an editor does: whole, under another name, renamed."""
    staged = path.with_name(f".{path.name}.swp")
    staged.write_text(TEXT.format(name=name, tag=tag) + more)
    staged.rename(path)


def source(folder: Path, **variables: str) -> DirectorySource:
    return DirectorySource(folder, variables=variables)


def test_each_file_and_each_folder_with_manifests_is_a_stack(folder: Path) -> None:
    write(folder / "blog.yaml", "blog")
    (folder / "shop").mkdir()
    write(folder / "shop" / "stack.yml", "shop")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("no manifest")
    (folder / ".hidden.yaml").write_text("nonsense: [")
    seen = source(folder).read()
    assert set(seen.versions) == {"blog", "shop"}
    assert seen.problems == {}
    assert seen.broken == ""


def test_what_does_not_change_has_the_same_token_and_what_does_has_another(folder: Path) -> None:
    write(folder / "blog.yaml", "blog")
    write(folder / "shop.yaml", "shop")
    made = source(folder)
    first = made.read().versions
    assert made.read().versions == first
    write(folder / "blog.yaml", "blog", tag="2")
    second = made.read().versions
    assert second["shop"] == first["shop"]
    assert second["blog"].token != first["blog"].token


@pytest.mark.parametrize("name", ["site.env", "nginx.conf"])
def test_a_file_that_the_manifest_names_is_part_of_its_version(folder: Path, name: str) -> None:
    (folder / name).write_text("A=1\n")
    uses = "    env_file: ./site.env\n" if name == "site.env" else "    mounts: [./nginx.conf:/etc/nginx.conf:ro]\n"
    write(folder / "blog.yaml", "blog", more=uses)
    made = source(folder)
    first = made.read().versions["blog"].token
    (folder / name).write_text("A=2\n")
    assert made.read().versions["blog"].token != first


def test_invalid_file_leaves_the_last_version_and_says_where(folder: Path) -> None:
    write(folder / "blog.yaml", "blog")
    made = source(folder)
    first = made.read().versions
    write(folder / "blog.yaml", "blog", more="    memry: 1G\n")
    seen = made.read()
    assert seen.versions["blog"].stack == first["blog"].stack
    assert "blog.yaml:6:5" in seen.problems["blog.yaml"]
    assert "resources: {memory" in seen.problems["blog.yaml"]
    write(folder / "blog.yaml", "blog")
    assert made.read().problems == {}


def test_file_that_is_open_for_writing_waits_until_it_is_whole(folder: Path) -> None:
    """Cut at a line's end it would be a valid manifest of another stack's half."""
    write(folder / "blog.yaml", "blog")
    made = source(folder)
    first = made.read().versions
    with (folder / "blog.yaml").open("w") as file:
        file.write(TEXT.format(name="blog", tag="2"))
        file.flush()
        seen = made.read()
        assert seen.unsettled == ("blog.yaml",)
        assert seen.versions == first
        file.write("    command: [late]\n")
    seen = made.read()
    assert seen.unsettled == ()
    [spec] = [spec for key, spec in seen.versions["blog"].stack.specs.items() if key.startswith("container/")]
    assert spec.command == ("late",)


def test_folder_that_is_gone_or_empty_says_nothing_about_stacks(folder: Path) -> None:
    write(folder / "blog.yaml", "blog")
    made = source(folder)
    first = made.read().versions
    (folder / "blog.yaml").rename(folder.parent / "kept.yaml")
    seen = made.read()
    assert "no manifest in it" in seen.broken
    assert seen.versions == first
    folder.rmdir()
    assert "can't be read: No such file or directory" in made.read().broken
    folder.mkdir()
    (folder.parent / "kept.yaml").rename(folder / "blog.yaml")
    seen = made.read()
    assert seen.broken == ""
    assert set(seen.versions) == {"blog"}


def test_of_two_files_with_one_stack_the_first_seen_keeps_it(folder: Path) -> None:
    write(folder / "blog.yaml", "blog")
    made = source(folder)
    first = made.read().versions
    write(folder / "a-copy.yaml", "blog", tag="9")
    seen = made.read()
    assert seen.versions == first
    assert "the stack blog is in blog.yaml already" in seen.problems["a-copy.yaml"]


def test_link_out_of_the_folder_is_refused_and_one_within_is_not(folder: Path) -> None:
    """Whoever may write there is not to have any file of the host read as root, and told in an error."""
    outside = folder.parent / "secret.yaml"
    outside.write_text("password: hunter2\n")
    (folder / "evil.yaml").symlink_to(outside)
    (folder / "v1").mkdir()
    write(folder / "v1" / "blog.txt", "blog")
    (folder / "blog.yaml").symlink_to(Path("v1") / "blog.txt")
    seen = source(folder).read()
    assert "is a link out of" in seen.problems["evil.yaml"]
    assert "hunter2" not in str(seen)
    assert set(seen.versions) == {"blog"}


def test_variables_are_the_sources_and_not_the_environments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG", "from-the-environment")
    write(folder / "blog.yaml", "blog", tag="${TAG}")
    assert "TAG" in source(folder).read().problems["blog.yaml"]
    [image] = [spec for key, spec in source(folder, TAG="7").read().versions["blog"].stack.specs.items() if "image" in key]
    assert image.reference.endswith(":7")


def test_pipe_and_folder_that_bear_a_manifests_name_hang_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    (folder / "folder.yaml").mkdir()
    write(folder / "blog.yaml", "blog")
    seen = source(folder).read()
    assert set(seen.versions) == {"blog"}
    assert "pipe.yaml" in seen.problems


def test_what_changes_while_it_is_read_is_seen_with_the_next_look(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "blog.yaml", "blog")
    made = source(folder)

    def load_and_be_overtaken(files, **named):
        monkeypatch.undo()
        found = directory.load(files, **named)
        write(folder / "blog.yaml", "blog", tag="2")
        return found

    monkeypatch.setattr(directory, "load", load_and_be_overtaken)
    first = made.read().versions["blog"]
    second = made.read().versions["blog"]
    assert second.stack.specs != first.stack.specs
    assert second.token != first.token


def save_as_vim(path: Path, text: str) -> None:
    probe = path.with_name("4913")
    probe.touch()
    probe.unlink()
    path.rename(f"{path}~")
    path.write_text(text)
    Path(f"{path}~").unlink()


def save_as_emacs(path: Path, text: str) -> None:
    lock = path.with_name(f".#{path.name}")
    lock.symlink_to("somebody@host.1:1")
    path.with_name(f"{path.name}~").write_text(path.read_text())
    path.write_text(text)
    lock.unlink()


def save_by_renaming(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.swp")
    staged.write_text(text)
    staged.rename(path)


@pytest.mark.parametrize("save", [save_as_vim, save_as_emacs, save_by_renaming, Path.write_text])
def test_x7_a_save_by_any_editor_is_one_new_version(folder: Path, save: Callable[[Path, str], object]) -> None:
    write(folder / "blog.yaml", "blog")
    watched = source(folder)
    before = watched.read().versions["blog"].token
    save(folder / "blog.yaml", (folder / "blog.yaml").read_text().replace(":1", ":2"))
    after = watched.read()
    assert list(after.versions) == ["blog"]
    assert after.problems == {}
    assert after.versions["blog"].token != before


SOPS_FILE = "password: ENC[AES256_GCM,data:8Ll+TDCgzQ==,iv:aao0OSVd,tag:WKj0nuSS,type:str]\nsops:\n    mac: x\n"


def test_file_of_sops_beside_manifests_is_none(folder: Path) -> None:
    (folder / "secrets.yaml").write_text(SOPS_FILE)
    write(folder / "blog.yaml", "blog")
    (folder / "shop").mkdir()
    write(folder / "shop" / "stack.yaml", "shop")
    (folder / "shop" / "secrets.yaml").write_text(SOPS_FILE)
    seen = source(folder).read()
    assert set(seen.versions) == {"blog", "shop"}
    assert seen.problems == {}
    assert [stack.name for stack in load([folder / "shop"], variables={}, environment={})] == ["shop"]
    # One that is a manifest of ours as well is told that it can't be both.
    (folder / "mail.yaml").write_text(TEXT.format(name="mail", tag="1") + SOPS_FILE)
    assert "sops: unknown key" in source(folder).read().problems["mail.yaml"]
