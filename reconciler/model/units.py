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

LONGEST = 1e9
"""Seconds, some 31 years: beyond it a duration is a mistake."""
LARGEST = 2**63 - 1
"""Bytes: what the kernel's interfaces take."""


def parse_duration(text: str | float) -> float:
    """`1m30s` -> 90.0 seconds. A number, or text that is one, is seconds. Raises ValueError."""
    seconds = _read_duration(text) if isinstance(text, str) else float(text)
    if not 0 <= seconds <= LONGEST:
        raise ValueError(f"{text} is out of range; a duration is at most 30 years")
    return seconds


def _read_duration(text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write 5s, 1m30s or 500ms")
    seconds = sum(float(number) * _SPANS[unit] for number, unit in _SPAN.findall(text))
    return round(seconds, 9) if seconds <= LONGEST else seconds


def parse_size(text: str | int) -> int:
    """`64M` -> 67108864 bytes. A number, or text that is one, is bytes. Raises ValueError.

    Compat: K, M, G and T are powers of 1024 with and without `i` and `B`, as Docker reads them; Kubernetes' `M` is 5 %
    less, its `Mi` the same.
    """
    size = _read_size(text) if isinstance(text, str) else text
    if not 0 <= size <= LARGEST:
        raise ValueError(f"{text} is out of range; a size is less than 8 EiB")
    return int(size)


def _read_size(text: str) -> float:
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no size; write 64M, 1Gi or 512k")
    number, unit = found.groups()
    # A number of more than 32 digits is out of range whatever it says; int() refuses very long ones in words of its own.
    exact = number.isdigit() and len(number) <= 32
    return (int(number) if exact else float(number)) * _POWERS[unit.lower()]


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
    """123456789 -> `123.5 MB`: for people, by powers of 1000 as Docker shows sizes; not to be parsed."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def render_age(seconds: float) -> str:
    """How long ago, in the largest unit that says something: `5s`, `3m`, `2h`, `4d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"
