"""Text to data: whatever the bytes are, the answer is data or one clear error with its place. Row G1."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from manifest_reading import HEAD, problems, read, told

from reconciler.manifest import text as text_module
from reconciler.manifest.emit import dump_yaml
from reconciler.manifest.places import locate_faults
from reconciler.manifest.text import MAX_BYTES, decode, read_document
from reconciler.model.errors import BadManifest, Problem

BOMB = "x-a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"x-{name}: &{name} [{','.join(['*' + below] * 9)}]\n" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "x-0: &a0 [1]\n" + "".join(f"x-{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))

MERGES = (
    "x-0: &a0 {"
    + ", ".join(f"k{n}: 1" for n in range(1000))
    + "}\n"
    + "".join(f"x-{n}: {{<<: *a0}}\n" for n in range(1, 700))
)

G1: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "stack.yaml the manifest is empty"),
    "comment only": ("# nothing\n", "stack.yaml the manifest is empty"),
    "null": ("---\n~\n", "stack.yaml the manifest is empty"),
    "binary": (bytes(range(128, 256)) + b"\0" * 10, "binary data"),
    "ELF": (b"\x7fELF\x02\x01\x01\0", "does not belong in a manifest"),
    "UTF-16": ("name: x".encode("utf-16"), "this is UTF-16"),
    "latin-1": (HEAD.encode() + "x-a: caf\xe9\n".encode("latin-1"), "stack.yaml:3:9 byte 0xe9 is not UTF-8"),
    "NUL": (HEAD + "x-a: a\0b\n", "stack.yaml:3:7 a NUL does not belong"),
    "NUL by escape": (HEAD + 'x-a: "a\\0b"\n', "stack.yaml:3:6 x-a: a NUL character"),
    "escape sequence": (HEAD + "x-a: \x1b[31m\n", "stack.yaml:3:6 the character U+001B"),
    "tabs": (HEAD + "containers:\n\tweb: {}\n", "stack.yaml:4:1 a tab in the indentation"),
    "duplicate key": (HEAD + "x-a: 1\nname: other\n", "stack.yaml:4:1 name: the key is here twice"),
    "duplicate key within": (HEAD + "x-a: {b: 1, b: 2}\n", "stack.yaml:3:13 x-a.b: the key is here twice"),
    "billion laughs": (HEAD + BOMB, "stack.yaml:8:28 aliases stand for more than 500,000 values"),
    "merges without end": (HEAD + MERGES, "aliases stand for more than 500,000 values"),
    "merges in a circle": (HEAD + "x-a: &a {<<: *a}\n", "*a names no anchor that is complete here"),
    "deep flow": (HEAD + "x-a: " + "[" * 10_000, "nested too deep"),
    "deep block": (HEAD + "x-a:\n" + "- " * 10_000 + "a", "nested deeper than 64 levels"),
    "deep by aliases": (HEAD + CHAIN, "nested deeper than 64 levels, through an alias"),
    "alias of itself": (HEAD + "x-a: &a [*a]\n", "stack.yaml:3:10 *a names no anchor that is complete here"),
    "unknown alias": (HEAD + "x-a: *b\n", "stack.yaml:3:6 *b names no anchor"),
    "anchor twice": (HEAD + "x-a: &a 1\nx-b: &a 2\n", "stack.yaml:4:6 the anchor &a is here twice"),
    "python object": (HEAD + "x-a: !!python/object/apply:os.system [id]\n", "stack.yaml:3:6 x-a: the tag !!python/object"),
    "python name": (HEAD + "x-a: !!python/name:os.system\n", "stack.yaml:3:6 x-a: the tag !!python/name:os.system"),
    "own tag": (HEAD + "x-a: !secret x\n", "stack.yaml:3:6 x-a: the tag !secret is not allowed"),
    "binary tag": (HEAD + "x-a: !!binary aGk=\n", "the tag !!binary is not allowed"),
    "key is a list": (HEAD + "? [a]\n: 1\n", "stack.yaml:3:3 a key must be text"),
    "key is missing": (HEAD + "x-a: {: 1}\n", "stack.yaml:3:7 not YAML: a value is missing"),
    "second document": (HEAD + "---\nname: b\n", "stack.yaml:3:1 a second document begins here"),
    "second document after an empty one": ("---\n---\na", "stack.yaml:2:1 a second document begins here"),
    "100 MB scalar": (HEAD + "x-a: " + "a" * 2_000_000, "a value of more than 1,048,576 characters"),
    "long key": (HEAD + "a" * 1500 + ": 1\n", "key"),
    "merge of text": (HEAD + "x-a: {<<: b}\n", 'stack.yaml:3:7 x-a."<<": << merges maps'),
    "open quote": (HEAD + 'x-a: "b\n', "a quote is not closed"),
    "two colons": (HEAD + "x-a: b: c\n", "stack.yaml:3:7 not YAML: a colon where none can be"),
    "at sign": (HEAD + "x-a: @b\n", "stack.yaml:3:6 a value can't begin with `@`"),
    "variable in braces": (HEAD + "x-a: {b: ${C}}\n", 'quote "${VAR}" between { } and [ ]'),
    "list at the top": ("- a\n", "stack.yaml:1:1 found a list; expected a map"),
    "word at the top": ("just words\n", 'stack.yaml:1:1 found "just words"; expected a map'),
}


@pytest.mark.parametrize("name", G1)
def test_g1_hostile_text_is_one_clear_error_with_its_place(name: str):
    text, words = G1[name]
    begun = time.monotonic()
    found = told(text)
    assert words in found
    assert len(problems(text)) == 1, found
    assert time.monotonic() - begun < 5


def test_g1_120_megabytes_are_refused_unread(tmp_path: Path):
    with pytest.raises(BadManifest, match=r"stack.yaml: 1 problem") as caught:
        decode(b"a" * (MAX_BYTES + 1), file="stack.yaml")
    assert caught.value.problems[0].text == "larger than 8 MiB, the most that a manifest may be"


SCALARS: dict[str, Any] = {
    "on": "on",
    "off": "off",
    "no": "no",
    "Yes": "Yes",
    "true": True,
    "False": False,
    "~": None,
    "null": None,
    "": None,
    "10": 10,
    "-3": -3,
    "0": 0,
    "010": "010",
    "0o17": "0o17",
    "0x1F": "0x1F",
    "1_000": "1_000",
    "12:30:45": "12:30:45",
    "1.5": 1.5,
    "1e3": 1000.0,
    ".5": 0.5,
    "1e400": "1e400",
    "-1e400": "-1e400",
    ".nan": ".nan",
    ".inf": ".inf",
    "NaN": "NaN",
    "2024-01-01": "2024-01-01",
    "2024-01-01T00:00:00Z": "2024-01-01T00:00:00Z",
    "9" * 5000: "9" * 5000,
    "=": "=",
    "'10'": "10",
    '"true"': "true",
    "!!str 10": "10",
    '!!int "10"': 10,
}


@pytest.mark.parametrize("written", SCALARS)
def test_g1_plain_values_are_those_of_yaml_1_2_and_nothing_else_is_made(written: str):
    document = read_document(f"a: {written}\n", file="f", variables={})
    assert document.data == {"a": SCALARS[written]}
    assert type(document.data["a"]) in (str, int, bool, type(None)) or isinstance(document.data["a"], float)
    assert document.faults == ()


def test_g1_bom_is_no_part_of_the_text():
    assert read("\ufeff".encode() + HEAD.encode() + b"volumes: {a: {}}").name == "s"


def test_g1_merge_keys_fill_in_what_is_not_written_and_the_first_wins():
    text = "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], a: 0}\nw:\n  a: 0\n  <<: *y\n"
    data = read_document(text, file="f", variables={}).data
    assert data["z"] == {"a": 0, "b": 1, "c": 2}
    assert data["w"] == {"a": 0, "b": 2, "c": 2}
    assert data["x"] == {"a": 1, "b": 1}


def test_problem_in_a_merged_map_is_shown_where_it_is_written():
    text = HEAD + "x-a: &a\n  restart: sometimes\ncontainers:\n  web:\n    image: a/b:1\n    <<: *a\n"
    assert [(p.line, p.column, p.path) for p in problems(text)] == [(4, 12, "containers.web.restart")]


def problems_or_none(text: str | bytes) -> tuple[Problem, ...]:
    try:
        read(text)
    except BadManifest as error:
        return error.problems
    return ()


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"%YAML 9.9\n---\na: 1")
@example(b"%TAG ! tag:x,2000:\n---\n!a b")
@example(b"a: &a\n<<: *a")
@example(b"? ? ?")
def test_loader_never_raises_anything_but_bad_manifest_on_bytes(raw: bytes):
    for problem in problems_or_none(raw):
        assert problem.text


YAML_PIECES = st.sampled_from(
    [
        *["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<", "!!str ", "!", "|", ">", "'", '"'],
        *["#", "?", "\t", "${A}", "$", "---\n", "...", "@", "%", "1", "~", "true"],
        *["apiVersion: reconcile/v1\n", "name: s\n", "containers:\n"],
    ]
)


@given(st.lists(YAML_PIECES, max_size=40).map("".join))
def test_loader_never_raises_anything_but_bad_manifest_on_yaml_like_text(text: str):
    for problem in problems_or_none(text):
        assert problem.text
        assert 0 <= problem.line <= text.count("\n") + 1


@given(st.text(max_size=100))
def test_loader_never_raises_anything_but_bad_manifest_on_text(text: str):
    for problem in problems_or_none(HEAD + text):
        assert problem.text


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef-_.", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abcdef", min_size=1), PLAIN, min_size=1, max_size=5))
def test_json_data_come_through_as_they_are_with_either_parser(data: dict[str, Any]):
    text = dump_yaml(data).replace("$", "$$")
    fast = read_document(text, file="f", variables={}).data
    pure, text_module.EVENT_LOADER = text_module.EVENT_LOADER, yaml.SafeLoader
    try:
        slow = read_document(text, file="f", variables={}).data
    finally:
        text_module.EVENT_LOADER = pure
    assert fast == slow == data


def test_pure_parser_finds_the_same_problems(monkeypatch: pytest.MonkeyPatch):
    text = HEAD + "containers:\n  web: {image: a/b:1, memry: 1}\n  web: 3\n"
    fast = told(text)
    monkeypatch.setattr(text_module, "EVENT_LOADER", yaml.SafeLoader)
    assert told(text) == fast


def test_no_fault_means_no_problem():
    assert locate_faults([], file="f", text="a: 1") == []
