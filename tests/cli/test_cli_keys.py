"""The keys that let go of a container's terminal."""

import click
import pytest

from reconciler.cli.attach import parse_keys
from reconciler.engine.native.runtime.attach import _Keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@", b"\0"),
        ("a", b"a"),
        ("ctrl-x,x", b"\x18x"),
        ("", b""),
        ("ctrl-[,ctrl-_", b"\x1b\x1f"),
    ],
)
def test_keys_as_people_write_them(text: str, keys: bytes):
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pq", "ab", "ctrl-1", "a,,b", "ä"])
def test_what_is_no_key_is_refused(text: str):
    with pytest.raises(click.UsageError):
        parse_keys(text)


@pytest.mark.parametrize(
    ("typed", "passed", "let_go"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_keys_are_found_in_what_is_typed(typed: list[bytes], passed: bytes, let_go: bool):
    keys, out, found = _Keys(b"\x10\x11"), b"", False
    for data in typed:
        more, found = keys.take(data)
        out += more
    assert (out, found) == (passed, let_go)
