"""Turns a manifest's data into the canonical specs of its stack: list and map forms become one, defaults are filled in.

Between `validate.py` and `load.py`. It looks at references between resources and at what the schema can't say, notes faults
with their paths, and goes on with the rest. Nothing outside the text is looked at: no file, no registry, no machine.
"""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.manifest.borrowing import borrow, is_borrowed
from reconciler.manifest.conflicts import blame_addresses, blame_dependencies, blame_names
from reconciler.manifest.containers import make_container
from reconciler.manifest.contents import draft_contents
from reconciler.manifest.draft import Draft
from reconciler.manifest.faults import DROPPED, Fault, shorten
from reconciler.manifest.networks import draft_networks
from reconciler.manifest.pairs import read_labels
from reconciler.manifest.replicas import blame_replicas, draft_replicas
from reconciler.manifest.updates import blame_start_first
from reconciler.manifest.volumes import read_driver_opts, read_volume_size
from reconciler.model.key import RUN_STACK, Kind, make_key
from reconciler.model.reference import canonical_reference
from reconciler.model.spec import ImageSpec, VolumeSpec


def desire(written: Any, fitting: Any, *, folder: str, variables: Mapping[str, str], faults: Sequence[Fault] = ()) -> Draft:
    """The draft of one stack, its specs filled in as far as its data fit. `faults` are those known before."""
    data = {} if fitting is DROPPED else fitting
    name = data.get("name", "")
    draft = Draft(written=written, data=data, folder=folder, variables=variables, name=name, faults=list(faults))
    if draft.name == RUN_STACK:
        draft.blame(("name",), f"the name {draft.name} is reserved", "choose another name")
    _draft_images(draft)
    draft_networks(draft)
    _draft_volumes(draft)
    draft_contents(draft)
    for name, container in draft.section("containers").items():
        draft.containers[name] = make_container(draft, name, container)
    blame_names(draft)
    blame_dependencies(draft)
    blame_addresses(draft)
    blame_start_first(draft)
    blame_replicas(draft)
    draft_replicas(draft)
    return draft


def blame_empty(draft: Draft) -> None:
    """A manifest without any resource. Asked last: where something else is wrong, it says what is missing."""
    if not draft.faults and not draft.specs:
        hint = "to remove a stack, use `reconcile delete`"
        draft.blame((), "the manifest names no image, network, volume or container of its own", hint)


def _draft_images(draft: Draft) -> None:
    for name, written in draft.section("images").items():
        draft.specs[make_key(Kind.IMAGE, draft.name, name)] = _image_spec(draft, name, written)


def _image_spec(draft: Draft, name: str, written: dict[str, Any]) -> ImageSpec:
    path = ("images", name)
    pull = written.get("pull", "missing")
    sources = [word for word in ("from", "archive") if word in written]
    if len(sources) == 2:
        draft.blame(
            path, "an image comes from a registry or from a file, not from both", "keep `from` or `archive`", at_key=True
        )
    elif not sources:
        # What was dropped as wrong or not built was blamed already.
        if not any(fault_word in draft.written["images"][name] for fault_word in ("from", "archive", "build")):
            draft.blame(path, "an image needs a source", "write `from: REFERENCE` or `archive: FILE`", at_key=True)
    elif sources == ["archive"]:
        if "pull" in written:
            draft.blame((*path, "pull"), "an archive is never pulled", "leave it out", at_key=True)
        return ImageSpec(archive=posixpath.normpath(posixpath.join(draft.folder, written["archive"])))
    return ImageSpec(reference=_read_reference(draft, name, written.get("from", "")), pull=pull)


def _read_reference(draft: Draft, name: str, text: str) -> str:
    if not text:
        return ""
    try:
        return canonical_reference(text)
    except ValueError as error:
        draft.blame(("images", name, "from"), f'found "{shorten(text)}": {error}')
        return ""


def _draft_volumes(draft: Draft) -> None:
    moved_to: dict[str, str] = {}
    for name, written in draft.section("volumes").items():
        if is_borrowed(written):
            borrow(draft, "volumes", name, written)
            continue
        labels = read_labels(draft, (written or {}).get("labels"), ("volumes", name, "labels"))
        moved = (written or {}).get("moved", {}).get("from", "")
        if moved in draft.names("volumes") and not (moved == name and (written or {}).get("per_replica")):
            text = f"{moved} is declared too: one of the two has its data" if moved != name else "that is its own name"
            draft.blame(("volumes", name, "moved", "from"), text, "take its former name out of `volumes:`")
        if moved and moved_to.setdefault(moved, name) != name:
            draft.blame(
                ("volumes", name, "moved", "from"), f"{moved} moves to {moved_to[moved]} already", "keep one of the two"
            )
        access = (written or {}).get("access", "")
        draft.specs[make_key(Kind.VOLUME, draft.name, name)] = VolumeSpec(
            labels=labels,
            access=access,
            moved=moved,
            driver_opts=read_driver_opts(draft, name, written or {}),
            size=read_volume_size(draft, name, written or {}),
        )
