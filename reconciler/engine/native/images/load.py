"""An archive -> an image that is here. Its content can't be fetched again, so it is on the disk before this returns.

`drivers/image.py` calls it; `content/archive.py` reads the archive, `gather.py` makes the image be here.
"""

from pathlib import Path

from reconciler.engine.native.content import archive, images
from reconciler.engine.native.content.archive import ArchiveImage
from reconciler.engine.native.content.config import diff_ids
from reconciler.engine.native.content.documents import Platform
from reconciler.engine.native.images.gather import Parts, gather_image
from reconciler.engine.native.images.intake import Source, Wanted
from reconciler.engine.native.images.session import Session
from reconciler.model.errors import ContentError
from reconciler.model.events import Emit
from reconciler.model.key import Key


def find_image(path: Path, platform: Platform) -> ArchiveImage:
    """The image of an archive for a platform; stores nothing. Raises Failed, ContentError, PlatformMissing."""
    with archive.open_archive(path) as opened:
        return opened.choose_image(platform)


def load_image(session: Session, path: Path, digest: str, *, key: Key, emit: Emit) -> str:
    """Make the image of an archive be here; its digest. With an empty `digest`, whatever the archive has now.

    Raises ContentError where the archive no longer has the image of `digest`, Failed.
    """
    image = find_image(path, session.platform)
    if digest and image.digest != digest:
        raise ContentError(f"{path}", f"the image {digest} that was planned", image.digest, "make the plan again")

    def source(wanted: Wanted) -> Source:
        return lambda start: archive.read_layer(path, image, wanted.digest, start=start)

    parts = Parts(
        digest=image.digest,
        documents={image.digest: image.manifest_data, image.manifest.config.digest: image.config_data},
        manifest=image.manifest,
        diff_ids=diff_ids(image.config),
        shown=str(path),
        name=images.archive_name(path),
    )
    gather_image(
        session.layout,
        parts,
        source=source,
        pool=session.pool,
        closing=session.closing,
        key=key,
        emit=emit,
        durable=True,
    )
    return image.digest
