"""Durations and sizes: text as Docker and Kubernetes write them <-> seconds and bytes.

Feeds `manifest/desire.py`; `cli/` and exports render with it. Never rounds without saying so in the name.
"""

import re

_SPANS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_SPAN.pattern})+")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s?([kmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def parse_duration(text: str | float) -> float:
    """`1m30s` -> 90.0 seconds. A number, or text that is one, is seconds. Raises ValueError."""
    if not isinstance(text, str):
        return float(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write 5s, 1m30s or 500ms")
    return round(sum(float(number) * _SPANS[unit] for number, unit in _SPAN.findall(text)), 9)


def parse_size(text: str | int) -> int:
    """`64M` -> 67108864 bytes. A number, or text that is one, is bytes. Raises ValueError.

    Compat: K, M, G and T are powers of 1024 with and without `i` and `B`, as Docker reads them; Kubernetes' `M` is 5 %
    less, its `Mi` the same.
    """
    if not isinstance(text, str):
        return text
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no size; write 64M, 1Gi or 512k")
    number, unit = found.groups()
    power = _POWERS[unit.lower()]
    return int(number) * power if number.isdigit() else int(float(number) * power)


def render_duration(seconds: float) -> str:
    """90.0 -> `1m30s`; what parses back to the same number. Sub-second parts as `500ms`, `20us` or `5ns`."""
    whole, rest = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    out = "".join(
        f"{count}{unit}"
        for count, unit in zip((whole // 3600, whole % 3600 // 60, whole % 60), "hms", strict=True)
        if count
    )
    for unit, size in (("ms", 1_000_000), ("us", 1_000), ("ns", 1)):
        count, rest = divmod(rest, size)
        out += f"{count}{unit}" if count else ""
    return out or "0s"


def render_size(size: int) -> str:
    """67108864 -> `64M`; what parses back to the same number: the largest unit that divides it."""
    for unit in "TGMK":
        power = _POWERS[unit.lower()]
        if size and size % power == 0:
            return f"{size // power}{unit}"
    return str(size)


def render_size_rounded(size: float) -> str:
    """123456789 -> `118 MiB`: three digits, for people; not to be parsed."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
