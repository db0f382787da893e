"""`driver_opts` and `size` of a volume -> their canonical forms. A step of `desire.py`."""

import re
from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import shorten
from reconciler.manifest.scalars import Interpolated
from reconciler.model.spec import Sensitive
from reconciler.model.units import parse_size

_SECRET = re.compile(r"(^|,)\s*(pass(word|wd|phrase)?2?|cred(ential)?s?|secret|key)\s*=", re.IGNORECASE)
_NO_DEVICE = ("tmpfs", "ramfs")
_LEAST = 1024 * 1024


def read_driver_opts(draft: Draft, name: str, written: dict[str, Any]) -> dict[str, str | Sensitive]:
    """What is mounted as the volume, empty for a folder of the root."""
    opts = written.get("driver_opts")
    if not opts or "type" not in opts:
        return {}
    path = ("volumes", name, "driver_opts")
    kind, words = str(opts["type"]), [word.strip() for word in str(opts.get("o", "")).split(",")]
    binds = "bind" in words or "rbind" in words
    device = str(opts.get("device", ""))
    if not device and kind not in _NO_DEVICE:
        draft.blame(path, f"{kind} needs a device", "device: a share, a device or a folder", at_key=True)
    if binds and kind not in ("none", "bind"):
        draft.blame((*path, "type"), f"found {kind} with `o: bind`; expected none")
    if kind in ("none", "bind") and not binds:
        draft.blame(path, f"{kind} is for a folder of the machine, with `o: bind`", "add `o: bind`", at_key=True)
    if binds and device and not device.startswith("/"):
        draft.blame((*path, "device"), f"found {shorten(device)}; expected an absolute path", "volumes belong to no folder")
    if "size" in written:
        hint = "`o: size=64M` for tmpfs; elsewhere the server bounds it"
        draft.blame(
            ("volumes", name, "size"), "`size` is for folders of the root, not for what is mounted", hint, at_key=True
        )
    found = {word: _hide(opts[word], word) for word in ("type", "o", "device") if word in opts}
    return {word: value for word, value in found.items() if value != ""}


def _hide(value: str, word: str) -> str | Sensitive:
    secret = isinstance(value, Interpolated) or (word == "o" and bool(_SECRET.search(value)))
    return Sensitive(str(value)) if secret and word != "type" else str(value)


def read_volume_size(draft: Draft, name: str, written: dict[str, Any]) -> int:
    """The most that it may hold, in bytes; 0 for no limit."""
    if "size" not in written:
        return 0
    path = ("volumes", name, "size")
    try:
        size = parse_size(written["size"])
    except ValueError as error:
        draft.blame(path, f"{error}")
        return 0
    if size < _LEAST:
        draft.blame(path, f"found {written['size']}; expected at least 1M", "units are k, M, G and T: 10G")
    return size
