"""A user's name or number, by hostile passwd and group files."""

import os
from pathlib import Path

import pytest

from reconciler.engine.native.runtime.users import BadUser, Identity, resolve_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
twice:x:2000:2000::/first:
twice:x:0:0::/second:
broken:x::0::/:
short:x:0
1000:x:0:0::/evil:
far:x:4294967296:0::/:
"""
GROUP = "root:x:0:\nweb:x:33:app,other\nlog:x:4:app\nbad:x::app\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD.replace("far:x:4294967296:0::/:\n", ""))
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("", Identity(0, 0, (), "/root")),
        ("app", Identity(1000, 1001, (4, 33), "/home/app")),
        ("1000", Identity(1000, 1001, (4, 33), "/home/app")),
        ("app:web", Identity(1000, 33, (), "/home/app")),
        ("app:7", Identity(1000, 7, (), "/home/app")),
        ("555", Identity(555, 0, (), "/")),
        ("555:666", Identity(555, 666, (), "/")),
        ("twice", Identity(2000, 2000, (), "/first")),
    ],
)
def test_users_are_resolved_as_in_docker(root: Path, text: str, identity: Identity) -> None:
    assert resolve_user(text, root=root) == identity


@pytest.mark.parametrize(
    "text",
    [
        "4294967296", "4294967295", "2147483648", "-1", "+0", "0x0", "root:0:0", ":", "app:", ":web", "nobody", "app:none",
        "broken", "short", "a b", "app\n", "root\0", "0" * 40, "app:-1", "app:99999999999",
    ],
)  # fmt: skip
def test_what_is_no_user_is_refused_b1(root: Path, text: str) -> None:
    with pytest.raises(BadUser):
        resolve_user(text, root=root)


def test_image_without_passwd_knows_numbers_only(tmp_path: Path) -> None:
    assert resolve_user("", root=tmp_path) == Identity()
    assert resolve_user("12:13", root=tmp_path) == Identity(12, 13)
    with pytest.raises(BadUser, match="no user 'app'"):
        resolve_user("app", root=tmp_path)


def test_passwd_that_is_a_fifo_is_refused_and_never_waited_for_b1(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc/passwd")
    with pytest.raises(BadUser, match="not a regular file"):
        resolve_user("app", root=tmp_path)


def test_passwd_of_a_gigabyte_is_refused_b1(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with (tmp_path / "etc/passwd").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BadUser, match="1073741824 bytes"):
        resolve_user("app", root=tmp_path)


@pytest.mark.parametrize("target", ["/proc/self/fd/0", "/etc/passwd", "../../../../../etc/passwd"])
def test_passwd_that_is_a_link_to_the_host_stays_inside_b1(tmp_path: Path, target: str) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to(target)
    with pytest.raises(BadUser):
        resolve_user("daemon", root=tmp_path)


def test_user_that_is_in_many_groups_is_bounded(root: Path) -> None:
    (root / "etc/group").write_text("".join(f"g{number}:x:{number}:app\n" for number in range(5000)))
    assert len(resolve_user("app", root=root).groups) == 1024
