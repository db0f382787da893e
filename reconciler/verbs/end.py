"""The end of a container of the stack `run`: what `--rm` says, and what was made for it alone.

An attached `run --rm` calls this when its container has ended; for one that was detached, or whose `run` was killed, the
next command that changes something does.
"""

import hashlib
from contextlib import closing, suppress

from reconciler.linux import files
from reconciler.model.errors import LockTimeout
from reconciler.model.events import Emit
from reconciler.model.key import RUN_STACK, Key, split_key
from reconciler.model.observation import Phase
from reconciler.model.spec import ContainerSpec
from reconciler.plan.complete import implicit_volumes
from reconciler.plan.delete import find_unused, make_delete_plan
from reconciler.verbs.apply import ApplyOptions, carry_out
from reconciler.verbs.face import Face
from reconciler.verbs.look import Look, look
from reconciler.verbs.root import Root


class Attended:
    """Somebody waits for the end of a container: until `close` nobody else removes it."""

    def __init__(self, root: Root, key: Key, *, timeout: float) -> None:
        self._path = root.path / "locks" / f"attended-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        self._lock = files.lock(self._path, timeout, doing=f"run {key}")

    def close(self) -> None:
        """It has seen the end."""
        # Order: the file goes while it is locked; who waits for it looks whether it is still there.
        self._path.unlink(missing_ok=True)
        self._lock.release()


def remove(root: Root, key: Key, *, emit: Emit) -> None:
    """Remove a container with the volumes of its image and what nothing else of the stack uses; whatever is left of it."""
    with root.lock_stacks([RUN_STACK], "run --rm"):
        end_container(root, key, emit=emit)


def end_container(root: Root, key: Key, *, emit: Emit) -> None:
    """`remove`, where the caller holds the stack's lock."""
    looked = look(root, stacks=[RUN_STACK], locked=True)
    own = {found: record for found, record in looked.records.items() if split_key(found).stack == RUN_STACK}
    record = own.get(key)
    volumes = implicit_volumes(key, record.spec) if record and isinstance(record.spec, ContainerSpec) else {}
    keys = [key] if record else []
    unused = find_unused([key], looked.records)
    plan = make_delete_plan(
        [*keys, *unused], volumes=volumes, stacks=looked.stacks, records=looked.records, observation=looked.observation
    )
    if plan.actions:
        carry_out(
            root, plan, looked, ApplyOptions(yes=True, allow_delete=True), face=Face(emit=emit), tried=f"remove {key}"
        )


def remove_ended(root: Root, looked: Look, *, held: bool, emit: Emit) -> bool:
    """Remove the containers of `run --rm` that have ended and that nobody waits for; whether there were any.

    `held`: the caller holds the lock of the stack `run`. Who does not leaves them where somebody else is at work on it.
    """
    over = [
        key
        for key, record in looked.records.items()
        if isinstance(record.spec, ContainerSpec)
        and record.spec.remove
        and (status := looked.observation.statuses.get(key)) is not None
        and status.phase in (Phase.EXITED, Phase.MISSING)
    ]
    if not over:
        return False
    with suppress(LockTimeout), root.lock_stacks([] if held else [RUN_STACK], "run --rm", timeout=0):
        for key in over:
            with suppress(files.LockHeld), closing(Attended(root, key, timeout=0)):
                end_container(root, key, emit=emit)
    return True
