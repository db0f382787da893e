"""What security.md and reliability.md promise is tested where they say so."""

import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = {name: (REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("security", "reliability")}
NAMED = re.compile(r"`(?:(?P<file>tests/[\w./]+\.py)|…)::(?P<test>test_\w+)(?P<more>…|\[)?")


@cache
def find_tests(file: str) -> frozenset[str]:
    """The functions of one file of tests, or of all."""
    paths = [REPOSITORY / file] if file else sorted((REPOSITORY / "tests").rglob("test_*.py"))
    return frozenset(
        name for path in paths for name in re.findall(r"^(?:    )?def (test_\w+)", path.read_text(), re.MULTILINE)
    )


def is_there(file: str, test: str, *, begins: bool) -> bool:
    return any(name.startswith(test) if begins else name == test for name in find_tests(file))


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = list(NAMED.finditer(PAGES[page]))
    assert len(named) > 30, "the pages name them otherwise now"
    missing = [found[0] for found in named if not is_there(found["file"] or "", found["test"], begins=found["more"] == "…")]
    assert missing == []
    files = set(re.findall(r"`(tests/[\w./]+\.py)`", PAGES[page]))
    assert {file for file in files if not (REPOSITORY / file).exists()} == set()


def test_every_row_has_a_test_with_its_id_in_the_name() -> None:
    rows = {row for text in PAGES.values() for row in re.findall(r"^\| ([A-GX]\d+) \|", text, re.MULTILINE)}
    assert len(rows) > 45, "the tables are written otherwise now"
    words = {word for name in find_tests("") for word in name.lower().split("_")}
    assert {row for row in rows if row.lower() not in words} == set()


def test_for_ten_rows_and_in_each_letter_a_protection_was_taken_out_once() -> None:
    seen = {
        found[1]
        for line in PAGES["security"].splitlines()
        if "seen to fail" in line.lower() and (found := re.match(r"\| ([A-G]\d+) \|", line))
    }
    assert {row[0] for row in seen} == set("ABCDEFG")
    assert len(seen) >= 10
