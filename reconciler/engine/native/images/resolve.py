"""An ImageSpec -> the facts of the image that it means now, by the rules of `pull:`. Stores nothing.

The image driver calls it. What is here is asked first; `pull.py` asks the registry, `load.py` the archive.
"""

from pathlib import Path
from typing import Any

from msgspec import structs

from reconciler.engine.native.content import images
from reconciler.engine.native.content.config import healthcheck_of, volumes_of
from reconciler.engine.native.images import load, pull
from reconciler.engine.native.images.session import Session
from reconciler.engine.native.layers import stored
from reconciler.engine.native.layout import Layout
from reconciler.model.errors import ContentError, RegistryError
from reconciler.model.record import UNKNOWN, ImageFact
from reconciler.model.reference import Reference, parse_reference
from reconciler.model.spec import ImageSpec


def resolve_spec(session: Session, spec: ImageSpec, *, recorded: str, offline: bool) -> ImageFact:
    """What a spec means now: as `engine/protocol.py` says. `pull: never` asks nobody, and fails where nothing is here."""
    if spec.archive:
        return _resolve_archive(session, Path(spec.archive), recorded=recorded)
    reference = parse_reference(spec.reference)
    here = find_here(session.layout, reference, recorded=recorded)
    # What is pinned can't have changed.
    if here and (spec.pull != "always" or (reference.digest and here.local)):
        return here
    if spec.pull == "never":
        hint = f"`reconcile pull {reference}` brings it here, or say `pull: missing`"
        raise RegistryError(spec.reference, "look for it here", "it is not here, and `pull: never` asks nobody", hint)
    if offline:
        return _unasked(here, f"{reference} was not asked for: offline")
    try:
        return ask_registry(session, reference, here=here)
    except RegistryError as error:
        if not error.retry:
            raise
        return _unasked(here, str(error))


def find_here(layout: Layout, reference: Reference, *, recorded: str = "") -> ImageFact | None:
    """What is here of an image by its pin, by the recorded digest, or by its name, in this order; None if nothing is."""
    if reference.digest:
        return _facts_here(layout, images.find_by_target(layout, reference.digest) or reference.digest)
    # A record made for another reference says nothing about this one.
    if recorded and images.bore_name(layout, recorded, str(reference)) and (fact := _facts_here(layout, recorded)):
        return fact
    found = images.find_by_name(layout, str(reference))
    return _facts_here(layout, found) if found else None


def ask_registry(session: Session, reference: Reference, *, here: ImageFact | None) -> ImageFact:
    """What a reference means now at its registry. Raises RegistryError, ContentError, PlatformMissing."""
    target = ""
    if here and not reference.digest:
        # Order: HEAD first where it is likely unchanged: one request, and Docker Hub does not count it.
        target = session.client(reference.host).read_tag(reference)
        same = images.find_by_target(session.layout, target) if target else ""
        if same and (fact := _facts_here(session.layout, same)):
            session.seen.add_target(str(reference), same, target)
            return fact
    found = pull.find_image(session, reference, target=target)
    if target:
        session.seen.add_target(str(reference), found.digest, target)
    return _facts_here(session.layout, found.digest) or _facts(found.digest, found.config, local=False)


def read_tag(session: Session, reference: Reference) -> str:
    """The digest of what a tag names now at its registry. Raises RegistryError, ContentError."""
    client = session.client(reference.host)
    # Not every registry says it without sending the document.
    return client.read_tag(reference) or client.read_manifest(reference, reference.target).digest


def _resolve_archive(session: Session, path: Path, *, recorded: str) -> ImageFact:
    if not path.exists() and recorded and images.bore_name(session.layout, recorded, images.archive_name(path)):
        here = _facts_here(session.layout, recorded)
        if here and here.local:
            return structs.replace(here, warning=f"the archive {path} is gone; what was loaded from it is used")
    image = load.find_image(path, session.platform)
    return _facts_here(session.layout, image.digest) or _facts(image.digest, image.config, local=False)


def _facts_here(layout: Layout, digest: str) -> ImageFact | None:
    """Facts of an image whose manifest and config are here; `local` says whether its layers are, too."""
    if not digest.startswith("sha256:"):
        return None
    try:
        content = images.read_content(layout, digest)
    except ContentError:
        return None  # altered: `create` fetches it again
    if content is None:
        return None
    whole = all(stored.has_layer(layout, diff_id) for diff_id in content.diff_ids)
    return _facts(digest, content.config, local=whole)


def _facts(digest: str, config: dict[str, Any], *, local: bool) -> ImageFact:
    return ImageFact(digest=digest, local=local, volumes=volumes_of(config), healthcheck=healthcheck_of(config))


def _unasked(here: ImageFact | None, why: str) -> ImageFact:
    return structs.replace(here, warning=why) if here else ImageFact(digest=UNKNOWN, warning=why)
