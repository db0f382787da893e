"""Signals as people write them -> one form. Used by `containers.py` and `contents.py`."""

import signal


def read_signal(written: str | int) -> str:
    """`SIGTERM`, or for a real-time signal without a name of its own its number."""
    text = f"{written}"
    if not text:
        return ""
    if text.isdigit():
        number = int(text)
    else:
        base, sign, offset = text.removeprefix("SIG").replace("-", "+-").partition("+")
        number = int(signal.Signals[f"SIG{base}"]) + (int(offset) if sign else 0)
    names = {int(known): known.name for known in signal.Signals}
    return names.get(number, f"{number}")
