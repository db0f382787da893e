"""Mounts, short or in full -> `Mount`s by target. A step of `desire.py`. Looks at no file: sources need not exist here."""

import posixpath
import re
from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path, fitting_entries, shorten
from reconciler.model.spec import UNREAD, Mount
from reconciler.model.units import parse_size

_FORM = "SOURCE:TARGET[:ro]"
_WORDS_OF_TYPE = {
    "volume": ("type", "source", "target", "read_only", "subpath"),
    "bind": ("type", "source", "target", "read_only"),
    "tmpfs": ("type", "target", "read_only", "size", "mode"),
}
_MODE = re.compile(r"(?:0o?)?([0-7]{3,4})")


def read_mounts(draft: Draft, written: Any, container: str) -> dict[str, Mount]:
    """What a container mounts, by absolute target, sorted."""
    out: dict[str, Mount] = {}
    for place, entry in fitting_entries(written):
        path: Path = ("containers", container, "mounts", place)
        full = _split(draft, entry, path) if isinstance(entry, str) else entry
        # A map without its target was blamed by the schema.
        if full is None or "target" not in full:
            continue
        target = read_target(draft, full["target"], path)
        mount = _read_mount(draft, full, path)
        if target in out:
            draft.blame(path, f"a second mount at {target}", "keep one of the two")
        elif target and mount:
            out[target] = mount
    return dict(sorted(out.items()))


def _split(draft: Draft, text: str, path: Path) -> dict[str, Any] | None:
    """The short form in full."""
    parts = text.split(":")
    if len(parts) == 1 or len(parts) > 3 or not all(parts):
        draft.blame(path, f'found "{shorten(text)}"; expected {_FORM}', "an unnamed volume needs a name: data:/data")
        return None
    mode = parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        draft.blame(path, f'found the option "{shorten(mode)}"; expected ro or rw')
        return None
    if not parts[1].startswith("/"):
        draft.blame(path, f'found the target "{shorten(parts[1])}"; expected an absolute path')
        return None
    return {"source": parts[0], "target": parts[1], "read_only": mode == "ro"}


def read_target(draft: Draft, text: str, path: Path) -> str:
    """An absolute path in a container, without a slash at its end; empty, with a fault, where nothing can be mounted."""
    target = "/" + posixpath.normpath(text).lstrip("/")
    if ".." in text.split("/"):
        draft.blame(path, f'found ".." in the target {shorten(text)}', "write the path without it")
    elif target == "/" or target == "/proc" or target.startswith("/proc/"):
        draft.blame(path, f"nothing can be mounted at {target}", "choose a folder of its own")
    else:
        return target
    return ""


def _looks_like_path(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~")) or source in (".", "..")


def _read_mount(draft: Draft, full: dict[str, Any], path: Path) -> Mount | None:
    source = full.get("source", "")
    kind = full.get("type") or ("bind" if _looks_like_path(source) else "volume")
    for word in full:
        if word not in _WORDS_OF_TYPE[kind]:
            draft.blame((*path, word), f"a {kind} mount has no {word}", "leave it out", at_key=True)
    if kind == "tmpfs":
        size, mode = _read_tmpfs(draft, full, path)
        return Mount(type=kind, read_only=full.get("read_only", False), size=size, mode=mode)
    if not source:
        draft.blame(path, f"a {kind} mount needs a source", "name a volume, or a path that begins with / or ./")
        return None
    read_only = full.get("read_only", False)
    if kind == "bind":
        # A file beside the manifest belongs to it; of what lies elsewhere on the host nobody expects a copy.
        beside = not posixpath.isabs(source)
        source = _read_bind_source(draft, source, path)
        if beside:
            draft.binds.append((source, read_only, path))
        return Mount(type=kind, source=source, read_only=read_only, digest=UNREAD if read_only and beside else "")
    subpath = _read_subpath(draft, full.get("subpath", ""), (*path, "subpath"))
    return Mount(type=kind, source=_read_volume_name(draft, source, path), read_only=read_only, subpath=subpath)


def _read_bind_source(draft: Draft, source: str, path: Path) -> str:
    if source.startswith("~"):
        draft.blame(path, f'found "{shorten(source)}"; ~ is not expanded', "write ${HOME}/…")
    return posixpath.normpath(posixpath.join(draft.folder, source))


def _read_volume_name(draft: Draft, source: str, path: Path) -> str:
    known = draft.names("volumes")
    if source not in known:
        hint = draft.near(source, known)
        hint = hint or f"declare it: volumes: {{{shorten(source)}: {{}}}}; a path begins with / or ./"
        draft.blame(path, f"no volume named {shorten(source)}", hint)
    return draft.meant("volumes", source)


def _read_subpath(draft: Draft, text: str, path: Path) -> str:
    if text and (text.startswith("/") or ".." in text.split("/")):
        draft.blame(path, f'found "{shorten(text)}"; expected a path within the volume, without ".."')
    return posixpath.normpath(text) if text else ""


def _read_tmpfs(draft: Draft, full: dict[str, Any], path: Path) -> tuple[int, int]:
    """Bytes and permission bits; 0 for what is left out."""
    size = mode = 0
    if "size" in full:
        try:
            size = parse_size(full["size"])
        except ValueError as error:
            draft.blame((*path, "size"), str(error))
    if "mode" in full:
        # The default and its spelling are one spec.
        bits = read_mode(draft, full["mode"], (*path, "mode"))
        mode = bits if bits != 0o1777 else 0
    return size, mode


def read_mode(draft: Draft, written: str | int, path: Path) -> int:
    """Permission bits; 0, with a fault, for what is none."""
    found = _MODE.fullmatch(f"{written}")
    if found is None:
        draft.blame(path, f"found {written}; expected permission bits in octal such as 0755")
        return 0
    return int(found[1], 8)
