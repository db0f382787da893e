"""The lock file of a manifest: each tag with the digest that it named then. `stack.yaml` has `stack.yaml.lock`.

`load.py` reads it beside the manifest and pins the images that it names; `reconcile lock` writes it. A digest is that of
what the tag named, an index where the image has several platforms, so that one file serves machines of all of them
(docs/decisions/0090).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from reconciler.manifest.faults import Fault, shorten
from reconciler.manifest.files import HERE, Files, is_file
from reconciler.manifest.text import MAX_BYTES, decode, read_document
from reconciler.model.errors import BadManifest, Problem
from reconciler.model.key import Key
from reconciler.model.record import Lock
from reconciler.model.reference import parse_reference
from reconciler.model.spec import ImageSpec, Spec

SUFFIX = ".lock"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEAD = """\
# Written by `reconcile lock`: what each tag named when it was locked. Keep it beside the manifest, in version control.
apiVersion: reconcile/v1
"""
_WAY_OUT = "`reconcile lock PATH` writes a new one where this is removed"


def lock_path(manifest: str | Path) -> Path:
    """Where the lock file of a manifest is."""
    return Path(f"{manifest}{SUFFIX}")


def read_lock(manifest: Path, *, file: str, files: Files = HERE) -> Lock | None:
    """The lock file beside a manifest, None where there is none. `file` is what people call the manifest.

    Raises BadManifest for one that is damaged, with places.
    """
    path, name = str(lock_path(manifest)), str(lock_path(file))
    if not is_file(files, path):
        return None
    try:
        raw = files.read(path, MAX_BYTES)
    except OSError as error:
        raise BadManifest([Problem(file=name, text=f"can't be read: {error.strerror}", hint=_WAY_OUT)]) from None
    document = read_document(decode(raw, file=name), file=name, variables={})
    faults = [*document.faults, *_check(document.data)]
    if faults:
        from reconciler.manifest.places import locate_faults

        raise BadManifest(locate_faults(faults, file=name, text=document.text))
    return Lock(file=name, digests=dict(document.data["locked"] or {}))


def _check(data: Any) -> Iterator[Fault]:
    if not isinstance(data, dict) or data.get("apiVersion") != "reconcile/v1" or "locked" not in data:
        yield Fault((), "this is no lock file: expected `apiVersion: reconcile/v1` and `locked:`", _WAY_OUT)
        return
    for word in data:
        if word not in ("apiVersion", "locked"):
            yield Fault((word,), "unknown key", _WAY_OUT, at_key=True)
    locked = data["locked"] if data["locked"] is not None else {}
    if not isinstance(locked, dict):
        yield Fault(("locked",), "expected a map of tags to digests", _WAY_OUT)
        return
    for tag, digest in locked.items():
        if not is_tag(tag):
            yield Fault(("locked", tag), f'found "{shorten(tag)}"; expected HOST/NAME:TAG in full', _WAY_OUT, at_key=True)
        elif not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            yield Fault(("locked", tag), f'found "{shorten(str(digest))}"; expected sha256: and 64 hex digits', _WAY_OUT)


def is_tag(text: str) -> bool:
    """Whether a text is a canonical reference with a tag and without a digest: what can be locked."""
    try:
        reference = parse_reference(text)
    except ValueError:
        return False
    return str(reference) == text and not reference.digest


def render_lock(digests: Mapping[str, str]) -> str:
    """The text of a lock file: the same for the same digests in any order."""
    if not digests:
        return f"{_HEAD}locked: {{}}\n"
    return f"{_HEAD}locked:\n" + "".join(f'  "{tag}": {digest}\n' for tag, digest in sorted(digests.items()))


def pin_specs(specs: Mapping[Key, Spec], lock: Lock) -> dict[Key, Spec]:
    """The specs with every tag that the lock names pinned to its digest; the tag stays for people."""
    return {
        key: replace(spec, reference=f"{spec.reference}@{lock.digests[spec.reference]}")
        if isinstance(spec, ImageSpec) and spec.reference in lock.digests
        else spec
        for key, spec in specs.items()
    }
