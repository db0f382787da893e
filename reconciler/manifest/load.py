"""Reads manifests: paths or text -> `Stack`s, or every problem of every file at once. What other rooms call.

The order: `text.py` (data), `validate.py` (schema), `desire.py` (specs), `places.py` (positions of what is wrong). The
environment and the origin come from the caller; files are read here and nowhere else in this room.
"""

import os
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from reconciler.manifest.borrowing import blame_borrowing
from reconciler.manifest.conflicts import blame_between, blame_same_names
from reconciler.manifest.contents import blame_files, blame_unsent
from reconciler.manifest.desire import blame_empty, desire
from reconciler.manifest.draft import Draft
from reconciler.manifest.envfile import parse_env_text
from reconciler.manifest.faults import Fault
from reconciler.manifest.files import HERE, Files, is_file, is_folder
from reconciler.manifest.lockfile import pin_specs, read_lock
from reconciler.manifest.sopsfile import is_sops_file
from reconciler.manifest.text import MAX_BYTES, Document, decode, read_document
from reconciler.manifest.validate import validate
from reconciler.model.errors import BadManifest, Problem
from reconciler.model.record import Lock, Stack

OriginOf = Callable[[Path, str | None], str]
"""Whose a manifest is: from its path and what its `origin:` says, None where it says nothing."""

_STDIN = Path("-")
ENV_FILE = ".env"
MAX_PROBLEMS = 200
"""Shown of one manifest; one slip in an anchor may be wrong ten thousand times."""

Judge = Callable[[Any], Iterable[Fault]]
"""Data of a manifest to its faults."""


class _Read(Struct, frozen=True):
    """One manifest on its way."""

    path: Path
    document: Document
    draft: Draft
    lock: Lock | None = None


def load_stacks(
    paths: Sequence[Path],
    *,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    origin_of: OriginOf,
    stdin: str | bytes | None = None,
    judge: Judge | None = None,
    pinned: bool = True,
    files: Files = HERE,
    folder: Path | None = None,
) -> tuple[Stack, ...]:
    """The stacks of manifests; of a folder, all its *.yaml and *.yml; of `-`, the text given as `stdin`.

    Variables win over the environment, that over the `.env` beside the manifest. A `judge` is asked for a second opinion
    of each document in which nothing was found. Images are pinned by the lock file beside a manifest. What `stdin` names
    begins at `folder`, the current one without it. All is read of `files`.
    Raises BadManifest with all problems of all files.
    """
    problems: list[Problem] = []
    read: list[_Read] = []
    for path in _find_files(paths, files, problems):
        piped = path == _STDIN and stdin is not None
        try:
            raw = _encode(stdin or "") if piped else _read_file(path, files, most=MAX_BYTES)
            one = _read(
                raw, path, file=str(path), variables=variables, environment=environment, judge=judge, files=files,
                folder=folder if piped else None,
            )  # fmt: skip
            lock = None if piped else read_lock(path, file=str(path), files=files)
            read.append(structs.replace(one, lock=lock))
        except BadManifest as error:
            problems.extend(error.problems)
    return _finish(read, problems, origin_of=origin_of, pinned=pinned)


def load_text(
    text: str | bytes,
    *,
    file: str,
    folder: Path,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    origin_of: OriginOf,
) -> Stack:
    """The stack of one manifest's text. `file` is what errors call it; relative paths and `.env` begin at `folder`.

    Raises BadManifest.
    """
    read = _read(_encode(text), folder / file, file=file, variables=variables, environment=environment, folder=folder)
    return _finish([read], [], origin_of=origin_of)[0]


def _encode(text: str | bytes) -> bytes:
    # What is no text (a lone surrogate) becomes bytes that decode() refuses with their place.
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _find_files(paths: Iterable[Path], files: Files, problems: list[Problem]) -> list[Path]:
    """Manifests in the order given, those of a folder by name; none twice."""
    out: dict[Path, None] = {}
    for path in paths:
        try:
            found = _list_manifests(path, files) if is_folder(files, str(path)) else [path]
        except OSError as error:
            problems.append(Problem(file=str(path), text=f"can't be read: {error.strerror}"))
            continue
        if not found:
            problems.append(
                Problem(file=str(path), text="no manifest in this folder", hint="manifests end in .yaml or .yml")
            )
        out.update(dict.fromkeys(found))
    return list(out)


