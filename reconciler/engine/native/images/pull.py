"""A reference -> which image it means now at its registry; and that image -> here.

`resolve.py` and the image driver call it. Asking stores nothing on disk. A digest that was planned is what is pulled,
whatever its tag has come to mean. Neighbours: `registry/client.py` asks, `content/documents.py` reads, `gather.py` keeps.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from reconciler.engine.native.content import documents, images
from reconciler.engine.native.content.blobs import digest_of
from reconciler.engine.native.content.config import config_platform, diff_ids, parse_config
from reconciler.engine.native.content.documents import Index, Manifest
from reconciler.engine.native.images.gather import Parts, gather_image
from reconciler.engine.native.images.intake import Source, Wanted
from reconciler.engine.native.images.session import Session
from reconciler.model.errors import ContentError, PlatformMissing
from reconciler.model.events import Emit
from reconciler.model.key import Key
from reconciler.model.reference import Reference

if TYPE_CHECKING:
    from reconciler.engine.native.registry.client import Client


class Found(Struct, frozen=True):
    """An image at its registry."""

    digest: str
    manifest: Manifest
    config: dict[str, Any]
    documents: Mapping[str, bytes]
    """Manifest, config, and the index that it was chosen from, by digest."""


def find_image(session: Session, reference: Reference, *, target: str = "") -> Found:
    """The image that a reference means now; with `target`, the one of that digest.

    Three requests at most: index, manifest, config. Raises RegistryError, ContentError, PlatformMissing.
    """
    client = session.client(reference.host)
    data, media_type = _read_manifest(client, reference, target or reference.target, session)
    top = digest_of(data)
    read = {top: data}
    what = f"{reference}: its manifest"
    document = documents.parse_document(data, media_type=media_type, what=what)
    if isinstance(document, Index):
        chosen = documents.choose_entry(document, session.platform, reference=str(reference))
        data, media_type = _read_manifest(client, reference, chosen.digest, session)
        if len(data) != chosen.size:
            raise ContentError(what, f"{chosen.size} bytes", f"{len(data)}")
        document = documents.parse_document(data, media_type=media_type, what=what)
        if isinstance(document, Index):
            raise ContentError(f"{reference}: its index", "images", "another index within it")
    digest = digest_of(data)
    config_data = _read_config(client, reference, document, session)
    what = f"{reference}: its config"
    content = images.join_content(digest, document, parse_config(config_data, what=what), what=what)
    given = config_platform(content.config)
    if not documents.platform_fits(session.platform, given):
        raise PlatformMissing(str(reference), str(session.platform), [str(given)])
    if top != digest or not target:
        session.seen.add_target(str(reference), digest, top)
    return Found(digest, document, content.config, {**read, digest: data, document.config.digest: config_data})


def pull_image(session: Session, reference: Reference, digest: str, *, key: Key, emit: Emit) -> str:
    """Make an image be here and be found by its reference; its digest. With an empty `digest`, what the tag means now.

    What is here of it stays, what is missing or altered is fetched. Raises RegistryError, ContentError, Failed.
    """
    known = _known_parts(session, reference, digest) if digest else None
    parts = known or _found_parts(session, reference, find_image(session, reference, target=digest))

    def source(wanted: Wanted) -> Source:
        # The client is made when bytes are asked for: importing it is a tenth of an apply whose images are here.
        return lambda start: session.client(reference.host).read_blob(
            reference, wanted.digest, size=wanted.size, start=start
        )

    gather_image(session.layout, parts, source=source, pool=session.pool, closing=session.closing, key=key, emit=emit)
    return parts.digest


def _known_parts(session: Session, reference: Reference, digest: str) -> Parts | None:
    """Parts of an image whose manifest and config are here, which needs no request unless a layer is missing."""
    try:
        content = images.read_content(session.layout, digest)
    except ContentError:
        return None  # altered: fetched again
    if content is None:
        return None
    name = str(reference)
    before = images.read_kept(session.layout, digest).targets.get(name, "")
    target = session.seen.target_of(name, digest)
    index = session.seen.find(target)
    return Parts(
        digest=digest,
        documents={target: index[0]} if index else {},
        manifest=content.manifest,
        diff_ids=content.diff_ids,
        shown=name,
        name=name,
        target=target if index or not before else before,
    )


def _found_parts(session: Session, reference: Reference, found: Found) -> Parts:
    target = session.seen.target_of(str(reference), found.digest)
    index = session.seen.find(target)
    return Parts(
        digest=found.digest,
        documents={**found.documents, **({target: index[0]} if index else {})},
        manifest=found.manifest,
        diff_ids=diff_ids(found.config),
        shown=str(reference),
        name=str(reference),
        target=target,
    )


def _read_manifest(client: "Client", reference: Reference, target: str, session: Session) -> tuple[bytes, str]:
    if known := session.seen.find(target):
        return known
    document = client.read_manifest(reference, target)
    session.seen.add(document.data, document.media_type)
    return document.data, document.media_type


def _read_config(client: "Client", reference: Reference, manifest: Manifest, session: Session) -> bytes:
    known = session.seen.find(manifest.config.digest)
    if known and len(known[0]) == manifest.config.size:
        return known[0]
    data = client.read_config(reference, manifest.config.digest, manifest.config.size)
    session.seen.add(data)
    return data
