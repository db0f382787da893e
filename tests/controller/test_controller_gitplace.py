"""URLs and names that come from a command line or a configuration: what git gets of them, and what it never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.sources.gitplace import check_file, check_folder, check_ref, name_source, parse_place
from reconciler.model.errors import Usage


@pytest.mark.parametrize(
    ("text", "url", "scheme", "host"),
    [
        ("https://git.example/a/b.git/", "https://git.example/a/b.git", "https", "git.example"),
        ("https://git.example:8443/b", "https://git.example:8443/b", "https", "git.example"),
        ("http://127.0.0.1:3000/b", "http://127.0.0.1:3000/b", "http", "127.0.0.1"),
        ("http://[::1]/b", "http://[::1]/b", "http", "::1"),
        ("ssh://git@git.example:2222/b.git", "ssh://git@git.example:2222/b.git", "ssh", "git.example"),
        ("git@git.example:a/b.git", "git@git.example:a/b.git", "ssh", "git.example"),
        ("git.example:b", "git.example:b", "ssh", "git.example"),
        ("/srv/b.git", "file:///srv/b.git", "file", ""),
        ("file:///srv/b.git", "file:///srv/b.git", "file", ""),
    ],
)
def test_url_says_which_protocol_is_spoken(text: str, url: str, scheme: str, host: str) -> None:
    place = parse_place(text)
    assert (place.url, place.scheme, place.host) == (url, scheme, host)


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh -c touch% /tmp/x", "ext::sh", "fd::3", "git://git.example/b", "http://git.example/b", "http://10.0.0.1/b",
        "--upload-pack=/bin/sh", "-oProxyCommand=x:y", "ssh://-oProxyCommand=touch/x", "ssh://a@-x/b", "-x@h:b", "h$(x):b",
        "https://git.example/b?x", "https://git.example/b#x", "https:///b", "https://git.example:99999/b", "file://host/b",
        "file:", "", ".", "b.git", "./b", "https://git.example/a\nb", 'https://git.example/a"b', "git@-x:b", "ftp://h/b",
    ],
)  # fmt: skip
def test_h1_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(Usage):
        parse_place(text)


@pytest.mark.parametrize(
    "text", ["https://ann:hunter2@git.example/b", "https://hunter2@git.example/b", "ssh://ann:hunter2@h/b"]
)
def test_h2_password_in_a_url_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(Usage) as refused:
        parse_place(text)
    assert "hunter2" not in f"{refused.value.brief}{refused.value.hint}{refused.value.detail}"


@pytest.mark.parametrize("name", ["main", "release/1.2", "v1.0-rc_1", "größe", "a@b"])
def test_usual_names_are_names(name: str) -> None:
    assert check_ref(name, "--branch") == name


@pytest.mark.parametrize(
    "name",
    [
        "--upload-pack=/bin/sh", "-b", "", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a@{1}", "@", "/a",
        "a/", "a//b", ".a", "a/.b", "a.", "a.lock", "a\x7f", "a\nb", "a\0b",
    ],
)  # fmt: skip
def test_h1_names_that_git_would_not_have_are_refused(name: str) -> None:
    with pytest.raises(Usage):
        check_ref(name, "--branch")


@given(st.text())
def test_h1_no_text_becomes_an_option_or_another_protocol(text: str) -> None:
    try:
        place = parse_place(text)
    except Usage:
        return
    assert place.scheme in ("https", "http", "ssh", "file")
    assert not place.url.startswith("-")
    assert "::" not in place.url.partition("/")[0].partition("[")[0]


def test_folder_lies_in_the_repository() -> None:
    assert [check_folder(path) for path in ("", "/", ".", "prod/", "/a/./b")] == ["", "", "", "prod", "a/b"]
    for path in ("..", "a/../..", ".git", "a/.GIT/b", "a\nb"):
        with pytest.raises(Usage):
            check_folder(path)
    assert name_source(parse_place("/srv/b"), "prod") == "file:///srv/b:prod"


def test_path_that_the_configuration_of_ssh_can_not_say_is_refused() -> None:
    assert check_file("/root/a key%h", "--ssh-key") == "/root/a key%h"
    for path in ('/root/"x', "/root/a\\b", "/root/${HOME}", "/root/a\nb"):
        with pytest.raises(Usage):
            check_file(path, "--ssh-key")
