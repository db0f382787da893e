"""Signals by name and number, as images, manifests and people write them. Source: signal(7)."""

import signal

TERM = int(signal.SIGTERM)


def parse_signal(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3`, `SIGRTMAX-1`. Raises ValueError for what is none."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and 0 < int(name) <= signal.SIGRTMAX:
        return int(name)
    for base, sign in (("RTMIN", 1), ("RTMAX", -1)):
        rest = name.removeprefix(base)
        if rest != name and (not rest or (rest[0] == "+-"[sign < 0] and rest[1:].isdigit())):
            number = int(signal.Signals[f"SIG{base}"]) + sign * int(rest[1:] or 0)
            if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
                return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise ValueError(f"{text!r} is no signal") from None


def name_signal(number: int) -> str:
    """`SIGTERM`; empty for a number without a name, as most real-time signals are."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def canonical_signal(written: str | int) -> str:
    """`SIGTERM`, or for a signal without a name its number; empty for nothing. Raises ValueError for what is none."""
    if written == "":
        return ""
    number = parse_signal(f"{written}")
    return name_signal(number) or f"{number}"
