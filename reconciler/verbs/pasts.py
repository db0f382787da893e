"""A root → the revisions of a stack, and one of them as a wish of now: pinned to its images, refused where anything of it
is gone. Writes nothing.

`plan.py` asks it for stacks that a rollback holds, `rollback.py` and `back.py` for what they go back to.
"""

from collections.abc import Iterator
from pathlib import Path

from msgspec import structs

from reconciler.model.content import kept_files
from reconciler.model.errors import Failed, ReconcileError
from reconciler.model.key import Key, sort_key
from reconciler.model.record import UNKNOWN, Desired, ImageFact, Stack
from reconciler.model.reference import parse_reference
from reconciler.model.spec import ConfigSpec, ContainerSpec, ImageSpec, SecretSpec
from reconciler.plan.past import Past, take_back
from reconciler.store.rows import Revision
from reconciler.verbs.look import Look
from reconciler.verbs.root import Root

NOWHERE = "localhost/nowhere"
"""The name under which an image that came from a file is looked for by its digest alone."""


def read_pasts(root: Root, stack: str) -> list[Past]:
    """The kept revisions of a stack, oldest first."""
    with root.store.read() as tx:
        return [past_of(revision) for revision in tx.whole_revisions(stack)]


def past_of(revision: Revision) -> Past:
    """A revision as the planner sees it."""
    assert revision.wanted is not None
    stack = structs.replace(revision.wanted, source=revision.source)
    return Past(number=revision.number, result=revision.result, stack=stack, images=revision.images)


def desire_past(root: Root, past: Past, looked: Look, *, offline: bool = False) -> Desired:
    """What a revision wanted, with the very images that it was applied with.

    Raises Failed naming all of it that can't be had any more: images that are neither here nor at their registry,
    contents that were dropped, paths of the host that are gone.
    """
    name = past.stack.name
    recorded = looked.stacks.get(name)
    wanted = take_back(past, looked.records, origin=recorded.origin if recorded else past.stack.origin)
    problems = [*_missing_contents(root, wanted), *_missing_paths(wanted)]
    facts: dict[Key, ImageFact] = {}
    for key, spec in wanted.specs.items():
        if isinstance(spec, ImageSpec):
            try:
                facts[key] = _find_image(root, key, spec, past.images.get(key, ""), offline=offline)
            except ReconcileError as error:
                problems.append(error.brief if key in error.brief else f"{key}: {error.brief}")
    if problems:
        raise Failed(
            f"stack {name} can't go back to revision {past.number}: what it needs is gone",
            detail="\n".join(problems),
            hint=f"bring it back, or choose another revision (`reconcile history {name}`); nothing was changed",
        )
    return Desired(stacks=(wanted,), images=facts)


def _find_image(root: Root, key: Key, spec: ImageSpec, digest: str, *, offline: bool) -> ImageFact:
    """The facts of the image with this digest. Where it is not here its registry is asked for the digest, not the tag."""
    images = root.engine.images
    if digest in ("", UNKNOWN):  # Nobody could say then what the tag meant.
        return images.resolve(key, spec, recorded="", offline=offline)
    if spec.archive:
        pinned = ImageSpec(reference=f"{NOWHERE}@{digest}", pull="never")
    else:
        pinned = ImageSpec(reference=f"{parse_reference(spec.reference).name}@{digest}")
    try:
        fact = images.resolve(key, pinned, recorded=digest, offline=offline)
    except ReconcileError as error:
        where = f"the archive {spec.archive} may have another by now" if spec.archive else error.brief
        raise Failed(f"{key}: {digest[:19]} is not here, and {where}") from error
    if fact.digest != digest:
        raise Failed(f"{key}: {digest[:19]} is not here: {fact.warning or f'{pinned.reference} is {fact.digest[:19]}'}")
    return fact


def _missing_contents(root: Root, wanted: Stack) -> Iterator[str]:
    with root.store.read() as tx:
        told = tx.kept_contents()
    for key, spec in sorted(wanted.specs.items(), key=lambda item: sort_key(item[0]), reverse=True):
        if isinstance(spec, ConfigSpec | SecretSpec) and spec.digest and spec.digest not in told:
            told.add(spec.digest)
            yield f"{key}: what was in it is not kept any more"
        for target, file in kept_files(spec) if isinstance(spec, ContainerSpec) else ():
            if file.digest not in told:
                told.add(file.digest)
                yield f"{key}: what was in the file at {target} is not kept any more"


def _missing_paths(wanted: Stack) -> Iterator[str]:
    for key, spec in sorted(wanted.specs.items()):
        for target, mount in sorted(spec.mounts.items()) if isinstance(spec, ContainerSpec) else ():
            if mount.type == "bind" and not mount.digest and not Path(mount.source).exists():
                yield f"{key}: {mount.source}, mounted at {target}, is not there"
