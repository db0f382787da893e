"""Configs and secrets: what a manifest declares, and what of it a container sees. Steps of `desire.py` and `load.py`.

Specs get a digest only once `resolve` has read what is named here; where it comes from stands in the draft's `sources`. No
file is read in this room: that they are there, and not too large, is looked at, for then errors have a place.
"""

import os
from collections.abc import Collection
from typing import Any

from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import Path, fitting_entries, render_path, shorten
from reconciler.manifest.files import Files
from reconciler.manifest.mounts import read_mode, read_target
from reconciler.manifest.scalars import Interpolated
from reconciler.model.content import ENCRYPTED_LIMIT, LIMIT
from reconciler.model.key import Kind, make_key, split_key
from reconciler.model.record import Source
from reconciler.model.signals import canonical_signal
from reconciler.model.spec import ConfigSpec, FileMount, ImageSpec, SecretSpec, Sensitive

_SECTION = {Kind.CONFIG: "configs", Kind.SECRET: "secrets"}
_TEXT = {Kind.CONFIG: "content", Kind.SECRET: "env"}
_ENCRYPTED = ("age", "sops")
_FOLDER = {Kind.CONFIG: "/", Kind.SECRET: "/run/secrets/"}
_MODE = {Kind.CONFIG: 0o444, Kind.SECRET: 0o400}


def draft_contents(draft: Draft) -> None:
    """The specs and sources of all configs and secrets."""
    for kind, spec in ((Kind.CONFIG, ConfigSpec()), (Kind.SECRET, SecretSpec())):
        for name, written in draft.section(_SECTION[kind]).items():
            key = make_key(kind, draft.name, name)
            draft.specs[key] = spec
            source = _read_source(draft, kind, name, written)
            if source is not None:
                draft.sources[key] = source


def _read_source(draft: Draft, kind: Kind, name: str, written: dict[str, Any]) -> Source | None:
    path: Path = (_SECTION[kind], name)
    text = _TEXT[kind]
    named = [word for word in ("file", *_ENCRYPTED, text) if word in written]
    if len(named) > 1:
        kept = " or ".join(f"`{word}`" for word in named)
        draft.blame(path, f"a {kind} comes from one place", f"keep {kept}", at_key=True)
    elif not named and _says_nothing(draft.written[_SECTION[kind]][name]):  # what does not fit was blamed already
        hint = f"write `file: PATH` or `{text}: {'TEXT' if kind is Kind.CONFIG else 'NAME'}`"
        draft.blame(path, f"a {kind} needs a source", hint, at_key=True)
    elif named and named[0] != text:
        return _read_path(draft, named[0], written, path)
    elif named and kind is Kind.CONFIG:
        return _read_content(draft, written["content"], (*path, "content"))
    elif named:
        return _read_variable(draft, written["env"], (*path, "env"))
    return None


def _says_nothing(written: Any) -> bool:
    return not written or (isinstance(written, dict) and set(written) == {"key"})


def _read_path(draft: Draft, word: str, written: dict[str, Any], path: Path) -> Source:
    """A file, as it is or encrypted."""
    if "key" in written and word != "sops":
        draft.blame(
            (*path, "key"),
            "only a file of SOPS has values to choose from",
            f"remove `key`, or write `sops: {written[word]}`",
        )
    file = os.path.normpath(os.path.join(draft.folder, written[word]))  # noqa: PTH118
    form = word if word in _ENCRYPTED else ""
    return Source(file=file, form=form, select=written.get("key", ""), path=render_path((*path, word)))


