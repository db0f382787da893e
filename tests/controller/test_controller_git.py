"""A repository as a source: what is taken of it, and what is not. Real git, over file://."""

from collections.abc import Callable
from pathlib import Path

import pytest

from controller.gitlab import Pushed
from reconciler.controller.sources.git import GitOptions, GitSource
from reconciler.controller.sources.gitplace import parse_place

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


def test_commit_becomes_versions_that_say_of_which_they_are(pushed: Pushed, open_source: Open) -> None:
    first = pushed.commit("two stacks", {"blog.yaml": manifest("blog"), "shop/stack.yaml": manifest("shop")})
    seen = open_source().read()
    assert (seen.broken, seen.stale, seen.problems) == ("", "", {})
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