def _list_manifests(folder: Path, files: Files) -> list[Path]:
    found = sorted(folder / name for name in files.names(str(folder)))
    return [file for file in found if file.suffix in (".yaml", ".yml") and not is_sops_file(file, files)]


def _read_file(path: Path, files: Files, *, most: int) -> bytes:
    """A file's bytes, one more than `most` if it is larger: decode() says so. Devices and pipes end there too."""
    try:
        return files.read(str(path), most)
    except FileNotFoundError:
        raise BadManifest([Problem(file=str(path), text="no such file", hint=files.hint)]) from None
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise BadManifest([Problem(file=str(path), text=f"can't be read: {words}")]) from None


def _read(
    raw: bytes,
    path: Path,
    *,
    file: str,
    variables: Mapping[str, str],
    environment: Mapping[str, str],
    folder: Path | None = None,
    judge: Judge | None = None,
    files: Files = HERE,
) -> _Read:
    beside = Path(os.path.abspath(path.parent if folder is None else folder))  # noqa: PTH100 - resolve() would follow links
    known = ChainMap(dict(variables), dict(environment), _read_env_beside(beside, files))
    document = read_document(decode(raw, file=file), file=file, variables=known)
    fitting, faults = validate(document.data)
    found = [*document.faults, *faults]
    if judge is not None and not found:
        found += judge(document.data)
    draft = desire(document.data, fitting, folder=str(beside), variables=known, faults=found)
    for name, place in draft.env_files:
        if not is_file(files, name):
            draft.blame(place, f"no such file: {name}", files.hint or "relative paths begin at the manifest's folder")
    blame_files(draft, files)
    if files is not HERE:
        blame_unsent(draft, files)
    blame_empty(draft)
    return _Read(path, document, draft)


def _read_env_beside(folder: Path, files: Files) -> dict[str, str]:
    path = folder / ENV_FILE
    # Of a folder that may not be entered the manifest's own error tells.
    if not is_file(files, str(path)):
        return {}
    return parse_env_text(decode(_read_file(path, files, most=MAX_BYTES), file=str(path)), file=str(path))


def _finish(
    read: Sequence[_Read], problems: list[Problem], *, origin_of: OriginOf, pinned: bool = True
) -> tuple[Stack, ...]:
    """Compare the stacks with each other, and give them out if nothing is wrong with any."""
    drafts = [one.draft for one in read]
    blame_same_names(drafts)
    blame_between(drafts)
    blame_borrowing(drafts)
    for one in read:
        problems += _find_problems(one)
    if problems:
        raise BadManifest(problems)
    return tuple(_make_stack(one, origin_of=origin_of, pinned=pinned) for one in read)


def _find_problems(one: _Read) -> list[Problem]:
    """The faults of one manifest with their places; those beyond MAX_PROBLEMS are only counted."""
    faults = one.draft.faults
    if not faults:
        return []
    from reconciler.manifest.places import locate_faults

    problems = locate_faults(faults[:MAX_PROBLEMS], file=one.document.file, text=one.document.text)
    if len(faults) > MAX_PROBLEMS:
        problems.append(Problem(file=one.document.file, text=f"and {len(faults) - MAX_PROBLEMS:,} more problems"))
    return problems


def _make_stack(one: _Read, *, origin_of: OriginOf, pinned: bool) -> Stack:
    named = one.draft.data.get("origin")
    origin = f"name:{named}" if named else origin_of(one.path, None)
    draft = one.draft
    specs = pin_specs(draft.specs, one.lock) if one.lock is not None and pinned else draft.specs
    return Stack(
        name=draft.name, origin=origin, source=one.document.file, specs=specs, sources=draft.sources, lock=one.lock
    )
