"""Images by hand: pull, list, inspect, remove, prune. What is pulled by hand is leased, so that prune keeps it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from reconciler.engine.protocol import LocalImage
from reconciler.model.errors import Failed, NotFound, Usage
from reconciler.model.events import Emit
from reconciler.model.key import Key, Kind, make_key
from reconciler.model.record import UNKNOWN, Made
from reconciler.model.reference import canonical_reference
from reconciler.model.spec import ImageSpec
from reconciler.model.units import render_size_rounded
from reconciler.verbs.record import recorded
from reconciler.verbs.root import Root


class ImageRow(Struct, frozen=True, kw_only=True):
    """One image that is here, and why it is kept."""

    image: LocalImage
    used_by: tuple[str, ...]
    """Resources, leases and revisions."""


def pull(root: Root, text: str, *, emit: Emit) -> str:
    """Pull an image by hand; its digest. Raises what the registry says."""
    reference = _canonical(text)
    with recorded(root, "pull", reference, emit=emit) as outcome:
        outcome.text = digest = _pull(root, reference, emit)
    return digest


def _pull(root: Root, reference: str, emit: Emit) -> str:
    key = make_key(Kind.IMAGE, "pull", reference)
    spec = ImageSpec(reference=reference, pull="always")
    fact = root.engine.images.resolve(key, spec, recorded="", offline=False)
    if fact.digest == UNKNOWN:
        raise Failed(f"pull {reference}: {fact.warning or 'the registry does not answer'}", hint="is it up? try again")
    root.engine.images.create(Made(key=key, spec=spec, image=fact.digest), uses={}, emit=emit)
    with root.lock_root("pull"), root.store.write() as tx:
        tx.lease(fact.digest, reference)
    return fact.digest


def _canonical(text: str) -> str:
    try:
        return canonical_reference(text)
    except ValueError as error:
        raise Usage(f"{text}: {error}") from error


def list_images(root: Root) -> list[ImageRow]:
    """All images that are here."""
    users = _users(root)
    images = sorted(root.engine.images.list_images(), key=lambda image: (image.names, image.digest))
    return [ImageRow(image=image, used_by=tuple(users.get(image.digest, ()))) for image in images]


def _users(root: Root) -> Mapping[str, list[str]]:
    users: dict[str, list[str]] = {}
    with root.store.read() as tx:
        for key, record in tx.records().items():
            if record.image:
                users.setdefault(record.image, []).append(key)
        for lease in tx.leases():
            users.setdefault(lease.digest, []).append(f"pulled as {lease.name}")
        for digest in tx.used_digests() - users.keys():
            users[digest] = ["a kept revision"]
    return users


def find_image(root: Root, text: str) -> LocalImage:
    """An image by reference, digest or the beginning of one. Raises NotFound; Failed where several are meant."""
    images = root.engine.images.list_images()
    found = [image for image in images if _means(image, text)]
    if not found:
        raise NotFound("image", text)
    if len({image.digest for image in found}) > 1:
        digests = ", ".join(image.digest[:19] for image in found)
        raise Failed(f"{text}: there is more than one: {digests}", hint="write more of the digest")
    return found[0]


def _means(image: LocalImage, text: str) -> bool:
    digest = text.removeprefix("sha256:")
    if len(digest) >= 6 and image.digest.removeprefix("sha256:").startswith(digest):
        return True
    try:
        return canonical_reference(text) in image.names
    except ValueError:
        return False


def inspect(root: Root, text: str) -> dict[str, Any]:
    """Everything known of an image."""
    image = find_image(root, text)
    return {
        "digest": image.digest,
        "names": list(image.names),
        "platform": image.platform,
        "created": image.created,
        "size": image.size,
        "layers": list(image.layers),
        "config": image.config,
        "used_by": list(_users(root).get(image.digest, ())),
    }


def remove(root: Root, text: str) -> list[tuple[str, int]]:
    """Remove one image by hand, if no resource uses it; what went, with bytes. Raises Failed naming its users."""
    image = find_image(root, text)
    with recorded(root, "images rm", text) as outcome:
        gone = _remove(root, text, image)
        outcome.text = _say_gone(gone)
    return gone


def _say_gone(gone: Sequence[tuple[str, int]]) -> str:
    return f"{len(gone)} removed, {render_size_rounded(sum(size for _, size in gone))}"


def _remove(root: Root, text: str, image: LocalImage) -> list[tuple[str, int]]:
    with root.lock_root("images rm"), root.store.write() as tx:
        users = [key for key, record in tx.records().items() if record.image == image.digest]
        if users:
            raise Failed(f"image {text} is used by {', '.join(sorted(users))}", hint="delete them first")
        tx.drop_lease(image.digest)
        kept = {one.digest for one in root.engine.images.list_images()} | tx.used_digests()
        return list(root.engine.images.prune(sorted(kept - {image.digest})))


def prune(root: Root, *, all_: bool, dry_run: bool) -> list[tuple[str, int]]:
    """Remove what no resource, no kept revision and no pull by hand needs; with `all_`, what no resource needs."""
    if not root.store.path.exists():
        return []
    if dry_run:
        return _prune(root, all_=all_, dry_run=True)
    with recorded(root, "images prune", "all" if all_ else "unneeded") as outcome:
        gone = _prune(root, all_=all_, dry_run=False)
        outcome.text = _say_gone(gone)
    return gone


def _prune(root: Root, *, all_: bool, dry_run: bool) -> list[tuple[str, int]]:
    with root.lock_root("images prune"), root.store.write() as tx:
        if not all_:
            return list(root.engine.images.prune(sorted(tx.used_digests()), dry_run=dry_run))
        if not dry_run:
            for lease in tx.leases():
                tx.drop_lease(lease.digest, lease.name)
        return list(root.engine.images.prune(sorted(_recorded(tx.records())), dry_run=dry_run))


def _recorded(records: Mapping[Key, Any]) -> set[str]:
    return {record.image for record in records.values() if record.image}