def _read_content(draft: Draft, text: str, path: Path) -> Source:
    try:
        size = len(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError:
        draft.blame(path, "found half a character (a lone surrogate)", "write it as UTF-8")
        return Source(path=render_path(path))
    if size > LIMIT:
        draft.blame(path, f"found {size:,} bytes; a config has at most 1 MiB", "use a volume or a bind mount")
    return Source(value=Sensitive(str(text)), guessable=isinstance(text, Interpolated), path=render_path(path))


def _read_variable(draft: Draft, name: str, path: Path) -> Source:
    if name not in draft.variables:
        hint = f"set it in the environment or in .env, or give it with --var {name}=…"
        draft.blame(path, f"the variable {name} is not set", hint)
    return Source(value=Sensitive(draft.variables.get(name, "")), path=render_path(path))


def blame_files(draft: Draft, files: Files) -> None:
    """Files of configs and secrets that are not there, are none, or are too large."""
    for key, source in draft.sources.items():
        limit = ENCRYPTED_LIMIT if source.form else LIMIT
        if source.file and (wrong := _find_wrong(files, source.file, limit)):
            kind, _, name = key.split("/", 2)
            draft.blame((_SECTION[Kind(kind)], name, source.form or "file"), *wrong)


def blame_unsent(draft: Draft, files: Files) -> None:
    """What a controller would need of files that are sent to it, and is not sent: image archives, but for those that root
    has there; of another machine also folders, large files and what a container may write to."""
    for key, spec in draft.specs.items():
        if isinstance(spec, ImageSpec) and spec.archive:
            _blame_archive(draft, files, split_key(key).name, spec.archive)
    for source, read_only, path in draft.binds if files.sender else ():
        if not (read_only and _is_small(files, source)):
            hint = "write the whole path on the host that runs it, or use a volume; small files are sent if read-only"
            draft.blame(path, f"{source} is on {files.sender}, and not sent", hint)


def _blame_archive(draft: Draft, files: Files, name: str, archive: str) -> None:
    whole = str(draft.section("images")[name]["archive"]).startswith("/")
    if whole and files.host_paths:
        return
    registry = "push the image to a registry and write `from:`"
    if whole or not files.sender:
        text = f"the archive of image {name} is opened for root alone: {archive}"
        hint = f"{registry}, or have root apply it" + (" (--host ssh://root@HOST)" if files.sender else "")
    else:
        text = f"the archive of image {name} is on {files.sender}, and not sent: {archive}"
        hint = f"{registry}, or scp it to the host and write the whole path that it has there (for root: ssh://root@HOST)"
    draft.blame(("images", name, "archive"), text, hint)


def _is_small(files: Files, source: str) -> bool:
    try:
        found = files.look(source)
    except OSError:
        return False
    return found.regular and found.size <= LIMIT


def _find_wrong(files: Files, file: str, limit: int) -> tuple[str, str] | None:
    try:
        found = files.look(file)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        text = f"no such file: {file}" if missing else f"{file} can't be read: {error.strerror}"
        return text, files.hint or "relative paths begin at the manifest's folder"
    if not found.regular:
        return f"{file} is no regular file", "name one file; a folder can be a bind mount"
    if found.size > limit:
        return f"{file} has {found.size:,} bytes; at most {limit >> 20} MiB is kept", "use a volume or a bind mount"
    return None


def read_files(draft: Draft, kind: Kind, written: Any, container: str, *, taken: Collection[str]) -> dict[str, FileMount]:
    """The configs or secrets that a container sees, by absolute target, sorted; `taken` are its other targets."""
    out: dict[str, FileMount] = {}
    section = _SECTION[kind]
    for place, entry in fitting_entries(written):
        path: Path = ("containers", container, section, place)
        full = {"source": entry} if isinstance(entry, str) else entry
        if "source" not in full:
            continue
        name = full["source"]
        if name not in draft.names(section):
            hint = draft.near(name, draft.names(section)) or f"declare it under `{section}:` at the top"
            draft.blame(path, f"no {kind} named {shorten(name)}", hint)
        target = full.get("target", name)
        target = read_target(draft, target if target.startswith("/") else _FOLDER[kind] + target, path)
        if target in out or target in taken:
            draft.blame(path, f"a second mount at {target}", "keep one of the two, or give it another target")
        elif target:
            out[target] = _read_file(draft, kind, full, path)
    return dict(sorted(out.items()))


def _read_file(draft: Draft, kind: Kind, full: dict[str, Any], path: Path) -> FileMount:
    on_change = full.get("on_change", "replace")
    if "signal" in full and on_change != "nothing":
        draft.blame((*path, "signal"), "a signal is only sent where the container goes on", "add `on_change: nothing`")
    return FileMount(
        source=full["source"],
        uid=int(full.get("uid", 0)),
        gid=int(full.get("gid", 0)),
        mode=read_mode(draft, full["mode"], (*path, "mode")) if "mode" in full else _MODE[kind],
        on_change=on_change,
        signal=canonical_signal(full["signal"]) if "signal" in full else "",
    )
