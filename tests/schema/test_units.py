"""Durations and sizes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.model.units import (
    LARGEST,
    parse_duration,
    parse_size,
    render_duration,
    render_size,
    render_size_rounded,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5s", 1.5),
        ("10us", 1e-5),
        ("7", 7),
        (0.25, 0.25),
        (3, 3),
    ],
)
def test_durations_are_seconds(text: str | float, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "5 s", "5x", "-5s", "5s ", "1e3s", "∞", "5s5", "9" * 5000 + "s", "inf", -1, 1e300]
)
def test_what_is_no_duration_is_refused(text: str | float):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *[(text, 64 << 20) for text in ("64M", "64m", "64Mi", "64MB", "64MiB", "64 M")],
        *[("1Gi", 1 << 30), ("512k", 512 << 10), ("1.5G", 3 << 29), ("1T", 1 << 40)],
        *[("100", 100), ("100b", 100), (4096, 4096), ("0", 0)],
    ],
)
def test_sizes_are_bytes_in_powers_of_1024(text: str | int, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "64X", "-1", "1e3", "64 M B", "٣M", "9" * 5000, "9999999999T", -1, 2**63])
def test_what_is_no_size_is_refused(text: str | int):
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**18))
def test_rendered_durations_parse_back(nanoseconds: int):
    seconds = nanoseconds / 1e9
    assert parse_duration(render_duration(seconds)) == pytest.approx(seconds, rel=1e-12, abs=1e-9)


@given(st.integers(min_value=0, max_value=LARGEST))
def test_rendered_sizes_parse_back(size: int):
    assert parse_size(render_size(size)) == size


@given(st.text(max_size=20))
def test_only_value_errors_are_raised(text: str):
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


def test_renderings_are_short():
    assert [render_duration(s) for s in (0, 90, 0.5, 3661, 1e-5)] == ["0s", "1m30s", "500ms", "1h1m1s", "10us"]
    assert [render_size(n) for n in (0, 64 << 20, 1 << 30, 1000)] == ["0", "64M", "1G", "1000"]
    assert [render_size_rounded(n) for n in (0, 999, 123456789, 5 << 40)] == ["0 B", "999 B", "123.5 MB", "5.5 TB"]
