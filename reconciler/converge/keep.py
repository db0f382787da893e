"""What a plan has read of files → the store, before anything is made of it.

Order: after the revision was begun, which names all of it, so that nobody else's apply takes it for unused; before the
first wave, whose drivers read it.
"""

from reconciler.converge.ground import Ground
from reconciler.model.content import unpack
from reconciler.model.plan import Plan


def keep_contents(plan: Plan, ground: Ground) -> None:
    """Keep the contents of a plan that are not kept yet."""
    if not plan.contents:
        return
    with ground.store.read() as tx:
        new = plan.contents.keys() - tx.kept_contents()
    if not new:
        return
    # Sealed before the lock: it takes the import of a library, and a millisecond a megabyte.
    sealed = {digest: ground.store.sealer.seal_bytes(unpack(plan.contents[digest])) for digest in sorted(new)}
    with ground.lock_root("contents"), ground.store.write() as tx:
        tx.put_contents(sealed)
