"""Images of the native engine: an ImageSpec -> the digest that it means, and its content in the root.

Thin: `images/` resolves, pulls, loads and prunes, `content/images.py` reads what is here. It keeps no count of who uses an
image (that is rows), and mounts nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import structs

from reconciler.engine.native.content import blobs, images
from reconciler.engine.native.content.documents import Platform, host_platform
from reconciler.engine.native.glimpse import Glimpse
from reconciler.engine.native.images.session import Session
from reconciler.engine.native.layers import stored
from reconciler.engine.native.layout import Layout
from reconciler.engine.native.refusals import telling
from reconciler.engine.native.snapshots.mounts import unmount_layers
from reconciler.engine.protocol import LocalImage, Uses
from reconciler.model.errors import ContentError, Failed, NotFound
from reconciler.model.events import Emit
from reconciler.model.key import Key
from reconciler.model.observation import PRESENT, Part, Phase, Status, altered, missing
from reconciler.model.record import UNKNOWN, ImageFact, Made
from reconciler.model.reference import parse_reference
from reconciler.model.spec import ImageSpec


@telling("update", create="get it", prune="prune images", list_images="list images")
class ImageDriver:
    """Images of one root. All methods may be called from several threads."""

    def __init__(self, layout: Layout, *, platform: Platform | None = None) -> None:
        self._layout = layout
        self._session = Session(layout, platform or host_platform())

    def close(self) -> None:
        """End what is under way, and let connections and threads go."""
        self._session.close()

    def resolve(self, key: Key, spec: ImageSpec, *, recorded: str, offline: bool) -> ImageFact:
        """As the protocol says."""
        from reconciler.engine.native.images import resolve

        with _mapped(f"resolve {key}"):
            return resolve.resolve_spec(self._session, spec, recorded=recorded, offline=offline)

    def read_tag(self, reference: str) -> str:
        """As the protocol says."""
        from reconciler.engine.native.images import resolve

        with _mapped(f"ask for {reference}"):
            return resolve.read_tag(self._session, parse_reference(reference))

    def create(self, made: Made, *, uses: Uses, emit: Emit) -> Status:
        """Pull or load `made.image`. What is here of it stays; what is missing or altered is fetched.

        With UNKNOWN, which `resolve` gave because nobody answered, what the reference means now is pulled; `resolve` then
        knows its digest. Raises RegistryError, ContentError, Failed.
        """
        spec = made.spec
        assert isinstance(spec, ImageSpec)
        digest = "" if made.image == UNKNOWN else made.image
        with _mapped(f"make {made.key}"):
            if spec.archive:
                from reconciler.engine.native.images import load

                digest = load.load_image(self._session, Path(spec.archive), digest, key=made.key, emit=emit)
            else:
                digest = self._pull(made.key, spec.reference, digest, emit)
            return self._status(digest)

    def update(self, old: Made, new: Made, *, uses: Uses, emit: Emit) -> Status:
        """Pull what is new of it, or mend what is missing."""
        return self.create(new, uses=uses, emit=emit)

    def delete(self, made: Made, *, data: bool = False) -> None:
        """Nothing: the record goes, content stays until a prune, for other stacks and for the next apply."""

    def observe(self, mades: Iterable[Made], glimpse: Glimpse) -> Mapping[Key, Status]:
        """A status for each, with the parts manifest, config and layers. Reads no layer."""
        with _mapped("look at images"):
            return {made.key: self._status(made.image) for made in mades}

    def list_images(self) -> Sequence[LocalImage]:
        """What is here, by digest; one whose documents were altered has an empty config, until `create` mends it."""
        with _mapped("list images"):
            return [self._read(kept) for kept in images.list_kept(self._layout)]

    def prune(self, used: Sequence[str], *, dry_run: bool = False) -> Sequence[tuple[str, int]]:
        """As the protocol says. Layers that a container uses stay, whatever `used` says. Raises LockTimeout while a pull
        is under way."""
        from reconciler.engine.native.images import prune

        with _mapped("prune images"):
            if not dry_run:
                unmount_layers(self._layout)
            return prune.prune_content(self._layout, used, dry_run=dry_run)

    def _read(self, kept: images.Kept) -> LocalImage:
        size = _size(self._layout, kept.diff_ids)
        try:
            return structs.replace(images.read_image(self._layout, kept.digest), size=size)
        except (ContentError, NotFound):
            return LocalImage(
                digest=kept.digest, names=kept.references, config={}, layers=(), size=size, platform="unknown"
            )

    def _pull(self, key: Key, reference: str, digest: str, emit: Emit) -> str:
        from reconciler.engine.native.images import pull

        return pull.pull_image(self._session, parse_reference(reference), digest, key=key, emit=emit)

    def _status(self, digest: str) -> Status:
        parts = {"manifest": missing(), "config": missing(), "layers": missing()}
        if not digest.startswith("sha256:") or not blobs.has_blob(self._layout, digest):
            return Status(phase=Phase.MISSING, parts=parts)
        try:
            parts["manifest"] = altered("content", digest, "other bytes")
            blobs.read_blob(self._layout, digest, what="the manifest")
            parts["manifest"] = PRESENT
            content = images.read_content(self._layout, digest)
        except ContentError as error:
            if parts["manifest"] is PRESENT:
                parts["config"] = altered("content", "", "other bytes")
            return Status(phase=Phase.PRESENT, parts=parts, error=error.brief)
        if content is None:
            return Status(phase=Phase.PRESENT, parts=parts)
        lacking = [diff_id for diff_id in content.diff_ids if not stored.has_layer(self._layout, diff_id)]
        parts["config"] = PRESENT
        parts["layers"] = _layers_part(len(content.diff_ids), lacking)
        return Status(phase=Phase.PRESENT, parts=parts, size=_size(self._layout, content.diff_ids))


@contextmanager
def _mapped(tried: str) -> Iterator[None]:
    """What the file system says, as an error for people."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        hint = "look at the root's disk and permissions"
        raise Failed(f"{tried}: {error.strerror or error}{where}", hint=hint) from error


def _layers_part(count: int, lacking: Sequence[str]) -> Part:
    if not lacking:
        return PRESENT
    return Part(state="missing", field="layers", old=f"{count}", new=f"{count - len(lacking)}")


def _size(layout: Layout, diff_ids: Sequence[str]) -> int:
    return sum(stored.layer_size(layout, diff_id) for diff_id in set(diff_ids))
